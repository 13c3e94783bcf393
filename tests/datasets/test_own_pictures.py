from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.sources import own_pictures
from datasets.sources.import_report import ImportReport
from datasets.store import ImageStore, StoreError, open_store
from runtime.models.images import Preprocess, prepare_file
from tests.foundation import sixteen_bits
from tests.foundation.test_parallel import killed


def save(path: Path, *, size: tuple[int, int] = (8, 6), mode: str = "RGB", seed: int | None = None) -> Path:
    """A picture of noise, H×W = size; equal seeds give equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = len(str(path)) + sum(str(path).encode()) if seed is None else seed
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, *channels), np.uint8), mode).save(path)
    return path


def make_folder(folder: Path, *, count: int = 10, mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> Path:
    """Classes `cat` and `dog` of `count` different pictures each."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(count):
            save(folder / name / f"{number}.png", mode=mode, size=size, seed=1000 * label + number)
    return folder


def build(folder: Path, **options: object) -> tuple[ImageStore, ImportReport]:
    path = folder.parent / "x.h5"
    report = own_pictures.build(folder, path, name="x", **options)  # type: ignore[arg-type]
    store = open_store(path)
    assert isinstance(store, ImageStore)
    return store, report


def all_images(store: ImageStore) -> list[bytes]:
    return sorted(image.tobytes() for split in store.counts for image in store.images(split))


# --- splits ----------------------------------------------------------------------------------------------------------


def test_a_folder_of_classes_is_split_80_10_10_by_class(tmp_path: Path) -> None:
    store, report = build(make_folder(tmp_path / "pets", count=20))
    assert store.classes == ("cat", "dog")
    assert store.counts == report.counts == {"train": 32, "valid": 4, "test": 4}
    assert np.bincount(store.labels("test")).tolist() == [2, 2]
    originals = [np.asarray(Image.open(path)).tobytes() for path in (tmp_path / "pets").rglob("*.png")]
    assert all_images(store) == sorted(originals)


