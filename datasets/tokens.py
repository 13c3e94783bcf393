"""Converts text to tokens and back, in the same way for a store and for a trained model.

`word`: lower-cased words and punctuation marks; the end of a line is a token of its own. A word is a run of letters and
digits. It includes hyphens and apostrophes inside it, an apostrophe before or after it (`'tis`, `th'`), a point or
comma between two digits, and the points of an abbreviation of single letters (`u.s.`). Dashes `--` and dots `...` are
one token each; any other mark is a token by itself. `<unk>` stays one token, so tokenising a text of tokens again does
not change it.

`char`: every character, including the end of a line.

`whitespace`: the strings between whitespace, unchanged, and the end of a line as with `word`; for texts that already
have a blank between any two tokens, as published sets do.

`word` and `char` use Unicode's composed form (NFC), so that a letter with its accent is one character however a file
stores it. With `word`, a mark that has no composed form (in Indic scripts, Thai, emoji) belongs to the character that
it modifies.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Literal, TypeAlias

Tokens: TypeAlias = Literal["word", "whitespace", "char"]
"""The kind of token."""
UNITS = {"word": "words", "whitespace": "words", "char": "characters"}
"""The unit of a number of tokens."""

END_OF_LINE = "<eos>"
"""The token for the end of a line."""
UNKNOWN = "<unk>"
"""The token for all words, or characters, outside the vocabulary."""


@cache
def _word_or_mark(*, ascii_only: bool) -> re.Pattern[str]:
    """The pattern of a word or punctuation mark. For ASCII, which has no combining marks, it omits them."""
    letters, marks, joined = r"\w+", "", ""
    if not ascii_only:
        combining = _combining_marks()
        letters, marks = rf"\w[\w{combining}]*", f"[{combining}]*"
        joined = rf"(?:(?<=\u200d)[^\w\s]{marks})*"  # emoji joined from several
    return re.compile(
        rf"\n|<unk>|(?:[^\W\d_]{marks}\.){{2,}}"
        rf"|'?{letters}(?:(?:['-]|(?<=\d)[.,](?=\d)){letters})*'?"
        rf"|--+|\.\.+|[^\w\s]{marks}{joined}"
    )


def _combining_marks() -> str:
    r"""All characters that modify the one before, and the joiners within words, as the inside of a regular expression's
    set. Python's `\w` does not include them.
    """
    numbers = [n for n in range(0x300, 0x1F000) if unicodedata.category(chr(n)).startswith("M")]
    spans = [(0x200C, 0x200D), (0xE0100, 0xE01EF)]
    for number in numbers:
        if spans[-1][1] == number - 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return "".join(f"{chr(first)}-{chr(last)}" for first, last in spans)


def tokenize(text: str, *, tokens: Tokens) -> list[str]:
    """The tokens of a text, in order. A last line without a line end gets no end token: more words may follow."""
    if tokens == "whitespace":
        return text.replace("\n", f" {END_OF_LINE} ").split()
    text = unicodedata.normalize("NFC", text)
    if tokens == "char":
        return list(text)
    text = text.lower().replace("’", "'")
    words = _word_or_mark(ascii_only=text.isascii()).findall(text)
    return [END_OF_LINE if word == "\n" else word for word in words]


def detokenize(strings: Iterable[str], *, tokens: Tokens) -> str:
    """Returns a text whose tokens are `strings`: words are joined by blanks, characters by nothing."""
    if tokens == "char":
        return "".join(strings)
    text = " ".join("\n" if string == END_OF_LINE else string for string in strings)
    return text.replace(" \n", "\n").replace("\n ", "\n")
