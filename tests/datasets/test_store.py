from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from datasets import store as store_module
from datasets.store import ImageStore, StoreError, TextStore, open_store
from datasets.store_writer import write_image_store, write_text_store
from tests.datasets.conftest import random_images, write_small_store, write_small_text_store

CLASSES = ("red", "green", "blue")


def write(path: Path, splits: dict[str, Any], classes: tuple[str, ...] = CLASSES) -> None:
    write_image_store(path, name="small", splits=splits, classes=classes, source="s", licence="l")


def test_images_and_labels_come_back_as_they_were_written(tmp_path: Path) -> None:
    images, labels = random_images(48, (8, 6, 3), num_classes=3)
    store = write_small_store(tmp_path / "small.h5")
    np.testing.assert_array_equal(store.images("train"), images)
    np.testing.assert_array_equal(store.labels("train"), labels)
    np.testing.assert_array_equal(store.read("train", 5, 9), images[5:9])
    assert store.labels("train").dtype == np.int64
    assert (store.image_shape, store.classes) == ((8, 6, 3), CLASSES)
    assert store.counts == {"train": 48, "valid": 12, "test": 20}
    assert store.nbytes("valid") == 12 * 8 * 6 * 3


def test_mean_and_std_are_those_of_train_per_channel(tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "small.h5")
    pixels = store.images("train").astype(np.float64) / 255
    np.testing.assert_allclose(store.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(store.std, pixels.std((0, 1, 2)), rtol=1e-12)


def test_a_channel_that_never_varies_can_still_be_divided_by_its_std(tmp_path: Path) -> None:
    write(tmp_path / "flat.h5", {"train": (np.full((3, 4, 4, 1), 7, np.uint8), np.arange(3))})
    store = open_store(tmp_path / "flat.h5")
    assert store.std == (1 / 255,)


def test_chunks_one_at_a_time_give_the_same_bytes_as_all_at_once(tmp_path: Path) -> None:
    images, labels = random_images(50, (8, 6, 3), num_classes=3)
    write(tmp_path / "whole.h5", {"train": (images, labels)})
    pieces = ((images[start : start + 7], labels[start : start + 7]) for start in range(0, 50, 7))
    write(tmp_path / "pieces.h5", {"train": pieces})
    assert (tmp_path / "pieces.h5").read_bytes() == (tmp_path / "whole.h5").read_bytes()


def test_verify_finds_a_single_changed_pixel(tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "small.h5")
    store.verify()
    with h5py.File(store.path, "r+") as file:
        file["valid/images"][3, 2, 1, 0] ^= 1
    with pytest.raises(StoreError, match="valid is not as it was written"):
        store.verify()


def test_text_comes_back_as_it_was_written(tmp_path: Path) -> None:
    tokens = {"train": np.array([0, 1, 2, 1]), "test": np.array([2, 0])}
    path = tmp_path / "text.h5"
    write_text_store(path, name="t", splits=tokens, vocabulary=("<eos>", "être", "猫"), source="s", licence="l")
    store = open_store(path)
    assert isinstance(store, TextStore)
    assert store.vocabulary == ("<eos>", "être", "猫")
    assert store.counts == {"train": 4, "test": 2}
    assert store.stream("train").dtype == np.uint16
    np.testing.assert_array_equal(store.stream("train"), tokens["train"])
    assert store.tokens == "word"
    store.verify()


def test_what_was_made_a_token_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "text.h5"
    options = {"name": "t", "vocabulary": "ab\n", "source": "", "licence": ""}
    write_text_store(path, splits={"train": np.arange(3)}, tokens="char", **options)
    store = open_store(path)
    assert isinstance(store, TextStore)
    assert (store.tokens, store.vocabulary) == ("char", ("a", "b", "\n"))


def test_a_text_store_that_does_not_say_holds_words(tmp_path: Path) -> None:
    path = write_small_text_store(tmp_path / "text.h5").path
    with h5py.File(path, "r+") as file:
        del file.attrs["tokens"]
    store = open_store(path)
    assert isinstance(store, TextStore)
    assert store.tokens == "word"


def test_other_text_or_another_vocabulary_gives_another_digest(tmp_path: Path) -> None:
    texts = {"one": ([0, 1], "ab"), "same": ([0, 1], "ab"), "order": ([1, 0], "ab"), "words": ([0, 1], "ac")}
    digests = {}
    for name, (tokens, vocabulary) in texts.items():
        path = tmp_path / f"{name}.h5"
        write_text_store(
            path, name="t", splits={"train": np.array(tokens)}, vocabulary=vocabulary, source="", licence=""
        )
        digests[name] = open_store(path).digest
    assert digests["one"] == digests["same"]
    assert len(set(digests.values())) == 3


@pytest.mark.parametrize("write_store", [write_small_store, write_small_text_store])
def test_a_store_without_a_split_is_refused_where_all_are_needed(tmp_path: Path, write_store: Any) -> None:
    store = write_store(tmp_path / "x.h5")
    store.require_splits()
    with h5py.File(store.path, "r+") as file:
        del file["valid"]
    with pytest.raises(StoreError, match="'small' has no split 'valid'; it has train, test"):
        open_store(store.path).require_splits()


def test_a_vocabulary_above_65536_words_takes_four_bytes_a_token(tmp_path: Path) -> None:
    vocabulary = [f"w{number}" for number in range(65537)]
    path = tmp_path / "text.h5"
    write_text_store(path, name="t", splits={"train": np.array([65536])}, vocabulary=vocabulary, source="", licence="")
    store = open_store(path)
    assert isinstance(store, TextStore)
    assert store.stream("train").tolist() == [65536]


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "small.h5")
    with pytest.raises(StoreError, match="'small' has no split 'dev'; it has train, valid, test"):
        store.images("dev")


