"""A text store from plain text files, one for each split: tokens separated by whitespace, line ends as tokens.

Penn Treebank and WikiText are distributed in this form, with `<unk>` in place of words outside the vocabulary.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import chain
from pathlib import Path

import numpy as np

from datasets.store import StoreError
from datasets.store_writer import write_text_store
from datasets.tokens import Tokens, tokenize


def build(
    files: Mapping[str, Path],
    path: Path,
    *,
    name: str,
    source: str,
    licence: str,
    tokens: Tokens,
) -> None:
    """Write the text store at `path`. Tokens are numbered by frequency in train, then alphabetically.

    Args: files: text file of each split. tokens: how new texts must be tokenised.
    Raises: StoreError: a file is missing, empty or not UTF-8, or valid or test has a word that train lacks.
    """
    words = {split: _read_words(file) for split, file in files.items()}
    frequency = Counter(words.get("train", []))
    vocabulary = sorted(frequency, key=lambda word: (-frequency[word], word))
    number = {word: index for index, word in enumerate(vocabulary)}
    for split, file in files.items():
        unknown = sorted(set(words[split]) - number.keys())
        if unknown:
            raise StoreError(
                f"{file}: {len(unknown)} words are not in train's vocabulary (first: '{unknown[0]}'); "
                "write them as <unk> in all splits"
            )
    write_text_store(
        path,
        name=name,
        splits={split: np.array([number[word] for word in text], np.int64) for split, text in words.items()},
        vocabulary=vocabulary,
        source=source,
        licence=licence,
        tokens=tokens,
    )


def _read_words(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8") as lines:
            # A last line without its end counts as a line.
            whole = (line.removesuffix("\n") + "\n" for line in lines)
            words = list(chain.from_iterable(tokenize(line, tokens="whitespace") for line in whole))
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such file") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: not UTF-8 text ({error.reason})") from error
    if not words:
        raise StoreError(f"{path}: the file is empty")
    return words
