"""A store from a user's own text.

    FILE          one text: its last twentieth becomes test, the twentieth before that valid
    FOLDER        train.txt, valid.txt, test.txt, under any of the splits' usual names; a missing split takes a
                  twentieth from the end of train

Nothing is random: held-out text starts where train ends. The cut is at the end of a line, or anywhere if a text has too
few lines. The vocabulary is built from train only; tokens outside it become `<unk>`.
"""

# N tokens of a text, K different tokens in all texts

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from datasets.splits import split_called
from datasets.store import StoreError
from datasets.store_format import SPLITS
from datasets.store_writer import write_text_store
from datasets.tokens import END_OF_LINE, UNITS, UNKNOWN, Tokens, tokenize
from foundation.text import listed, printable

DEFAULT_NUM_WORDS = 10_000
_HELD_OUT_FRACTION = 0.05
_FEWEST_LINES = 20
"""With fewer lines, a twentieth of a text is less than a whole line."""
_WITHOUT_BLANKS = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""A letter of Thai, Lao, Burmese, Khmer, Japanese or Chinese, which are written without blanks between words."""
_LONG_WORD, _LONG_WORD_THERE = 20, 4
"""Average letters of a word above which a text lacks blanks: in any script, and in the scripts without blanks."""


def build(
    source: Path,
    path: Path,
    *,
    name: str,
    tokens: Tokens,
    vocabulary_size: int | None = None,
    note: Callable[[str], object] = lambda text: None,
) -> tuple[str, ...]:
    """Write the text store at `path` from the file or folder `source`. Tokens are numbered by frequency in train, then
    alphabetically.

    Args: vocabulary_size: maximum number of different tokens, including `<unk>` and `<eos>`; by default 10,000 for
        `word`, and all tokens of train for the other kinds. note: receives remarks on the text for the user.
    Returns: the splits that were taken from the end of train.
    Raises: StoreError: a text is missing, empty, too short or not UTF-8, or the vocabulary would be too small.
    """
    if vocabulary_size is None and tokens == "word":
        vocabulary_size = DEFAULT_NUM_WORDS
    known: dict[str, int] = {}
    files = _files(source)
    if aside := sorted(file.name for file in _texts_in(source) if file not in files.values()):
        note(f"{listed(aside)}: not read, for the names are not those of splits")
    streams = {split: _numbered(file, known, tokens=tokens) for split, file in files.items()}
    missing = tuple(split for split in SPLITS if split not in streams)
    streams |= _cut(streams["train"], missing, line_end=known.get("\n" if tokens == "char" else END_OF_LINE, -1))
    for split in SPLITS:
        if len(streams[split]) < 2:
            raise StoreError(
                f"{source}: too little text: split '{split}' would have {len(streams[split])} of the at least 2 "
                f"{UNITS[tokens]} it needs"
            )
    counts = np.bincount(streams["train"], minlength=len(known)).tolist()
    frequency = dict(zip(known, counts, strict=True))
    if tokens != "char" and _lacks_blanks(frequency):
        note("there are next to no blanks between words, so whole clauses become tokens; --tokens char suits this text")
    vocabulary = _vocabulary(frequency, source=source, tokens=tokens, size=vocabulary_size)
    number = {token: index for index, token in enumerate(vocabulary)}
    renumbered = np.array([number.get(token, number.get(UNKNOWN, 0)) for token in known])  # [K]
    write_text_store(
        path,
        name=name,
        splits={split: renumbered[streams[split]] for split in SPLITS},
        vocabulary=vocabulary,
        source=f"imported from '{printable(source.resolve().name)}'",
        licence="as the text's owner says",
        tokens=tokens,
    )
    return missing


def _files(source: Path) -> dict[str, Path]:
    """The text file of each split that is given."""
    if source.is_file():
        return {"train": source}
    if not source.is_dir():
        raise StoreError(f"{source}: no such file or folder")
    files: dict[str, Path] = {}
    for file in _texts_in(source):
        split = split_called(file.stem)
        if split in files:
            raise StoreError(f"{source}: {listed([files[split].name, file.name])} are both names of the split {split}")
        if split:
            files[split] = file
    if "train" not in files:
        others = ", ".join(file.name for file in _texts_in(source)[:5]) or "no .txt file"
        raise StoreError(f"{source}: holds {others}, expected train.txt and, if there are, valid.txt and test.txt")
    return files


def _texts_in(source: Path) -> list[Path]:
    """The text files of a folder, sorted by name; empty if `source` is a file."""
    if not source.is_dir():
        return []
    found = (path for path in source.iterdir() if path.suffix.lower() == ".txt" and not path.name.startswith("."))
    return sorted(path for path in found if path.is_file())


def _lacks_blanks(frequency: Mapping[str, int]) -> bool:
    """Whether words are so long on average that blanks seem to be missing. frequency: of every token."""
    words = {token: count for token, count in frequency.items() if token[:1].isalnum()}
    num_words, num_letters = sum(words.values()), sum(len(word) * count for word, count in words.items())
    there = sum(len(_WITHOUT_BLANKS.findall(word)) * count for word, count in words.items())
    longest = _LONG_WORD_THERE if 2 * there > num_letters else _LONG_WORD
    return num_letters > longest * num_words


def _numbered(file: Path, known: dict[str, int], *, tokens: Tokens) -> np.ndarray:
    """Returns the tokens of a text as their numbers in `known`, uint32 [N]; adds new tokens to `known`."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise StoreError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if "\0" in text:
        raise StoreError(f"{file}: not a text: it has zero bytes")
    if not text.strip():
        raise StoreError(f"{file}: holds no text")
    if tokens != "char" and not text.endswith("\n"):
        text += "\n"
    # Line by line, so that the words of a long text are never all in memory.
    words = (word for line in text.splitlines(keepends=True) for word in tokenize(line, tokens=tokens))
    return np.fromiter((known.setdefault(word, len(known)) for word in words), np.uint32)