# --- what is refused when writing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": (np.zeros((3, 4, 4), np.uint8), np.arange(3))}, "images are uint8 [3, 4, 4]"),
        ({"train": (np.zeros((3, 4, 4, 1)), np.arange(3))}, "images are float64 [3, 4, 4, 1]"),
        ({"train": (np.zeros((3, 4, 4, 1), np.uint8), np.arange(2))}, "train: 3 images but 2 labels"),
        ({"train": (np.zeros((3, 4, 4, 1), np.uint8), np.arange(3) / 2)}, "labels are float64 [3]"),
        ({"train": (np.zeros((3, 4, 4, 1), np.uint8), np.arange(1, 4))}, "labels run from 1 to 3, but there are 3"),
        ({"train": (np.zeros((3, 4, 4, 1), np.uint8), np.array([0, 2, 2]))}, "train has no image of 'green'"),
        ({"train": iter(())}, "split 'train' is empty"),
        ({"test": iter(())}, "a data set needs a split 'train'"),
        ({"train": iter(()), "dev": iter(())}, "unknown split 'dev'; expected train, valid, test"),
    ],
)
def test_wrong_arrays_are_refused_and_leave_no_file(tmp_path: Path, splits: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=re.escape(message)):
        write(tmp_path / "x.h5", splits)
    assert list(tmp_path.iterdir()) == []


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    splits = {
        "train": random_images(3, (4, 4, 1), num_classes=3),
        "test": random_images(3, (4, 5, 1), num_classes=3),
    }
    with pytest.raises(StoreError, match="images differ in size: 4×4×1 and, in test, 4×5×1"):
        write(tmp_path / "x.h5", splits)


def test_two_classes_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="classes names something twice: 'a'"):
        write(tmp_path / "x.h5", {"train": random_images(3, (4, 4, 1), num_classes=3)}, ("a", "b", "a"))


def test_a_class_of_a_refused_store_cannot_command_a_terminal(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"classes names something twice: 'a\\x1b\[2J'"):
        write(tmp_path / "x.h5", {"train": random_images(3, (4, 4, 1), num_classes=3)}, ("a\x1b[2J", "b", "a\x1b[2J"))


def test_a_token_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="tokens run from 0 to 2, but the vocabulary has 2 words"):
        write_text_store(
            tmp_path / "x.h5", name="t", splits={"train": np.arange(3)}, vocabulary="ab", source="", licence=""
        )


