from __future__ import annotations

from pathlib import Path

import pytest

from datasets.sources.published_text import PTB, WIKITEXT_2, PublishedText
from datasets.store import StoreError, TextStore, open_store
from datasets.store_format import SPLITS

BOTH = pytest.mark.parametrize(
    ("published", "names"),
    [
        (PTB, ("ptb.train.txt", "ptb.valid.txt", "ptb.test.txt")),
        (WIKITEXT_2, ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens")),
    ],
    ids=["ptb", "wikitext-2"],
)


def write_files(folder: Path, names: tuple[str, ...]) -> None:
    for name, text in zip(names, (" a N <unk> \n \n", " a \n", " <unk> \n"), strict=True):
        (folder / name).write_text(text)


@BOTH
def test_the_published_files_become_a_store_of_their_words(
    tmp_path: Path, published: PublishedText, names: tuple[str, ...]
) -> None:
    write_files(tmp_path, names)
    published.build(tmp_path, tmp_path / "x.h5")
    store = open_store(tmp_path / "x.h5")
    assert isinstance(store, TextStore)
    assert (store.name, store.tokens) == (published.name, "whitespace")
    texts = {split: " ".join(store.vocabulary[number] for number in store.stream(split)) for split in SPLITS}
    assert texts == {"train": "a N <unk> <eos> <eos>", "valid": "a <eos>", "test": "<unk> <eos>"}


@BOTH
def test_files_that_are_downloaded_are_those_that_a_store_is_built_from(
    tmp_path: Path, published: PublishedText, names: tuple[str, ...]
) -> None:
    write_files(tmp_path, tuple(file.name for file in published.files))
    published.build(tmp_path, tmp_path / "x.h5")
    assert open_store(tmp_path / "x.h5").counts == {"train": 5, "valid": 2, "test": 2}


@BOTH
def test_missing_files_are_named(tmp_path: Path, published: PublishedText, names: tuple[str, ...]) -> None:
    (tmp_path / names[1]).write_text("a\n")
    with pytest.raises(StoreError, match=f"^{tmp_path}: lacks {names[0]}, {names[2]}$"):
        published.build(tmp_path, tmp_path / "x.h5")
    assert not (tmp_path / "x.h5").exists()
