from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datasets.sources import own_text
from datasets.store import StoreError, TextStore, open_store
from datasets.store_format import SPLITS
from datasets.tokens import Tokens, detokenize, tokenize

POEM = "".join(f"Line {'abcdefg'[number % 7]} , said he .\n" for number in range(100))


def write(folder: Path, **texts: str | bytes) -> Path:
    """A folder of text files."""
    folder.mkdir(exist_ok=True)
    for split, text in texts.items():
        (folder / f"{split}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def build(source: Path, tokens: Tokens = "word", vocabulary_size: int | None = None) -> TextStore:
    path = source.parent / "x.h5"
    own_text.build(source, path, name="x", tokens=tokens, vocabulary_size=vocabulary_size)
    store = open_store(path)
    assert isinstance(store, TextStore)
    return store


def text(store: TextStore, split: str) -> str:
    strings = [store.vocabulary[number] for number in store.stream(split)]
    return detokenize(strings, tokens=store.tokens)


# --- splits ----------------------------------------------------------------------------------------------------------


def test_given_splits_are_kept(tmp_path: Path) -> None:
    store = build(write(tmp_path / "mine", train="to be .\n", valid="be to\n", test="to to\n"))
    assert [text(store, split) for split in SPLITS] == ["to be .\n", "be to\n", "to to\n"]


@pytest.mark.parametrize("names", [("TRAIN", "Val", "Test"), ("training", "validation", "testing")])
def test_splits_are_known_by_their_usual_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    texts = dict(zip(names, ("to be .\n", "be to\n", "to to\n"), strict=True))
    store = build(write(tmp_path / "mine", **texts))
    assert [text(store, split) for split in SPLITS] == ["to be .\n", "be to\n", "to to\n"]


def test_a_file_that_is_no_split_is_told(tmp_path: Path) -> None:
    notes: list[str] = []
    folder = write(tmp_path / "mine", train=POEM, heldout=POEM)
    own_text.build(folder, tmp_path / "x.h5", name="x", tokens="word", note=notes.append)
    assert notes == ["'heldout.txt': not read, for the names are not those of splits"]


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"'val.txt', 'valid.txt' are both names of the split valid"):
        build(write(tmp_path / "mine", train=POEM, val=POEM, valid=POEM))


@pytest.mark.parametrize(
    ("line", "is_advised"),
    [
        ("我来到北京清华大学学习计算机科学，今天天气很好。", True),
        ("ภาษาไทยเขียนติดกันไม่มีช่องว่างระหว่างคำ", True),
        ("acgtacgtttgacacgtgacgtgcagtcagtcagtgca", True),
        ("我 来到 北京 清华 大学 学习 计算机 科学", False),
        ("Donaudampfschifffahrtsgesellschaft und ein paar kurze Worte", False),
        ("यह एक हिन्दी वाक्य है", False),
    ],
)
def test_a_text_without_blanks_between_words_is_advised_characters(tmp_path: Path, line: str, is_advised: bool) -> None:
    notes: list[str] = []
    lines = "".join(f"{line}{'甲乙丙丁戊己庚辛壬癸'[number % 10]}\n" for number in range(60))
    folder = write(tmp_path / "mine", train=lines)
    own_text.build(folder, tmp_path / "x.h5", name="x", tokens="word", note=notes.append)
    assert any("--tokens char" in note for note in notes) == is_advised


@pytest.mark.parametrize("tokens", ["word", "char"])
def test_one_text_gives_its_last_lines_to_valid_and_test_in_order(tmp_path: Path, tokens: Tokens) -> None:
    store = build(write(tmp_path / "mine", train=POEM) / "train.txt", tokens)
    lines = (POEM if tokens == "char" else POEM.lower()).splitlines(keepends=True)
    assert [text(store, split) for split in SPLITS] == ["".join(lines[a:b]) for a, b in ((0, 90), (90, 95), (95, 100))]