def test_a_failing_iterator_leaves_the_old_store_as_it_was(tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "small.h5")

    def breaks_off() -> Any:
        yield random_images(3, (4, 4, 1), num_classes=3)
        raise StoreError("no more")

    with pytest.raises(StoreError, match="no more"):
        write(store.path, {"train": breaks_off()})
    open_store(store.path).verify()
    assert [path.name for path in tmp_path.iterdir()] == ["small.h5"]


def test_a_full_disk_leaves_the_old_store_as_it_was(tmp_path: Path) -> None:
    """The system refuses to let a file grow past 1 MB; a process of its own, for HDF5 may crash on a failed write."""
    store = write_small_store(tmp_path / "small.h5")
    program = (
        "import sys; from pathlib import Path; from tests.datasets.test_store import write, random_images, CLASSES\n"
        "write(Path(sys.argv[1]), {'train': random_images(3000, (32, 32, 3), num_classes=3)})"
    )
    finished = subprocess.run(
        [sys.executable, "-c", program, str(store.path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=_limit_file_size,
    )
    assert finished.returncode == 1
    assert re.search(r"StoreError: .*small\.h5: could not be written: .*what stood there before is", finished.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["small.h5"]
    open_store(store.path).verify()


def _limit_file_size() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))


# --- what is refused when opening ------------------------------------------------------------------------------------


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"gone\.h5: no such file"):
        open_store(tmp_path / "gone.h5")


@pytest.mark.parametrize("fraction", [0.1, 0.5, 0.99])
def test_a_truncated_store_is_refused_with_the_cure(tmp_path: Path, fraction: float) -> None:
    path = write_small_store(tmp_path / "small.h5").path
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    with pytest.raises(StoreError, match=r"small\.h5: cut short .*; fetch or import it again: `enas data fetch"):
        open_store(path)


@pytest.mark.parametrize("content", [b"", b"\x89PNG", b"no store " * 1000])
def test_a_file_that_is_not_hdf5_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.h5").write_bytes(content)
    with pytest.raises(StoreError, match=r"x\.h5: not an HDF5 file"):
        open_store(tmp_path / "x.h5")


def test_another_programs_hdf5_file_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["weights"] = np.zeros(3)
    with pytest.raises(StoreError, match="an HDF5 file, but not a data set store of ours"):
        open_store(tmp_path / "x.h5")


def _replace(file: h5py.File, name: str, data: Any) -> None:
    del file[name]
    file[name] = data


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.attrs.update(version=2), "store version 2, but this program reads version 1"),
        (lambda file: file.attrs.pop("complete"), "not finished: its writing was interrupted"),
        (lambda file: file.attrs.pop("licence"), "attribute 'licence' is missing"),
        (lambda file: file.attrs.update(kind="sound"), "kind is 'sound', expected 'images' or 'text'"),
        (lambda file: file.attrs.update(resize="stretch"), "resize is 'stretch', expected one of squash, center_crop"),
        (lambda file: file["test"].attrs.pop("sha256"), "test: attribute 'sha256' is missing"),
        (lambda file: file["train"].attrs.pop("std"), "train: attribute 'std' must hold one finite number a channel"),
        (lambda file: file["train"].attrs.update(std=[0.0, 1, 1]), "train: attribute 'std' must be above 0"),
        (lambda file: file.pop("train"), "it has no split 'train'"),
        (lambda file: _replace(file, "test", [1, 2]), "'test' is not a group"),
        (lambda file: file.pop("classes"), "'classes' is not a dataset of strings"),
        (lambda file: _replace(file, "classes", [1, 2]), "'classes' is not a dataset of strings"),
        (lambda file: file.pop("valid/labels"), "valid: no dataset labels"),
        (lambda file: _replace(file, "valid/labels", np.arange(12) % 4), "valid/labels run from 0 to 3, but there are"),
        (lambda file: _replace(file, "valid/labels", np.zeros(5, int)), "valid has 12 images but 5 labels"),
        (lambda file: _replace(file, "valid/labels", np.zeros(12)), "valid/labels is float64 with 1 axes"),
        (lambda file: _replace(file, "valid/images", np.zeros((12, 8, 6, 3))), "valid/images is float64 with 4 axes"),
        (
            lambda file: _replace(file, "valid/images", np.zeros((12, 8, 7, 3), np.uint8)),
            "splits differ in image size: train 8×6×3, valid 8×7×3, test 8×6×3",
        ),
    ],
)
def test_a_wrong_store_is_refused_with_what_is_wrong(tmp_path: Path, damage: Any, message: str) -> None:
    path = write_small_store(tmp_path / "small.h5").path
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(StoreError, match=re.escape(message)) as caught:
        open_store(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda file: file.attrs.update(tokens="letter"), "tokens is 'letter', expected one of word, whitespace, char"),
        (lambda file: file.pop("vocabulary"), "'vocabulary' is not a dataset of strings"),
        (lambda file: _replace(file, "valid/tokens", np.arange(10)), "valid/tokens is not a dataset uint16 [N] or"),
        (lambda file: _replace(file, "valid/tokens", np.zeros(0, np.uint16)), "valid is empty"),
        (lambda file: _replace(file, "valid/tokens", np.full(3, 5, np.uint16)), "valid/tokens reach 5, but the"),
    ],
)
def test_a_wrong_text_store_is_refused_with_what_is_wrong(tmp_path: Path, damage: Any, message: str) -> None:
    path = write_small_text_store(tmp_path / "text.h5").path
    with h5py.File(path, "r+") as file:
        damage(file)
    with pytest.raises(StoreError, match=re.escape(f"{path}: {message}")):
        open_store(path)


