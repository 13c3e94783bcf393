"""Converts text to a language model's input and back, as the model's `enas.tokenizer` specifies."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, get_args

from datasets.tokens import Tokens, detokenize, tokenize

_MOST_NAMED = 3


class TokenizerError(ValueError):
    """A text, or a vocabulary, cannot be used."""


@dataclass(frozen=True)
class Tokenizer:
    """The strings that a model's token numbers represent."""

    tokens: Tokens
    vocabulary: tuple[str, ...]
    """Order matters: a token's number is its index."""
    unknown: str | None
    """The token for strings that are not in the vocabulary; None if there is no such token."""
    end_of_line: str | None
    """The word that ends a line; None if lines end with a character, or if the text has no lines."""

    def __post_init__(self) -> None:
        if self.tokens not in get_args(Tokens):
            raise TokenizerError(f"tokens is {self.tokens!r}, expected one of {', '.join(get_args(Tokens))}")
        if not self.vocabulary or not all(isinstance(string, str) for string in self.vocabulary):
            raise TokenizerError("vocabulary is not a list of strings")
        if len(self._numbers) < len(self.vocabulary):
            raise TokenizerError("vocabulary holds a string twice")
        for name, string in (("unknown", self.unknown), ("end_of_line", self.end_of_line)):
            if string is not None and string not in self._numbers:
                raise TokenizerError(f"{name} is {string!r}, which is not in the vocabulary")

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Tokenizer:
        """Raises: TokenizerError: a key is missing, unknown, or has a value that is not allowed."""
        try:
            return cls(**{**document, "vocabulary": tuple(document["vocabulary"])})
        except KeyError as error:
            raise TokenizerError(f"{error} is missing") from error
        except TypeError as error:
            raise TokenizerError(str(error).replace("Tokenizer.__init__() ", "")) from error

    @property
    def unknown_token(self) -> int | None:
        return None if self.unknown is None else self._numbers[self.unknown]

    @property
    def line_end_token(self) -> int | None:
        """The token after which a line begins; None if the vocabulary has no such token."""
        return self._numbers.get("\n" if self.end_of_line is None else self.end_of_line)

    def encode(self, text: str) -> tuple[list[int], list[str]]:
        """The token numbers of a text, and its strings that became the unknown token.

        Raises: TokenizerError: a string is not in the vocabulary, and there is no unknown token.
        """
        strings = [self._as_known(string) for string in tokenize(text, tokens=self.tokens)]
        missing = [string for string in dict.fromkeys(strings) if string not in self._numbers]
        if missing and self.unknown is None:
            raise TokenizerError(self._not_known(missing))
        return [self._numbers.get(string, self.unknown_token) for string in strings], missing  # type: ignore[misc]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text that token numbers represent."""
        return detokenize([self.vocabulary[token] for token in tokens], tokens=self.tokens)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {string: number for number, string in enumerate(self.vocabulary)}

    def _as_known(self, string: str) -> str:
        """The string, or its lower case if only that is known: a published text may be lower-cased throughout."""
        if self.tokens != "whitespace" or string in self._numbers:
            return string
        return lowered if (lowered := string.lower()) in self._numbers else string

    def _not_known(self, missing: Sequence[str]) -> str:
        named = ", ".join(map(repr, missing[:_MOST_NAMED])) + (" and others" if len(missing) > _MOST_NAMED else "")
        near = difflib.get_close_matches(missing[0], self.vocabulary) if self.tokens != "char" else []
        suggestion = f"; near {missing[0]!r} are {', '.join(map(repr, near))}" if near else ""
        return f"{named}: not in the vocabulary of {len(self.vocabulary):,}{suggestion}"