def _cut(train: np.ndarray, missing: Sequence[str], *, line_end: int) -> dict[str, np.ndarray]:
    """Returns train [N] without its end, and a part of its end for each missing split, in order."""
    ends = np.flatnonzero(train == line_end) + 1
    if len(ends) < _FEWEST_LINES:
        ends = np.arange(1, len(train) + 1)
    part = max(2, round(_HELD_OUT_FRACTION * len(ends)))
    starts = [0, *ends.tolist()]
    places = [starts[max(0, len(ends) - part * number)] for number in range(len(missing), 0, -1)]
    return dict(zip(("train", *missing), np.split(train, places), strict=True))


def _vocabulary(frequency: Mapping[str, int], *, source: Path, tokens: Tokens, size: int | None) -> list[str]:
    """The most frequent tokens of train, at most `size`, the most frequent first.

    `<eos>` is included unless tokens are characters. `<unk>` is included with `word`, if a text contains it, or if a
    token would be left out.

    Args: frequency: of every token in train; 0 for a token that only other splits contain.
    """
    special = [] if tokens == "char" else [END_OF_LINE]
    if tokens == "word" or UNKNOWN in frequency:
        special.append(UNKNOWN)
    order = sorted((token for token in frequency if token not in special), key=lambda token: (-frequency[token], token))
    ordinary = [token for token in order if frequency[token]]
    is_short = size is not None and len(ordinary) + len(special) > size
    if UNKNOWN not in special and (len(ordinary) < len(order) or is_short):
        special.append(UNKNOWN)
    room = len(ordinary) if size is None else size - len(special)
    besides = f" besides {' and '.join(special)}" if special else ""
    if len(ordinary) < 2:
        raise StoreError(
            f"{source}: train has {len(ordinary)} different {UNITS[tokens]}{besides}, but at least 2 are needed"
        )
    if room < 2:
        raise StoreError(f"a vocabulary of {size} is too small: at least 2 {UNITS[tokens]}{besides} are needed")
    kept = ordinary[:room]
    left_out = sum(frequency[token] for token in ordinary[room:])
    count = dict(frequency) | {UNKNOWN: frequency.get(UNKNOWN, 0) + left_out}
    return sorted([*kept, *special], key=lambda token: (-count[token], token))
