"""From text to tokens and back: the same when a store is made and when a model is asked.

`word`: lower-cased words and punctuation marks, the end of a line a token of its own. A word is a run of letters and
digits; hyphens and apostrophes inside it belong to it, and so do an apostrophe before or behind (`'tis`, `th'`), a
point or comma between two digits, and the points of an abbreviation of single letters (`u.s.`). Dashes `--` and dots
`...` are one token each, any other mark is one by itself. `<unk>` stays whole, so what was tokenised is not changed by
being tokenised again.

`char`: every character, the end of a line being one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal, TypeAlias

Tokens: TypeAlias = Literal["word", "char"]
"""What a token is."""
UNITS = {"word": "words", "char": "characters"}
"""What a number of tokens counts."""

END_OF_LINE = "<eos>"
"""The word that stands for the end of a line."""
UNKNOWN = "<unk>"
"""The word, or character, that stands for all that are not in a vocabulary."""

_WORD_OR_MARK = re.compile(r"\n|<unk>|(?:[^\W\d_]\.){2,}|'?\w+(?:(?:['-]|(?<=\d)[.,](?=\d))\w+)*'?|--+|\.\.+|[^\w\s]")


def tokenize(text: str, *, tokens: Tokens) -> list[str]:
    """The tokens of a text, in order. A last line without its end gets none: more words may follow."""
    if tokens == "char":
        return list(text)
    words = _WORD_OR_MARK.findall(text.lower().replace("’", "'"))
    return [END_OF_LINE if word == "\n" else word for word in words]


def detokenize(strings: Iterable[str], *, tokens: Tokens) -> str:
    """A text whose tokens are `strings`: words with blanks between, characters without."""
    if tokens == "char":
        return "".join(strings)
    text = " ".join("\n" if string == END_OF_LINE else string for string in strings)
    return text.replace(" \n", "\n").replace("\n ", "\n")
