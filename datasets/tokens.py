"""From text to tokens and back: the same when a store is made and when a model is asked.

`word`: lower-cased words and punctuation marks, the end of a line a token of its own. A word is a run of letters and
digits; hyphens and apostrophes inside it belong to it, and so do an apostrophe before or behind (`'tis`, `th'`), a
point or comma between two digits, and the points of an abbreviation of single letters (`u.s.`). Dashes `--` and dots
`...` are one token each, any other mark is one by itself. `<unk>` stays whole, so what was tokenised is not changed by
being tokenised again.

`char`: every character, the end of a line being one of them.

`whitespace`: what stands between whitespace, as it is written, and the end of a line as with `word`; for a text that
has a blank between any two tokens already, as published sets do.

The first two read a text in Unicode's composed form (NFC), so that a letter with its accent is one token however a file
stores it. A mark that has no composed form (in Indic scripts, Thai, emoji) belongs to the character that it stands on.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from typing import Literal, TypeAlias

Tokens: TypeAlias = Literal["word", "whitespace", "char"]
"""What a token is."""
UNITS = {"word": "words", "whitespace": "words", "char": "characters"}
"""What a number of tokens counts."""

END_OF_LINE = "<eos>"
"""The word that stands for the end of a line."""
UNKNOWN = "<unk>"
"""The word, or character, that stands for all that are not in a vocabulary."""


@cache
def _word_or_mark(*, ascii_only: bool) -> re.Pattern[str]:
    """What is a word or a punctuation mark. ASCII has no combining marks, and need not be searched for them."""
    letters, marks, joined = r"\w+", "", ""
    if not ascii_only:
        combining = _combining_marks()
        letters, marks = rf"\w[\w{combining}]*", f"[{combining}]*"
        joined = rf"(?:(?<=\u200d)[^\w\s]{marks})*"  # emoji made of several
    return re.compile(
        rf"\n|<unk>|(?:[^\W\d_]{marks}\.){{2,}}"
        rf"|'?{letters}(?:(?:['-]|(?<=\d)[.,](?=\d)){letters})*'?"
        rf"|--+|\.\.+|[^\w\s]{marks}{joined}"
    )


def _combining_marks() -> str:
    r"""All characters that stand on the one before, and the joiners within words: the inside of a regular expression's
    set. Python's `\w` leaves them out.
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
    """The tokens of a text, in order. A last line without its end gets none: more words may follow."""
    if tokens == "whitespace":
        return text.replace("\n", f" {END_OF_LINE} ").split()
    text = unicodedata.normalize("NFC", text)
    if tokens == "char":
        return list(text)
    text = text.lower().replace("’", "'")
    words = _word_or_mark(ascii_only=text.isascii()).findall(text)
    return [END_OF_LINE if word == "\n" else word for word in words]


def detokenize(strings: Iterable[str], *, tokens: Tokens) -> str:
    """A text whose tokens are `strings`: words with blanks between, characters without."""
    if tokens == "char":
        return "".join(strings)
    text = " ".join("\n" if string == END_OF_LINE else string for string in strings)
    return text.replace(" \n", "\n").replace("\n ", "\n")
