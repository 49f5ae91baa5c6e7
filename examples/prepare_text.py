"""Turn two of Jane Austen's novels, as the R package janeaustenr holds them, into the texts of the character model.

    Rscript -e 'writeLines(janeaustenr::prideprejudice, "pride.txt")'
    Rscript -e 'writeLines(janeaustenr::sensesensibility, "sense.txt")'
    python examples/prepare_text.py pride.txt sense.txt

writes examples/data/austen.txt.xz (to train on) and fastrnn/data/pride_and_prejudice.txt (the last three chapters of
"Pride and Prejudice", held out; `fastrnn demo` reads them).
"""

import lzma
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HELD_OUT = "Chapter 59"


def paragraphs(book: str) -> str:
    """Unwrap the paragraphs of a book: one a line, without title, headings, editor's notes, asterisks, underscores."""
    body = book[re.search(r"(?mi)^chapter 1$", book).start() :]
    blocks = (" ".join(block.split()) for block in re.split(r"\n\s*\n", body.replace("_", "")))
    return "".join(f"{b}\n" for b in blocks if b and not re.fullmatch(r"(?i)chapter \w+|the end|\[.*\]|[* ]+", b))


def main() -> None:
    pride, sense = (Path(path).read_text(encoding="utf-8") for path in sys.argv[1:3])
    cut = pride.index(f"\n{HELD_OUT}\n")
    train = paragraphs(sense) + paragraphs(pride[:cut])
    held_out = paragraphs("Chapter 1\n\n" + pride[cut:])
    (ROOT / "examples/data/austen.txt.xz").write_bytes(lzma.compress(train.encode(), preset=9 | lzma.PRESET_EXTREME))
    (ROOT / "fastrnn/data/pride_and_prejudice.txt").write_text(held_out, encoding="utf-8")
    print(f"train {len(train):,} characters, held out {len(held_out):,}, alphabet {len(set(train))}")


if __name__ == "__main__":
    main()
