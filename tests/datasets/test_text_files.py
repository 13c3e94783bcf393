from __future__ import annotations

from pathlib import Path

import pytest

from datasets.sources import text_files
from datasets.store import StoreError, TextStore, open_store


def build(folder: Path, **texts: str | bytes) -> TextStore:
    files = {split: folder / f"{split}.txt" for split in texts}
    for split, text in texts.items():
        files[split].write_bytes(text if isinstance(text, bytes) else text.encode())
    text_files.build(files, folder / "x.h5", name="x", source="s", licence="l", tokens="whitespace")
    store = open_store(folder / "x.h5")
    assert isinstance(store, TextStore)
    return store


def words(store: TextStore, split: str) -> str:
    return " ".join(store.vocabulary[token] for token in store.stream(split))


def test_words_go_by_blanks_and_every_line_ends_with_a_token(tmp_path: Path) -> None:
    store = build(tmp_path, train=" to be \n\n or <unk> to be\n", test="be\n")
    assert words(store, "train") == "to be <eos> <eos> or <unk> to be <eos>"
    assert words(store, "test") == "be <eos>"


def test_a_last_line_without_its_end_counts_as_a_line(tmp_path: Path) -> None:
    assert words(build(tmp_path, train="a\nb"), "train") == "a <eos> b <eos>"


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    assert words(build(tmp_path, train="a\x0b\u2028b\n"), "train") == "a b <eos>"


def test_words_are_numbered_by_frequency_then_alphabet(tmp_path: Path) -> None:
    assert build(tmp_path, train="b a b c\n").vocabulary == ("b", "<eos>", "a", "c")


def test_a_word_that_train_lacks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"valid\.txt: 2 words are not in train's vocabulary \(first: 'bee'\)"):
        build(tmp_path, train="to be\n", valid="to bee or\n".replace("or", "wasp"))


def test_text_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"train\.txt: not UTF-8 text"):
        build(tmp_path, train=b"caf\xe9\n")


def test_an_empty_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"train\.txt: the file is empty"):
        build(tmp_path, train="", valid="to be\n")
