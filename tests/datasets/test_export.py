from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from datasets.augmentation import Augmentation
from datasets.augmented_sheet import augmented_sheet, kinds
from datasets.contact_sheet import contact_sheet
from datasets.export import export
from datasets.sources import own_pictures, own_text
from datasets.sources.published_text import WIKITEXT_2
from datasets.store import ImageStore, StoreError, TextStore, open_store
from datasets.store_writer import write_image_store
from foundation.pictures import Resize
from tests.datasets.conftest import Outcome, random_images, write_small_store, write_small_text_store

Run = Callable[..., Outcome]
COLOURS = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255)], np.uint8)


def coloured(path: Path, *, classes: tuple[str, ...] = ("red", "green", "blue")) -> ImageStore:
    """A store whose images have their class's colour all over."""
    labels = np.arange(30) % 3
    chunk = (np.broadcast_to(COLOURS[labels][:, None, None], (30, 8, 8, 3)).copy(), labels)
    splits = {"train": chunk, "valid": chunk, "test": chunk}
    write_image_store(path, name="colours", splits=splits, classes=classes, source="", licence="")
    store = open_store(path)
    assert isinstance(store, ImageStore)
    return store


# --- the contact sheet -----------------------------------------------------------------------------------------------


def test_a_sheet_has_a_row_for_each_class_with_its_own_images(tmp_path: Path) -> None:
    sheet = np.asarray(contact_sheet(coloured(tmp_path / "x.h5"), "train", num_columns=4))
    for colour in COLOURS:
        places = np.argwhere((sheet == colour).all(axis=2))
        (top, left), (bottom, right) = places.min(0), places.max(0)
        assert len(places) == 4 * 64 * 64
        assert bottom - top == 63  # one row, eight pixels enlarged eight times
        assert right - left == 4 * 64 + 3 * 6 - 1


def test_large_images_come_smaller_and_grey_ones_grey(tmp_path: Path) -> None:
    images = np.full((4, 300, 150, 1), 77, np.uint8)
    chunk = (images, np.arange(4) % 2)
    write_image_store(tmp_path / "x.h5", name="x", splits={"train": chunk}, classes=("a", "b\n"), source="", licence="")
    store = open_store(tmp_path / "x.h5")
    assert isinstance(store, ImageStore)
    sheet = np.asarray(contact_sheet(store, "train", num_columns=2))
    assert (sheet == 77).all(axis=2).sum() == 4 * 128 * 64


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_one_pixel_high_are_drawn(tmp_path: Path, channels: int) -> None:
    colour = (255, 0, 0)[:channels]
    chunk = (np.full((4, 1, 64, channels), colour, np.uint8), np.arange(4) % 2)
    write_image_store(tmp_path / "x.h5", name="x", splits={"train": chunk}, classes=("a", "b"), source="", licence="")
    store = open_store(tmp_path / "x.h5")
    assert isinstance(store, ImageStore)
    sheet = np.asarray(contact_sheet(store, "train", num_columns=2))
    assert (sheet == (colour if channels == 3 else 255)).all(axis=2)[27:29].sum() == 2 * 64
    rows = (augmented_sheet(store, "train", augmentation=None, num_columns=2).height - 6) // (1 + 28)
    assert rows == len(kinds(store.image_shape))  # not crop_border=black


def test_show_writes_the_sheet(run: Run, tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "x.h5")
    outcome = run("show", store.path, "--out", tmp_path / "sheet.png")
    assert (outcome.status, outcome.stdout) == (0, f"{tmp_path}/sheet.png: 8 images of each class of train\n")
    assert Image.open(tmp_path / "sheet.png").format == "PNG"
    assert "its name ends in .png or .jpg" in run("show", store.path, "--out", tmp_path / "sheet.h5").stderr
    assert "holds text, but images are needed" in run("show", "shakespeare", "--out", tmp_path / "s.png").stderr