def test_all_problems_of_a_store_are_reported_together(tmp_path: Path) -> None:
    path = write_small_store(tmp_path / "small.h5").path
    with h5py.File(path, "r+") as file:
        del file["valid/labels"], file["test/images"]
    with pytest.raises(StoreError, match="valid: no dataset labels; test: no dataset images"):
        open_store(path)


def test_a_damaged_chunk_is_refused_when_it_is_read(tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "small.h5")
    with h5py.File(store.path) as file:
        where = file["train/images"].id.get_chunk_info(0).byte_offset
    data = bytearray(store.path.read_bytes())
    data[where : where + 100] = bytes(100)
    store.path.write_bytes(data)
    with pytest.raises(StoreError, match=r"small\.h5: damaged .*; fetch or import it again"):
        store.images("train")


def test_opening_reads_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_small_store(tmp_path / "small.h5").path
    monkeypatch.setattr(store_module, "_read", lambda *_: pytest.fail("read a dataset"))
    open_store(path)


def test_joined_splits_are_read_one_after_the_other(tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "small.h5")
    train, valid = store.images("train"), store.images("valid")
    both = np.concatenate([train, valid])
    assert store.count("train+valid") == len(both)
    assert np.array_equal(store.images("train+valid"), both)
    assert np.array_equal(store.labels("train+valid"), np.concatenate([store.labels("train"), store.labels("valid")]))
    for start, stop in ((0, 1), (len(train) - 2, len(train) + 2), (len(train), len(both)), (3, 3)):
        assert np.array_equal(store.read("train+valid", start, stop), both[start:stop])


def test_images_by_number_come_in_any_order_and_each_chunk_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = write_small_store(tmp_path / "small.h5")
    read = ImageStore.read
    reads: list[int] = []

    def watched(store: ImageStore, split: str, start: int, stop: int) -> np.ndarray:
        reads.append(start)
        return read(store, split, start, stop)

    for split, numbers, starts in (
        ("train", [47, 0, 5, 0, 41], [0, 40]),
        ("valid", [], []),
        ("train+valid", [59, 1, 48, 46], [0, 40, 50]),
    ):
        chosen = np.array(numbers, dtype=np.int64)
        expected = store.images(split)[chosen]
        with monkeypatch.context() as patch:
            patch.setattr(ImageStore, "chunk_length", 10)
            patch.setattr(ImageStore, "read", watched)
            np.testing.assert_array_equal(store.take(split, chosen), expected)
        assert reads == starts
        reads.clear()


def test_joined_splits_of_a_text_are_read_one_after_the_other(tmp_path: Path) -> None:
    store = write_small_text_store(tmp_path / "text.h5")
    assert store.count("train+valid") == 50
    assert np.array_equal(store.stream("train+valid"), np.concatenate([store.stream("train"), store.stream("valid")]))
    with pytest.raises(StoreError, match="'small' has no split 'dev'"):
        store.stream("train+dev")
