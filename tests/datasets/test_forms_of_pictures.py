"""The forms in which people have labelled pictures: folders, links, archives, tables; and what only looks like one."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets.sources import own_pictures
from datasets.store import StoreError, open_store
from tests.datasets.test_own_pictures import all_images, build, make_folder, save


def zipped(folder: Path, *, below: str = "") -> Path:
    """A ZIP archive of a folder, its files below `below`."""
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"{below}{file.relative_to(folder)}")
    return path


def refusal(source: Path, **options: object) -> str:
    with pytest.raises(StoreError) as caught:
        own_pictures.build(source, source.parent / "x.h5", name="x", **options)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- splits and levels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Training", "Validation", "Testing"),
        ("TRAIN", "Dev", "TEST"),
        ("train_set", "valid", "eval"),
    ],
)
def test_splits_are_known_by_their_usual_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for seed, name in enumerate(names):
        for label in ("cat", "dog"):
            for number in range(8):
                save(tmp_path / "pets" / name / label / f"{number}.png", seed=100 * seed + number)
    store, _ = build(tmp_path / "pets")
    assert store.counts == {"train": 16, "valid": 16, "test": 16}


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train", "val", "valid"):
        make_folder(tmp_path / "pets" / name, count=2)
    assert "'val', 'valid' are all names of the split valid" in refusal(tmp_path / "pets")


def test_splits_without_class_folders_are_no_classes(tmp_path: Path) -> None:
    for name in ("train", "test"):
        save(tmp_path / "pets" / name / "0.png")
    message = refusal(tmp_path / "pets")
    assert "train (1 files)" in message or "test (1 files)" in message
    assert "are names of splits, but hold no class folders" in message


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "plane", "train"):
        for number in range(10):
            save(tmp_path / "vehicles" / name / f"{number}.png", seed=len(name) * 100 + number)
    assert build(tmp_path / "vehicles")[0].classes == ("car", "plane", "train")


@pytest.mark.parametrize(
    ("classes", "found"),
    [
        (["car", "plane", "train"], "folders of splits (train) and others beside them (car, plane)"),
        (["invalid", "valid"], "has a folder 'valid' but no folder 'train'"),
    ],
)
def test_classes_that_are_called_as_splits_can_be_taken_as_classes(
    tmp_path: Path, classes: list[str], found: str
) -> None:
    for name in classes:
        make_folder(tmp_path / "mine" / name, count=6)
    message = refusal(tmp_path / "mine")
    assert found in message
    assert message.endswith("--as-classes")
    assert build(tmp_path / "mine", as_classes=True)[0].classes == tuple(classes)


def test_splits_stay_splits_where_the_folders_in_them_are_taken_as_classes(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in ("photos", "samples"):
            make_folder(tmp_path / "mine" / split / name, count=6)
    store, _ = build(tmp_path / "mine", as_classes=True)
    assert (store.classes, store.counts["test"]) == (("photos", "samples"), 24)


def test_a_level_too_high_is_refused_with_what_was_found(tmp_path: Path) -> None:
    for name in ("photos", "samples"):
        make_folder(tmp_path / "repository" / name, count=6)
    message = refusal(tmp_path / "repository")
    assert "photos (12 files), samples (12 files) hold no files themselves" in message
    assert "('cat', 'dog')" in message
    assert build(tmp_path / "repository", as_classes=True)[0].classes == ("photos", "samples")


def test_pictures_and_their_masks_are_no_classes(tmp_path: Path) -> None:
    for name in ("images", "Masks"):
        for number in range(10):
            save(tmp_path / "cells" / name / f"{number}.png")
    assert "Masks (10 files), images (10 files) look like pictures and their annotations" in refusal(tmp_path / "cells")


def test_one_folder_around_all_is_looked_through(tmp_path: Path) -> None:
    make_folder(tmp_path / "download" / "pets-main" / "pets")
    assert build(tmp_path / "download")[0].classes == ("cat", "dog")


def test_an_archive_of_very_many_files_is_read_by_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_pictures, "_FILES_FOR_PROCESSES", 1)
    store, _ = build(zipped(make_folder(tmp_path / "pets")))
    assert all_images(store) == all_images(build(tmp_path / "pets")[0])


# --- what lies in a folder -------------------------------------------------------------------------------------------


def test_hidden_parts_of_a_class_are_not_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    save(folder / "cat" / ".ipynb_checkpoints" / "0-checkpoint.png")
    save(folder / "cat" / "__MACOSX" / "._0.png")
    store, report = build(folder)
    assert sum(store.counts.values()) == 20
    assert report.passed_over == []


def test_links_are_followed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    for number in range(5):
        save(tmp_path / "elsewhere" / f"{number}.png", seed=77 + number)
    os.symlink(tmp_path / "elsewhere", folder / "cat" / "more")
    os.symlink(tmp_path / "elsewhere" / "0.png", folder / "dog" / "one.png")
    assert sum(build(folder)[0].counts.values()) == 26


def test_a_link_back_is_told_and_not_followed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    os.symlink(folder, folder / "cat" / "again")
    os.symlink(tmp_path / "gone", folder / "dog" / "gone.png")
    store, report = build(folder)
    assert sum(store.counts.values()) == 20
    assert report.passed_over == [
        (f"{folder}/cat/again", f"a link back to {folder}, which it lies in: not followed"),
        (f"{folder}/dog/gone.png", f"a link to {tmp_path}/gone, which is not there"),
    ]


def test_what_cannot_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "pets")
    closed = folder / "cat" / "closed"
    closed.mkdir()
    os.mkfifo(folder / "dog" / "pipe.png")
    (folder / "README.md").write_text("beside the classes")
    scan = os.scandir

    def refuse(path: Path) -> object:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # the tests may run as root, whom no folder is closed to
    _, report = build(folder)
    assert report.passed_over == [
        (str(closed), "a folder that cannot be read: Permission denied"),
        (f"{folder}/dog/pipe.png", "neither a file nor a folder"),
        (f"{folder}/README.md", "lies beside the class folders, in none of them"),
    ]


def test_a_class_name_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    (folder / "cat").rename(folder / os.fsdecode(b"caf\xe9"))
    assert r"the class folder 'caf\xe9' has a name that is not UTF-8; rename it" in refusal(folder)


# --- what is odd about the classes -----------------------------------------------------------------------------------


def test_a_file_under_two_labels_is_named(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    (folder / "dog" / "copy.png").write_bytes((folder / "cat" / "3.png").read_bytes())
    _, report = build(folder)
    assert report.two_labels == [[f"{folder}/cat/3.png ('cat')", f"{folder}/dog/copy.png ('dog')"]]
    assert report.copies == [[f"{folder}/cat/3.png", f"{folder}/dog/copy.png"]]


def test_constant_and_equal_pictures_of_a_class_are_told(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    for shade in range(4):
        path = save(folder / "cat" / f"flat-{shade}.png")
        own_pixels = np.full((8, 6, 3), 200 if shade < 2 else shade, np.uint8)
        Image.fromarray(own_pixels).save(path, compress_level=shade)
    _, report = build(folder)
    assert "class 'cat': 4 of 14 pictures are of one colour all over" in report.doubtful
    assert "class 'cat': 1 of 14 pictures look exactly like another of them" in report.doubtful


def test_classes_that_a_split_lacks_are_named_the_rarest_first(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", count=20)
    for name, count in (("eel", 2), ("asp", 1)):
        for number in range(count):
            save(folder / name / f"{number}.png")
    _, report = build(folder)
    assert [line.partition(":")[0] for line in report.doubtful] == ["class 'asp'", "class 'eel'"]
    assert "none of its 2 pictures is in valid or test" in report.doubtful[1]


def test_large_pictures_want_a_size_which_is_proposed(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", size=(300, 200))
    assert "the pictures are 300×200" in refusal(folder)
    assert "--size 64, or --size 300x200" in refusal(folder)
    assert build(folder, size=(300, 200))[0].image_shape == (300, 200, 3)


# --- archives --------------------------------------------------------------------------------------------------------


def test_a_zip_archive_gives_what_its_folder_gives(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    save(folder / "cat" / ".hidden.png")
    from_folder = all_images(build(folder)[0])
    store, report = build(zipped(folder, below="pets-main/"))
    assert all_images(store) == from_folder
    assert (store.classes, report.passed_over, report.unreadable) == (("cat", "dog"), [], [])


def test_names_that_lead_out_of_an_archive_are_left_alone(tmp_path: Path) -> None:
    path = zipped(make_folder(tmp_path / "pets"))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("cat/../../outside.png", b"?")
        archive.writestr("/cat/absolute.png", save(tmp_path / "x.png").read_bytes())
    store, report = build(path)
    assert sum(store.counts.values()) == 21
    assert report.passed_over == [(f"{path}/cat/../../outside.png", "a name that leads out of the archive")]
    assert not (tmp_path.parent / "outside.png").exists()


@pytest.mark.parametrize("encoding", ["utf-8", "cp437"])
def test_names_in_an_archive_that_does_not_say_their_encoding_keep_accents(tmp_path: Path, encoding: str) -> None:
    name = "été".encode(encoding)
    ascii_name = "x" * len(name)
    folder = make_folder(tmp_path / "seasons")
    (folder / "cat").rename(folder / ascii_name)
    path = zipped(folder)
    path.write_bytes(path.read_bytes().replace(f"{ascii_name}/".encode(), name + b"/"))
    store, report = build(path)
    assert (store.classes, report.unreadable) == (("dog", "été"), [])


def test_damaged_members_of_an_archive_are_left_out(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    whole = (folder / "dog" / "4.png").read_bytes()
    path = zipped(folder)
    data = path.read_bytes()
    assert whole in data  # stored, not compressed
    path.write_bytes(data.replace(whole, whole[:-20] + bytes(20)))
    store, report = build(path)
    assert sum(store.counts.values()) == 19
    assert [name for name, _ in report.unreadable] == [f"{path}/dog/4.png"]
    path.write_bytes(data[:100])
    assert "not a ZIP archive that can be read" in refusal(path)


# --- tables ----------------------------------------------------------------------------------------------------------


def flat(folder: Path, *, count: int = 12) -> list[str]:
    """Pictures 0.png and so on, side by side."""
    return [save(folder / f"{number}.png", seed=number).name for number in range(count)]


def test_a_csv_file_of_paths_and_labels_is_followed(tmp_path: Path) -> None:
    names = flat(tmp_path / "all")
    rows = "".join(f"all/{name},{'even' if number % 2 == 0 else 'odd'}\n" for number, name in enumerate(names))
    for number, text in enumerate(("path,label\n" + rows, "\ufeffLabel;X;Filename\r\n", rows)):
        path = tmp_path / f"labels-{number}.csv"
        if number == 1:
            swapped = [line.split(",") for line in rows.split()]
            text += "".join(f"{label};1;{name}\r\n" for name, label in swapped)
        path.write_text(text, encoding="utf-8", newline="")
        store, report = build(path)
        assert (store.classes, sum(store.counts.values())) == (("even", "odd"), 12)
        assert report.unreadable == []


def test_a_table_may_name_splits_and_files_that_are_gone(tmp_path: Path) -> None:
    names = flat(tmp_path, count=24)
    splits = ["train"] * 12 + ["val"] * 6 + ["Test"] * 6
    lines = [f"{name},{number % 2},{split}" for number, (name, split) in enumerate(zip(names, splits, strict=True))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,class,split", *lines, "gone.png,1,train"]))
    store, report = build(tmp_path / "labels.csv")
    assert store.counts == {"train": 12, "valid": 6, "test": 6}
    assert report.unreadable == [(f"{tmp_path}/gone.png", "no such file")]


def test_labels_that_are_numbers_are_in_their_order(tmp_path: Path) -> None:
    names = flat(tmp_path, count=36)
    lines = [f"{name},{2 + 4 * (number % 3)}" for number, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
    assert build(tmp_path / "labels.csv")[0].classes == ("2", "6", "10")


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("packed", [False, True])
def test_hugging_faces_metadata_is_followed(tmp_path: Path, form: str, packed: bool) -> None:
    folder = tmp_path / "hub"
    for split in ("train", "test"):
        names = flat(folder / split)
        records = [{"file_name": name, "label": "cat" if n % 2 else "dog"} for n, name in enumerate(names)]
        if form == "jsonl":
            text = "".join(json.dumps(record) + "\n" for record in records)
        else:
            text = "file_name,label\n" + "".join(f"{record['file_name']},{record['label']}\n" for record in records)
        (folder / split / f"metadata.{form}").write_text(text)
        save(folder / split / "unlisted.png")
    store, report = build(zipped(folder) if packed else folder)
    assert (store.counts["train"] + store.counts["valid"], store.counts["test"]) == (12, 12)
    assert store.classes == ("cat", "dog")
    assert [Path(path).name for path, _ in report.passed_over] == ["unlisted.png", "unlisted.png"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_table_in_a_folder_within_folders_is_followed(tmp_path: Path, packed: bool) -> None:
    pictures = tmp_path / "download" / "photos-main" / "photos"
    lines = [
        f"{camera}/{name},{n % 2}" for camera in ("cam1", "cam2") for n, name in enumerate(flat(pictures / camera))
    ]
    (pictures / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    source = tmp_path / "download"
    store, report = build(zipped(source) if packed else source)
    assert (store.classes, sum(store.counts.values()), report.passed_over) == (("0", "1"), 24, [])


def test_two_tables_of_one_split_are_refused(tmp_path: Path) -> None:
    for split in ("train", "eval", "test"):
        lines = [f"{name},{n % 2}" for n, name in enumerate(flat(tmp_path / "hub" / split))]
        (tmp_path / "hub" / split / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    tables = f"{tmp_path}/hub/eval/metadata.csv and {tmp_path}/hub/test/metadata.csv"
    assert refusal(tmp_path / "hub") == f"{tables} are both tables of the split test"


def test_files_beside_the_folders_of_tables_are_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        lines = [f"{name},{n % 2}" for n, name in enumerate(flat(tmp_path / "hub" / split))]
    (tmp_path / "hub" / "train" / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    _, report = build(tmp_path / "hub")
    assert (f"{tmp_path}/hub/test/0.png", "no table lists it") in report.passed_over
    assert len(report.passed_over) == 12


def test_columns_are_those_of_all_lines_of_json(tmp_path: Path) -> None:
    records = [{"file_name": name, "label": n % 2, "split": "test"} for n, name in enumerate(flat(tmp_path, count=24))]
    for record in records[6:]:
        record["split"] = "train"
    del records[6]["split"]
    records.insert(0, records.pop(6))
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert build(tmp_path)[0].counts["test"] == 6


@pytest.mark.parametrize("character", ["\u2028", "\u0085"])
def test_json_lines_end_where_lines_of_json_do(tmp_path: Path, character: str) -> None:
    classes = (f"a {character}", "b")
    records = [{"file_name": name, "label": classes[n % 2]} for n, name in enumerate(flat(tmp_path))]
    text = "".join(json.dumps(record, ensure_ascii=False) + "\r\n" for record in records)
    (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8", newline="")
    assert build(tmp_path)[0].classes == classes


@pytest.mark.parametrize("form", ["{}/{}", "./{}/{}", "{}\\{}", "/{}/{}"])
@pytest.mark.parametrize("table", ["metadata.csv", "labels.csv"])
def test_folders_of_splits_in_the_paths_of_a_table_are_splits(tmp_path: Path, form: str, table: str) -> None:
    lines = []
    for split in ("train", "validation"):
        for number, name in enumerate(flat(tmp_path / split)):
            lines.append(f"{form.format(split, name)},{number % 2}")
    (tmp_path / table).write_text("\n".join(["file_name,label", *lines]))
    if form.startswith("/") and table == "labels.csv":
        assert "/train/0.png: no such file" in refusal(tmp_path / table)
        return
    store, _ = build(tmp_path if table == "metadata.csv" else tmp_path / table)
    assert store.counts["valid"] == 12


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no row"),
        ("path,label\n", "holds no row"),
        ("path,caption\n0.png,a cat\n", "no column of labels: it has 'path', 'caption', expected label or"),
        ("id,label\n0,1\n", "no column of paths: it has 'id', 'label'"),
        ("path,label\n0.png,\n", "line 2 has no label"),
        ("path,label\n0.png,cat\n", "1 classes, expected at least 2 ('cat')"),
        ("path,label,split\n0.png,cat,hold-out\n", "line 2 has the split 'hold-out'; expected train, valid, test"),
        ('path,label\n"0.png,cat\n', "unexpected end of data"),
        ("path,label,split\n0.png,a,test\n1.png,b,test\n", "has rows of test, but none of train"),
        (b"path,label\n\xff.png,a\n", "not UTF-8 text"),
    ],
)
def test_a_table_that_says_too_little_is_refused(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert re.search(re.escape(message), refusal(path))


@pytest.mark.parametrize("paths", ["{}", "elsewhere/{}.png", "./"])
def test_a_table_none_of_whose_files_is_there_names_the_first(tmp_path: Path, paths: str) -> None:
    lines = [f"{paths.format(number)},{number % 2}" for number in range(len(flat(tmp_path)))]
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,label", *lines]))
    first = f"{tmp_path}/{paths.format(0)}"
    assert refusal(tmp_path) == f"{tmp_path}/metadata.csv: none of the 12 files that it lists is there (first: {first})"


def test_a_column_that_every_line_has_comes_before_one_that_some_have(tmp_path: Path) -> None:
    records = [{"image": name, "class": str(number % 2)} for number, name in enumerate(flat(tmp_path))]
    records[1] |= {"path": "elsewhere", "label": "x"}
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    assert build(tmp_path)[0].classes == ("0", "1")


def test_class_folders_beside_a_table_of_other_things_can_be_taken_as_classes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_folder(tmp_path / "photos" / name, count=6)
    (tmp_path / "photos" / "metadata.csv").write_text("camera,lens\nx,50\n")
    assert refusal(tmp_path).endswith("or take the folders as classes with --as-classes")
    assert build(tmp_path, as_classes=True)[0].classes == ("a", "b")


def test_a_header_that_ends_like_a_files_name_is_a_header(tmp_path: Path) -> None:
    rows = [f"{name},{number % 2}" for number, name in enumerate(flat(tmp_path))]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["image.name,label", *rows]))
    assert "no column of paths: it has 'image.name', 'label'" in refusal(path)
    assert build(path, columns=("image.name", "label"))[0].classes == ("0", "1")
    path.write_text("\n".join(["image.png,label", *rows]))
    assert build(path, columns=("image.png", "label"))[1].unreadable == []


def test_columns_are_refused_where_there_is_no_table(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets")
    with pytest.raises(StoreError, match=f"^--columns is for a table, but {folder} has none: its folders are taken"):
        build(folder, columns=("image_id", "dx"))


def test_unusual_columns_can_be_named(tmp_path: Path) -> None:
    rows = [f"{name},{'nv' if number % 2 else 'mel'}" for number, name in enumerate(flat(tmp_path))]
    (tmp_path / "labels.csv").write_text("\n".join(["image_id,dx", *rows]))
    assert build(tmp_path / "labels.csv", columns=("image_id", "DX"))[0].classes == ("mel", "nv")


# --- progress --------------------------------------------------------------------------------------------------------


def test_every_file_is_counted_twice(tmp_path: Path) -> None:
    steps: list[int] = []
    totals: list[int] = []
    count: Callable[[], object] = lambda: steps.append(1)  # noqa: E731
    own_pictures.build(
        make_folder(tmp_path / "pets"), tmp_path / "x.h5", name="x", on_start=totals.append, on_picture=count
    )
    assert (totals, len(steps)) == ([40], 40)
    assert open_store(tmp_path / "x.h5").counts["train"] == 16
