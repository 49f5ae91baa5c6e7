"""Tag the words of a sentence with their parts of speech.

python examples/tag.py "I want to book the book"
"""

import argparse
from pathlib import Path

import fastrnn
from fastrnn.demo import words

MODEL = Path(__file__).resolve().parent / "models/tags.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sentence", help='such as "I want to book the book"')
    model, sentence = fastrnn.load(MODEL), words(parser.parse_args().sentence)
    p = model.predict(model.vocabulary.encode(sentence))  # (words, tags)
    width = max(map(len, sentence), default=0) + 6
    for word, of_word in zip(sentence, p, strict=True):
        print(f"{word + '/' + model.labels[of_word.argmax()]:{width}}  {of_word.max():.4f}")


if __name__ == "__main__":
    main()
