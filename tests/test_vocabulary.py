"""Text to ids and back: characters, words, bytes; special tokens; what is refused."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastrnn
from fastrnn import Vocabulary

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
CHINESE = "循环神经网络读一个字，记住它，再读下一个。"


@given(TEXTS)
def test_characters_come_back(text):
    vocabulary = Vocabulary.from_text(text, unknown="<unknown>", pad="<pad>")
    ids = vocabulary.encode(text)
    assert ids.dtype == np.int64
    assert ids.shape == (len(text),)
    assert vocabulary.decode(ids) == text


@given(TEXTS)
def test_bytes_come_back_from_any_text(text):
    vocabulary = Vocabulary.from_text("", "byte", stop="<stop>")
    assert len(vocabulary) == 257
    assert vocabulary.encode(text).tolist() == [1 + byte for byte in text.encode()]
    assert vocabulary.decode([*vocabulary.encode(text), 0]) == text


@given(TEXTS)
def test_words_come_back_with_one_space_between(text):
    vocabulary = Vocabulary.from_text(text, "word", start="<start>")
    assert vocabulary.tokens == ("<start>", *sorted(set(text.split()) - {"<start>"}))
    if "<start>" not in text.split():
        assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


def test_chinese():
    vocabulary = Vocabulary.from_text(CHINESE, unknown="〇")
    assert len(vocabulary) == 1 + len(set(CHINESE))
    assert vocabulary.decode(vocabulary.encode(CHINESE)) == CHINESE
    assert vocabulary.decode(vocabulary.encode("读书")) == "读〇"
    words = Vocabulary(["循环", "网络"], unit="word")
    assert words.encode("网络 循环").tolist() == [1, 0]
    assert Vocabulary.from_text("", "byte").encode("字").tolist() == [0xE5, 0xAD, 0x97]


@pytest.mark.parametrize("unit", ["char", "word", "byte"])
def test_unknown_tokens(unit):
    vocabulary = Vocabulary(["a", "?", "b"], unit=unit, unknown="?")
    text = {"char": "axb", "word": "a x b", "byte": "axb"}[unit]
    assert vocabulary.encode(text).tolist() == [0, 1, 2]
    assert vocabulary.decode([0, 1, 2]) == {"char": "a?b", "word": "a ? b", "byte": "a?b"}[unit]


def test_special_tokens_are_not_found_in_text():
    words = Vocabulary(["<pad>", "<stop>", "<?>", "a"], unit="word", unknown="<?>", pad="<pad>", stop="<stop>")
    assert words.encode("a <stop> <pad>").tolist() == [3, 2, 2]
    assert words.encode(["a", "<stop>", "<pad>"]).tolist() == [3, 1, 0]
    assert words.decode([3, 0, 3, 1, 0, 0]) == "a a"
    short = Vocabulary([".", "a", "?"], unit="word", unknown="?", stop=".")  # a word of one character is special too
    assert short.encode("a . ?").tolist() == [1, 2, 2]
    assert short.decode([1, 0]) == "a"
    chars = Vocabulary(["<start>", "a", "<", ">"], start="<start>")
    assert chars.encode("<a>").tolist() == [2, 1, 3]
    assert chars.decode([0, 1]) == "a"


def test_one_character_that_is_no_byte_may_be_special():
    vocabulary = Vocabulary.from_text("ab", "byte", start="你", unknown="é")
    assert vocabulary.encode("a你é").tolist() == [vocabulary.tokens.index(chr(byte)) for byte in "a你é".encode()]
    assert vocabulary.decode([vocabulary.tokens.index("你"), *vocabulary.encode("a你")]) == "a你"
    assert Vocabulary(["a", "你"], unit="byte", unknown="你").decode([1, 0]) == "你a"


def test_a_character_that_stops_is_also_text():
    vocabulary = Vocabulary.from_text("a\nb\n", stop="\n")
    assert vocabulary.tokens == ("\n", "a", "b")
    assert vocabulary.decode(vocabulary.encode("a\nb\n")) == "a\nb\n"


def test_a_token_may_have_several_parts():
    vocabulary = Vocabulary(["<s>", "a"], start="<s>", stop="<s>")
    assert vocabulary.start == vocabulary.stop == "<s>"
    assert vocabulary.decode([0, 1, 0]) == "a"


def test_broken_bytes_are_replaced():
    vocabulary = Vocabulary.from_text("", "byte")
    assert vocabulary.decode([0x61, 0xE5, 0xAD, 0x62]) == "a\ufffdb"
    assert vocabulary.decode([]) == ""


def test_one_token():
    one = Vocabulary(["a"])
    assert one.encode("").shape == (0,)
    assert one.decode(np.zeros(0, np.int64)) == ""
    assert one.encode("aaa").tolist() == [0, 0, 0]


def test_pickles_copies_equality():
    vocabulary = Vocabulary.from_text("to be or not", "word", unknown="<unknown>")
    for other in (pickle.loads(pickle.dumps(vocabulary)), copy.deepcopy(vocabulary), copy.copy(vocabulary)):
        assert other == vocabulary
        assert hash(other) == hash(vocabulary)
        assert other.encode("to x").tolist() == vocabulary.encode("to x").tolist()
    assert vocabulary != Vocabulary(vocabulary.tokens, unit="word")
    assert vocabulary != vocabulary.tokens
    assert repr(vocabulary) == "Vocabulary(<5 tokens>, unit='word', unknown='<unknown>')"


def test_any_integer_ids():
    vocabulary = Vocabulary("abc".__iter__())
    for ids in ([0, 2], np.array([0, 2], np.uint8), np.array([0, 9, 2, 9])[::2], np.array([0, 2], ">i4")):
        assert vocabulary.decode(ids) == "ac"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Vocabulary("ab"), TypeError, r"tokens must be a sequence of str, got 'ab': list\(text\)"),
        (lambda: Vocabulary(3), TypeError, "tokens must be a sequence of str, got 3"),
        (lambda: Vocabulary([]), ValueError, "tokens must be at least one, got none"),
        (lambda: Vocabulary.from_text(""), ValueError, "tokens must be at least one, got none"),
        (lambda: Vocabulary(["a", 1]), TypeError, "tokens must be strings, got 1 at 1"),
        (lambda: Vocabulary(["a", "b", "a"]), ValueError, "tokens must differ, got 'a' again at 2"),
        (lambda: Vocabulary(["ab"]), ValueError, "each of tokens must be one character for unit='char', got 'ab' at 0"),
        (lambda: Vocabulary(["a b"], unit="word"), ValueError, "must be a word without white space .* got 'a b' at 0"),
        (lambda: Vocabulary([""], unit="word"), ValueError, "must be a word without white space .* got '' at 0"),
        (lambda: Vocabulary(["字"], unit="byte"), ValueError, r"must be of chr\(0\) .. chr\(255\) .* got '字' at 0"),
        (lambda: Vocabulary(["a"], pad="b"), ValueError, "pad='b' must be among tokens"),
        (lambda: Vocabulary(["a"], pad=0), TypeError, "pad must be a str, got 0"),
        (lambda: Vocabulary(["a"], unit="line"), ValueError, "unit must be one of 'char', 'word', 'byte', got 'line'"),
        (lambda: Vocabulary.from_text(b"a"), TypeError, "text must be a str, got bytes"),
        (lambda: Vocabulary.from_text("a", end="b"), TypeError, "end"),
        (
            lambda: Vocabulary(["a"]).encode("ab"),
            ValueError,
            "text has 'b', which is not in the vocabulary: give .* unknown",
        ),
        (lambda: Vocabulary(["a"], unit="byte").encode("ä"), ValueError, "text has byte 0xc3"),
        (
            lambda: Vocabulary.from_text("", "byte").encode("a\ud800"),
            ValueError,
            r"text must be of characters that UTF-8 has bytes for, got the lone surrogate '\\ud800' at 1: pass text",
        ),
        (lambda: Vocabulary(["a"]).encode(["a", "bc"]), ValueError, "text has 'bc'"),
        (lambda: Vocabulary(["a"]).encode(3), TypeError, "text must be a str or a sequence of them, got 3"),
        (lambda: Vocabulary(["a"]).encode([0]), TypeError, "each token of text must be a str, got 0"),
        (lambda: Vocabulary(["a"]).decode([1]), ValueError, r"ids must be in 0\.\.0, got 1\.\.1"),
        (lambda: Vocabulary(["a"]).decode([-1]), ValueError, r"ids must be in 0\.\.0, got -1"),
        (lambda: Vocabulary(["a"]).decode([0.0]), TypeError, "ids must be integers, got dtype float64"),
        (lambda: Vocabulary(["a"]).decode([[0]]), ValueError, r"ids must be \(T,\), got shape \(1, 1\)"),
        (lambda: setattr(Vocabulary(["a"]), "unit", "word"), AttributeError, "unit cannot be set or deleted: a Vocab"),
        (
            lambda: delattr(Vocabulary(["a"]), "unit"),
            AttributeError,
            "unit cannot be set or deleted: a Vocabulary does",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_message(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_is_public():
    assert "Vocabulary" in fastrnn.__all__