def test_a_missing_split_is_taken_from_train_and_a_given_one_is_not_touched(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", train=POEM, test="said he\n")
    assert own_text.build(folder, tmp_path / "x.h5", name="x", tokens="word") == ("valid",)
    store = build(folder)
    assert text(store, "train").count("\n") == 95
    assert text(store, "valid").startswith("line e ,")
    assert text(store, "test") == "said he\n"


@pytest.mark.parametrize("tokens", ["word", "char"])
def test_a_text_without_line_ends_is_cut_between_tokens(tmp_path: Path, tokens: Tokens) -> None:
    store = build(write(tmp_path / "mine", train="x y z " * 40), tokens)
    total = 121 if tokens == "word" else 240
    assert store.count("train+valid+test") == total
    assert store.counts["valid"] == store.counts["test"] == round(0.05 * total)


@given(text_of_mine=st.text(st.sampled_from("ab .\n"), min_size=30, max_size=120))
def test_no_character_is_lost_or_moved_by_the_cut(tmp_path_factory: pytest.TempPathFactory, text_of_mine: str) -> None:
    whole = "ab .\n" + text_of_mine  # train, which comes first, gives the vocabulary
    folder = write(tmp_path_factory.mktemp("own") / "mine", train=whole)
    try:
        store = build(folder, "char")
    except StoreError as error:
        assert "too little text" in str(error)  # noqa: PT017
        return
    assert "".join(text(store, split) for split in SPLITS) == whole


# --- vocabulary ------------------------------------------------------------------------------------------------------


def test_tokens_are_numbered_by_frequency_in_train_then_alphabet(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", train="b b b c a\n", valid="c c c c\n", test="a b\n")
    assert build(folder).vocabulary == ("b", "<eos>", "a", "c", "<unk>")


def test_words_outside_the_vocabulary_become_unk_in_every_split(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", train="a a a b b c\n", valid="c a new\n", test="b <unk>\n")
    store = build(folder, vocabulary_size=4)
    assert sorted(store.vocabulary) == ["<eos>", "<unk>", "a", "b"]
    assert [text(store, split) for split in SPLITS] == ["a a a b b <unk>\n", "<unk> a <unk>\n", "b <unk>\n"]


def test_a_vocabulary_larger_than_the_text_has_no_effect(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", train=POEM)
    assert build(folder, vocabulary_size=5000).vocabulary == build(folder).vocabulary


def test_there_are_10000_words_by_default(tmp_path: Path) -> None:
    train = " ".join(f"w{number}" for number in range(12_000))
    assert len(build(write(tmp_path / "mine", train=train)).vocabulary) == 10_000


def test_characters_have_unk_only_where_it_is_needed(tmp_path: Path) -> None:
    train = "abba\nabc\n"
    known = build(write(tmp_path / "known", train=train, valid="cab", test="ab"), "char")
    assert known.vocabulary == ("a", "b", "\n", "c")
    foreign = build(write(tmp_path / "foreign", train=train, valid="caß", test="ab"), "char")
    assert text(foreign, "valid") == "ca<unk>"
    small = build(write(tmp_path / "small", train="abba\nabcd\n", valid="ab", test="ab"), "char", vocabulary_size=4)
    assert text(small, "train") == "abba\nab<unk><unk>\n"


def test_words_between_whitespace_are_all_kept_unless_a_size_is_given(tmp_path: Path) -> None:
    folder = write(tmp_path / "mine", train="The U.S. The\n", valid="The U.S.\n", test="The\n")
    assert build(folder, "whitespace").vocabulary == ("The", "<eos>", "U.S.")
    folder = write(tmp_path / "mine", train="a A a b\n" * 2, valid="a\n", test="c\n")
    assert build(folder, "whitespace").vocabulary == ("a", "<eos>", "A", "b", "<unk>")
    assert build(folder, "whitespace", vocabulary_size=4).vocabulary == ("a", "<eos>", "<unk>", "A")
    folder = write(tmp_path / "mine", train="a a b b c <unk>\n", valid="a\n", test="c\n")
    assert build(folder, "whitespace", vocabulary_size=4).vocabulary == ("<unk>", "a", "b", "<eos>")


def test_a_text_comes_back_word_for_word(tmp_path: Path) -> None:
    verse = "'Tis true: the King's men -- \"all\" of them -- won't come.\r\nÊtre, 猫 and 1,000.5!\n\n"
    store = build(write(tmp_path / "mine", train=verse * 30, valid=verse, test=verse))
    words = [store.vocabulary[number] for number in store.stream("valid")]
    assert words == tokenize(verse, tokens="word")
    assert "<unk>" not in words


def test_a_file_may_have_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"cr\xe9ation.txt")
    path.write_text(POEM)
    assert build(path).source == r"imported from 'cr\xe9ation.txt'"


def test_a_byte_order_mark_is_no_token(tmp_path: Path) -> None:
    assert "\ufeff" not in build(write(tmp_path / "mine", train=b"\xef\xbb\xbf" + POEM.encode()), "char").vocabulary


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"train": ""}, "train.txt: holds no text"),
        ({"train": POEM, "valid": " \n \n"}, "valid.txt: holds no text"),
        ({"train": b"caf\xe9\n"}, "train.txt: not UTF-8 text (invalid continuation byte at byte 3)"),
        ({"train": POEM, "test": b"\x89PNG\r\n"}, "test.txt: not UTF-8 text (invalid start byte at byte 0)"),
        ({"train": b"MZ\0\0"}, "train.txt: not a text: it has zero bytes"),
        ({"train": "a"}, "mine: too little text: split 'train' would have 0 of the at least 2 words it needs"),
        ({"train": "a " * 100}, "mine: train has 1 different words besides <eos> and <unk>, but at least 2 are needed"),
        (
            {"chapter-1": POEM},
            "mine: holds chapter-1.txt, expected train.txt and, if there are, valid.txt and test.txt",
        ),
        ({}, "mine: holds no .txt file, expected train.txt and, if there are, valid.txt and test.txt"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_text_is_refused_in_one_line_and_leaves_no_store(
    tmp_path: Path, texts: dict[str, str | bytes], message: str
) -> None:
    with pytest.raises(StoreError, match=f"{re.escape(message)}$") as caught:
        build(write(tmp_path / "mine", **texts))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("tokens", "size", "needed"),
    [
        ("word", 3, "2 words besides <eos> and <unk>"),
        ("char", 2, "2 characters besides <unk>"),
        ("word", -1, "2 words"),
    ],
)
def test_a_vocabulary_of_next_to_nothing_is_refused(tmp_path: Path, tokens: Tokens, size: int, needed: str) -> None:
    with pytest.raises(StoreError, match=f"a vocabulary of {size} is too small: at least {needed}"):
        build(write(tmp_path / "mine", train=POEM), tokens, vocabulary_size=size)


def test_a_source_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="gone: no such file or folder"):
        build(tmp_path / "gone")


def test_equal_text_gives_equal_bytes(tmp_path: Path) -> None:
    first, again = (write(tmp_path / name, train=POEM) / "train.txt" for name in ("one", "two"))
    own_text.build(first, tmp_path / "one.h5", name="x", tokens="word")
    own_text.build(again, tmp_path / "two.h5", name="x", tokens="word")
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "two.h5").read_bytes()