def test_the_augmented_sheet_has_a_row_for_each_kind_or_for_each_class(run: Run, tmp_path: Path) -> None:
    store = coloured(tmp_path / "x.h5")
    tile, line = 64, 28
    every = np.asarray(augmented_sheet(store, "train", augmentation=None, num_columns=4))
    assert every.shape[:2] == (6 + (1 + len(kinds(store.image_shape))) * (tile + line), 6 + 4 * (tile + 6))
    fields = {name for kind in kinds(store.image_shape) for name in re.findall(r"(\w+)=", kind)}
    assert fields == {field.name for field in dataclasses.fields(Augmentation)} - {"erase_area"}
    out = tmp_path / "sheet.png"
    options = ["--set", "training.augmentation.cutout=8", "--set", "flip=true"]
    done = run("show", store.path, "--augmented", *options, "--out", out)
    assert (done.status, done.stdout) == (0, f"{out}: 8 images of train, augmented\n")
    sheet = np.asarray(Image.open(out))
    for row, colour in enumerate(COLOURS):
        tiles = sheet[6 + row * (tile + line) + 22 :][:tile, 6:]
        first, others = tiles[:, :tile], tiles[:, tile:]
        assert (first == colour).all()  # as it is, and then with a hole
        assert 0.2 < (others == colour).all(axis=2).mean() < 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--augmented", "--set", "rotaton=3"], "--set: unknown key 'rotaton'; expected one of crop_padding, "),
        (["--augmented", "--set", "flip=3"], "--set: flip is 3; expected true or false"),
        (["--augmented", "--set", "rotation=far"], "--set: rotation is 'far'; expected a number"),
        (
            ["--augmented", "--set", "crop_border=red"],
            "--set: crop_border: unknown value 'red'; expected one of mirrored",
        ),
        (["--augmented", "--set", "cutout=99"], "cutout is 99, larger than the pictures of 8×6"),
        (["--set", "flip=true"], "--set is for --augmented"),
    ],
)
def test_a_sheet_that_cannot_be_drawn_says_why(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    store = write_small_store(tmp_path / "x.h5")
    done = run("show", store.path, *arguments, "--out", tmp_path / "sheet.png")
    assert done.status == 2
    assert message in done.stderr
    assert not (tmp_path / "sheet.png").exists()


# --- export ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [("red", "green", "blue"), ("a/b", "..", "été %"), (".x", "2", "10")])
def test_what_is_exported_is_imported_as_it_was(tmp_path: Path, classes: tuple[str, ...]) -> None:
    before = coloured(tmp_path / "before.h5", classes=classes)
    export(before, tmp_path / "files")
    own_pictures.build(tmp_path / "files", tmp_path / "after.h5", name="x")
    after = open_store(tmp_path / "after.h5")
    assert isinstance(after, ImageStore)
    assert (sorted(after.classes), after.counts) == (sorted(classes), before.counts)
    for split in before.counts:
        for store in (before, after):
            images, labels = store.images(split), store.labels(split)
            for label, name in enumerate(store.classes):
                assert (images[labels == label] == COLOURS[classes.index(name)]).all()
                assert (labels == label).sum() == 10


def test_every_class_has_one_folder_and_none_lies_elsewhere(tmp_path: Path) -> None:
    classes = ("a/b", "a", "../../../escaped")
    export(coloured(tmp_path / "before.h5", classes=classes), tmp_path / "deep" / "er" / "files")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["before.h5", "deep"]
    places = sorted(path.name for path in (tmp_path / "deep/er/files/train").iterdir())
    assert places == ["%2E.%2F..%2F..%2Fescaped", "a", "a%2Fb"]


def test_a_store_whose_test_lacks_a_class_is_imported_as_it_was(tmp_path: Path) -> None:
    before = coloured(tmp_path / "before.h5", classes=("red", "green", "blue"))
    export(before, tmp_path / "files")
    shutil.rmtree(tmp_path / "files" / "test" / "blue")
    lines = (tmp_path / "files" / "metadata.csv").read_text().splitlines(keepends=True)
    (tmp_path / "files" / "metadata.csv").write_text("".join(one for one in lines if "test/blue" not in one))
    own_pictures.build(tmp_path / "files", tmp_path / "lacking.h5", name="x")
    lacking = open_store(tmp_path / "lacking.h5")
    export(lacking, tmp_path / "again")
    own_pictures.build(tmp_path / "again", tmp_path / "after.h5", name="x")
    assert open_store(tmp_path / "after.h5").counts == lacking.counts == before.counts | {"test": 20}


def test_a_text_is_exported_and_imported_as_it_was(tmp_path: Path) -> None:
    before = write_small_text_store(tmp_path / "before.h5")
    export(before, tmp_path / "texts")
    own_text.build(tmp_path / "texts", tmp_path / "after.h5", name="x", tokens="word")
    after = open_store(tmp_path / "after.h5")
    assert isinstance(after, TextStore)
    words = [[store.vocabulary[number] for number in store.stream("train")] for store in (before, after)]
    assert words[1][: len(words[0])] == words[0]


def test_a_published_text_is_exported_and_imported_as_it_was(run: Run, tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        text = " The <unk> @-@ the ’s \n \n = It =\n"
        (tmp_path / f"wiki.{split}.tokens").write_text(text, encoding="utf-8")
    WIKITEXT_2.build(tmp_path, tmp_path / "before.h5")
    before = open_store(tmp_path / "before.h5")
    assert isinstance(before, TextStore)
    told = run("export", before.path, "--out", tmp_path / "texts").stderr
    assert told == "to keep what its tokens are, import it with --tokens whitespace\n"
    own_text.build(tmp_path / "texts", tmp_path / "after.h5", name="x", tokens="whitespace")
    after = open_store(tmp_path / "after.h5")
    assert isinstance(after, TextStore)
    assert (after.sha256, after.vocabulary) == (before.sha256, before.vocabulary)


def test_an_export_takes_nothing_elses_place(run: Run, tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "x.h5")
    first = run("export", store.path, "--out", tmp_path / "files")
    assert (first.status, first.stdout) == (0, f"{tmp_path}/files: 80 images 8×6×3 in 3 classes\n")
    again = run("export", store.path, "--out", tmp_path / "files")
    assert (again.status, again.stderr) == (2, f"error: {tmp_path}/files: is there already; give a name that is free\n")


def test_an_export_says_how_its_pictures_were_resized(run: Run, tmp_path: Path) -> None:
    pictures = random_images(20, (8, 6, 3), num_classes=2)
    for resize in get_args(Resize):
        path, folder = tmp_path / f"{resize}.h5", tmp_path / resize
        splits, classes = {"train": pictures}, ("a", "b")
        write_image_store(path, name="x", splits=splits, classes=classes, source="", licence="", resize=resize)
        told = "to keep how a model resizes pictures, import it with --fit crop\n" if resize == "center_crop" else ""
        assert run("export", path, "--out", folder).stderr == told


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    store = write_small_store(tmp_path / "x.h5")

    def fail() -> None:
        raise StoreError("stopped")

    with pytest.raises(StoreError, match="stopped"):
        export(store, tmp_path / "files", on_step=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["x.h5"]