def test_a_seed_gives_the_same_store_again(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", count=20)
    digests = [build(folder, seed=seed)[0].sha256["train"] for seed in (1, 1, 2)]
    assert digests[0] == digests[1] != digests[2]


def test_the_classes_are_mixed_so_that_a_chunk_holds_several(tmp_path: Path) -> None:
    store, _ = build(make_folder(tmp_path / "pets", count=20))
    assert set(store.labels("train")[:8].tolist()) == {0, 1}


def test_identical_files_stay_in_one_split(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in ("cat", "dog"):
        for number in range(40):
            save(folder / name / f"{number}.png", seed=number // 4)  # also across classes
    store, _ = build(folder)
    splits = [{image.tobytes() for image in store.images(split)} for split in store.counts]
    assert sum(map(len, splits)) == len(set.union(*splits)) == 10


def test_given_splits_are_kept(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("valid", 2), ("test", 3)):
        make_folder(tmp_path / "pets" / split, count=count)
    store, report = build(tmp_path / "pets")
    assert store.counts == {"train": 10, "valid": 4, "test": 6}
    assert len(report.leaked) == 10  # make_folder draws the same pictures everywhere
    assert report.leaked[0][0] == str(tmp_path / "pets/valid/cat/0.png")


def test_a_missing_split_takes_a_tenth_of_train(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets" / "train", count=20)
    make_folder(tmp_path / "pets" / "test", count=3)
    store, _ = build(tmp_path / "pets")
    assert store.counts == {"train": 36, "valid": 4, "test": 6}
    assert list(store.counts) == ["train", "valid", "test"]


def test_pictures_may_lie_in_folders_within_their_class(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    save(folder / "cat" / "2019" / "may" / "extra.png")
    assert sum(build(folder)[0].counts.values()) == 21


# --- pixels ----------------------------------------------------------------------------------------------------------


def test_pictures_that_are_all_grey_give_one_channel(tmp_path: Path) -> None:
    assert build(make_folder(tmp_path / "grey", mode="L"))[0].image_shape == (8, 6, 1)


def test_one_picture_in_colour_makes_all_rgb(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "mixed", mode="L")
    save(folder / "cat" / "colour.png", mode="RGB")
    store, _ = build(folder)
    assert store.image_shape == (8, 6, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_number_of_channels_can_be_chosen(tmp_path: Path, channels: int) -> None:
    store, _ = build(make_folder(tmp_path / "pets", mode="RGBA"), channels=channels)
    assert store.image_shape == (8, 6, channels)


@pytest.mark.parametrize("resize", ["squash", "center_crop"])
def test_pictures_of_any_size_come_to_the_size_wanted(tmp_path: Path, resize: str) -> None:
    folder = make_folder(tmp_path / "pets", size=(9, 21))
    save(folder / "cat" / "tall.jpg", size=(40, 10))
    store, _ = build(folder, size=(6, 5), resize=resize)
    assert store.image_shape == (6, 5, 3)
    assert store.resize == resize


def test_the_centre_crop_keeps_proportions(tmp_path: Path) -> None:
    folder = tmp_path / "bars"
    pixels = np.zeros((10, 30), np.uint8)
    pixels[:, 10:20] = 200  # only the middle third is bright
    for name in ("a", "b"):
        for number in range(4):
            (folder / name).mkdir(parents=True, exist_ok=True)
            pixels[0, 0] = number  # no two files alike
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    darkest = {}
    for resize in ("center_crop", "squash"):
        store, _ = build(folder, size=(10, 10), resize=resize)
        darkest[resize] = store.images("train").min()
    assert darkest == {"center_crop": 200, "squash": 0}


def test_a_picture_is_turned_upright_by_its_exif_orientation(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", size=(6, 8))
    upright = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(np.rot90(upright).copy()).save(folder / "cat" / "turned.png", exif=exif)
    store, _ = build(folder)  # sizes agree once it is upright
    assert upright.tobytes() in all_images(store)


def test_sixteen_bit_grey_keeps_its_upper_bits(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "grey", mode="L")
    deep = np.arange(48, dtype=np.uint16).reshape(8, 6) * 1000
    Image.fromarray(deep).save(folder / "cat" / "deep.png")
    store, _ = build(folder)
    assert (deep >> 8).astype(np.uint8).tobytes() in all_images(store)


@pytest.mark.parametrize("resize", ["squash", "center_crop"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_becomes_what_the_runtime_makes_of_it(tmp_path: Path, resize: str, channels: int) -> None:
    """Or a model would meet other pixels in service than in training."""
    folder = make_folder(tmp_path / "pets", count=3, mode="RGBA", size=(19, 31))
    save(folder / "cat" / "photo.jpg", size=(40, 23))
    Image.fromarray(np.arange(600, dtype=np.uint16).reshape(20, 30) * 100).save(folder / "dog" / "deep.png")
    deep = np.arange(1800, dtype=np.uint16).reshape(20, 30, 3)
    (folder / "cat" / "deep.png").write_bytes(sixteen_bits.png(deep))
    (folder / "cat" / "deep.tif").write_bytes(sixteen_bits.tiff(deep))
    store, report = build(folder, size=(16, 12), resize=resize, channels=channels)
    assert [how for _, how in report.remarks] == ["no value above 1799: read as 12 bits a pixel"] * 2
    rule = Preprocess(resize=resize, height=16, width=12, channels=channels)
    expected = [prepare_file(path.read_bytes(), preprocess=rule).pixels.tobytes() for path in folder.rglob("*.*")]
    assert all_images(store) == sorted(expected)


# --- what is left out and what is refused ----------------------------------------------------------------------------


def test_unreadable_files_are_listed_and_left_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    (folder / "cat" / "notes.txt").write_text("not a picture")
    (folder / "dog" / "empty.png").write_bytes(b"")
    cut_short = save(folder / "dog" / "cut.jpg", size=(8, 6))
    cut_short.write_bytes(cut_short.read_bytes()[:-200])
    (folder / "cat" / ".DS_Store").write_bytes(b"hidden files are passed over")
    store, report = build(folder)
    assert sum(store.counts.values()) == 20
    assert {(Path(path).name, reason) for path, reason in report.unreadable if "cut.jpg" not in path} == {
        ("notes.txt", "not a picture"),
        ("empty.png", "an empty file"),
    }
    assert len(report.unreadable) == 3


def test_a_folder_of_mostly_unreadable_files_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", count=2)
    for number in range(5):
        (folder / "cat" / f"{number}.raw").write_bytes(b"?")
    with pytest.raises(StoreError, match=r"5 of 9 files cannot be read as pictures \(first: .*0\.raw: not a picture\)"):
        build(folder)


def test_a_size_that_no_memory_holds_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", count=6)
    with pytest.raises(StoreError, match=r"99999×99999 have 9,999,800,001 pixels, 4,194,304 at most .* --size"):
        build(folder, size=(99_999, 99_999))
    assert not (tmp_path / "x.h5").exists()


def test_mixed_sizes_without_a_size_are_refused_with_both(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    save(folder / "dog" / "wide.png", size=(8, 16))
    with pytest.raises(StoreError, match=r"is 8×6, .*dog/wide\.png is 8×16; give the size of all with --size"):
        build(folder)
    assert not (tmp_path / "x.h5").exists()


def test_a_class_without_a_picture_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    (folder / "eel").mkdir()
    with pytest.raises(StoreError, match="train: class 'eel' has no image that can be read"):
        build(folder)


def test_a_class_that_a_given_split_lacks_is_reported(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets" / "train", count=20)
    save(tmp_path / "pets" / "test" / "cat" / "0.png")
    store, report = build(tmp_path / "pets")
    assert store.counts["test"] == 1
    assert ["class 'dog': none of its 20 pictures is in test" in line for line in report.doubtful] == [True]


def test_a_given_split_without_a_picture_is_refused(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets" / "train")
    (tmp_path / "pets" / "test" / "cat").mkdir(parents=True)
    with pytest.raises(StoreError, match="test: has no image that can be read"):
        build(tmp_path / "pets")


def cut_in_half(path: Path) -> None:
    """Leave a picture its header alone whole, so that the first pass takes it."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_a_class_whose_pictures_of_a_split_are_cut_short_is_reported(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets" / "train", count=20, size=(16, 16))
    save(tmp_path / "pets" / "test" / "cat" / "0.png", size=(16, 16))
    cut_in_half(save(tmp_path / "pets" / "test" / "dog" / "0.png", size=(16, 16)))
    _, report = build(tmp_path / "pets")
    assert report.counts["test"] == 1
    assert ["class 'dog': none of its 20 pictures is in test" in line for line in report.doubtful] == [True]


def test_a_class_whose_pictures_are_all_cut_short_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", size=(16, 16))
    for number in range(2):
        cut_in_half(save(folder / "eel" / f"{number}.png", size=(16, 16)))
    with pytest.raises(StoreError, match="train: class 'eel' has no image that can be read"):
        build(folder)
    assert not (tmp_path / "x.h5").exists()


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        ([], "no such folder"),
        (["cat"], "1 class folders, expected one for each of at least 2 classes"),
        (["test/cat", "test/dog"], "has a folder 'test' but no folder 'train'"),
        (["train/cat", "train/dog", "birds"], "folders of splits (train) and others beside them (birds)"),
        (["train/cat", "train/dog", "test/eel"], "classes that train does not have: eel"),
    ],
)
def test_a_folder_of_another_form_is_refused(tmp_path: Path, folders: list[str], message: str) -> None:
    for name in folders:
        (tmp_path / "pets" / name).mkdir(parents=True)
    with pytest.raises(StoreError, match=re.escape(message)):
        build(tmp_path / "pets")


def test_too_few_pictures_to_split_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="too few pictures to take a split 'valid' from"):
        build(make_folder(tmp_path / "pets", count=2))


# --- very many files -------------------------------------------------------------------------------------------------


def test_processes_make_the_same_store_as_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "pets", count=40)
    (folder / "cat" / "notes.txt").write_text("?")
    whole = (folder / "dog" / "1.png").read_bytes()
    (folder / "dog" / "cut.png").write_bytes(whole[:60])
    (folder / "dog" / "deep.png").write_bytes(sixteen_bits.png(np.full((8, 6, 3), 4095, np.uint16)))
    reports, stores = [], []
    for limit in (1_000, 1):
        monkeypatch.setattr(own_pictures, "_FILES_FOR_PROCESSES", limit)
        path = tmp_path / f"{limit}.h5"
        steps: list[None] = []
        reports.append(own_pictures.build(folder, path, name="pets", on_picture=lambda s=steps: s.append(None)))
        stores.append((path.read_bytes(), len(steps)))
    assert reports[0] == reports[1]
    assert len(reports[0].unreadable) == 2
    assert stores[0] == stores[1]


def test_a_killed_process_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_pictures, "_FILES_FOR_PROCESSES", 1)
    monkeypatch.setattr(own_pictures, "_inspected", killed)
    with pytest.raises(StoreError, match="a process that was reading pictures has been killed"):
        build(make_folder(tmp_path / "pets"))
    assert not list(tmp_path.glob("**/*.tmp"))
