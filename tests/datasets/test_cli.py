from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from datasets import catalog
from datasets.store_writer import write_image_store
from tests.datasets.conftest import Outcome, Server, write_small_store
from tests.datasets.test_mirroring import arrow, drawn
from tests.datasets.test_own_pictures import make_folder, save

Run = Callable[..., Outcome]


def test_list_shows_every_set_and_how_to_get_it(run: Run, data_folder: Path) -> None:
    write_small_store(data_folder / "pets.h5")
    outcome = run("list")
    assert outcome.status == 0
    assert "fashion-mnist-mini  embedded" in outcome.stdout
    assert "enas data fetch cifar10 " in outcome.stdout
    assert "pets                imported                       80 images 8×6×3 in 3 classes" in outcome.stdout


def test_list_goes_on_past_a_damaged_store(run: Run, data_folder: Path) -> None:
    path = write_small_store(data_folder / "pets.h5").path
    path.write_bytes(path.read_bytes()[:1000])
    rows = json.loads(run("list", "--json").stdout)
    assert rows[-1]["state"] == "damaged"
    assert "cut short" in rows[-1]["summary"]


def test_info_is_json_where_a_program_reads_it(run: Run) -> None:
    facts = json.loads(run("info", "fashion-mnist-mini", "--json").stdout)
    assert facts["image_shape"] == [28, 28, 1]
    assert facts["class_counts"]["test"] == [200] * 10


@pytest.mark.parametrize("name", ["fashion-mnist-mini", "shakespeare"])
def test_info_verifies_a_store_when_asked(run: Run, name: str) -> None:
    outcome = run("info", name, "--verify")
    assert outcome.status == 0
    assert "licence" in outcome.stdout
    assert outcome.stdout.rstrip().endswith("verified)")


def test_a_set_of_many_classes_shows_the_first_ones(run: Run, tmp_path: Path) -> None:
    classes = [f"class {number}" for number in range(30)]
    splits = {"train": (np.zeros((30, 2, 2, 1), np.uint8), np.arange(30))}
    write_image_store(tmp_path / "x.h5", name="x", splits=splits, classes=classes, source="", licence="")
    assert "and 10 classes more\n" in run("info", tmp_path / "x.h5").stdout


def test_fetch_builds_a_store_from_the_original_files(run: Run, originals: Path) -> None:
    outcome = run("fetch", "fashion-mnist", "--from", originals)
    assert outcome.status == 0
    assert outcome.stdout.endswith("fashion-mnist.h5: 220 images 4×4×1 in 10 classes\n")
    assert run("info", "fashion-mnist").status == 0


def test_fetch_replaces_a_store_only_when_told(run: Run, originals: Path, tmp_path: Path) -> None:
    arguments = ("fetch", "fashion-mnist", "--from", originals, "--out", tmp_path / "f.h5")
    assert run(*arguments).status == 0
    refused = run(*arguments)
    assert (refused.status, refused.stdout) == (2, "")
    assert refused.stderr == f"error: {tmp_path}/f.h5: is there already; --force replaces it\n"
    assert run(*arguments, "--force").status == 0


def test_fetch_downloads_builds_and_tidies_up(
    run: Run, originals: Path, server: Server, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple(server.publish(path.name, path.read_bytes()) for path in sorted(originals.iterdir()))
    entry = catalog._ENTRIES["fashion-mnist"]
    assert entry.remote is not None
    here = replace(entry, remote=replace(entry.remote, files=files))
    monkeypatch.setitem(catalog._ENTRIES, "fashion-mnist", here)
    outcome = run("fetch", "fashion-mnist")
    assert outcome.status == 0, outcome.stderr
    assert sorted(path.name for path in data_folder.rglob("*.*")) == ["fashion-mnist.h5"]


def test_import_builds_a_store_and_lists_what_it_left_out(run: Run, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "my pets", size=(9, 7))
    save(folder / "cat" / "large.jpg", size=(30, 20))
    (folder / "dog" / "notes.txt").write_text("?")
    outcome = run("import", folder, "--name", "pets", "--size", "8x6", "--fit", "crop")
    assert outcome.status == 0
    assert outcome.stdout.endswith("pets.h5: 21 images 8×6×3 in 2 classes\n")
    assert "left out, since they cannot be read: 1\n" in outcome.stderr
    assert "notes.txt: not a picture" in outcome.stderr
    assert catalog.load("pets").name == "pets"


def test_import_says_what_training_will_do_about_left_and_right(run: Run, tmp_path: Path) -> None:
    store = drawn(tmp_path / "arrows.h5", arrow, count=200, num_classes=2)
    for number, (image, label) in enumerate(zip(store.images("train"), store.labels("train"), strict=True)):
        path = tmp_path / "arrows" / ("left", "right")[label] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    outcome = run("import", tmp_path / "arrows", "--name", "arrows")
    assert "'left' and 'right' look like each other's mirrored" in outcome.stderr
    assert ": training does not mirror pictures, unless --flip says so\n" in outcome.stderr
    outcome = run("import", make_folder(tmp_path / "pets", size=(9, 7)), "--name", "pets")
    line = "no class was found to look like another one mirrored: training mirrors pictures, unless --no-flip says so\n"
    assert line in outcome.stderr


def test_a_text_is_imported_listed_and_shown_in_its_units(run: Run, tmp_path: Path) -> None:
    (tmp_path / "novel.txt").write_text("It was a dark night.\n" * 40)
    words = run("import", tmp_path / "novel.txt", "--name", "novel", "--vocabulary", "5")
    table = ["       words  <unk>", "train    252  42.9%", "valid     14  42.9%", "test      14  42.9%"]
    assert words.stdout.splitlines()[:4] == table
    assert words.stdout.endswith("novel.h5: 280 words, vocabulary of 5\n")
    assert words.stderr == "valid and test were taken from the end of train\n"
    letters = run("import", tmp_path / "novel.txt", "--name", "letters", "--tokens", "char")
    assert letters.stdout.endswith("letters.h5: 840 characters, 15 different\n")
    assert "280 words, vocabulary of 5" in run("list").stdout
    shown = run("info", "novel").stdout
    assert "\n".join(table) in shown
    assert "common   ' ' 'a'" in run("info", "letters").stdout
    facts = json.loads(run("info", "letters", "--json").stdout)
    assert (facts["tokens"], facts["vocabulary_size"], facts["unknown_counts"]) == ("char", 15, None)


def test_a_folder_of_texts_alone_needs_no_word_that_it_is_text(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text("to be or not\n")
    outcome = run("import", folder, "--name", "mine")
    assert (outcome.status, outcome.stderr) == (0, "")
    assert catalog.load_text("mine").counts == {"train": 5, "valid": 5, "test": 5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "fashion-mnits"], "did you mean 'fashion-mnist'?"),
        (["info", "cifar10"], "data set 'cifar10' is not here yet: enas data fetch cifar10"),
        (["info", "gone.h5"], "gone.h5: no such file"),
        (["fetch", "cifar"], "unknown data set 'cifar'; expected one of fashion-mnist, cifar10, cifar100, "),
        (["fetch", "cifar10", "--from", "."], "holds neither cifar-10-python.tar.gz nor a folder cifar-10-batches-py"),
        (["import", "gone", "--name", "pets"], "gone: no such folder"),
        (["fetch", "ptb", "--from", "."], ".: lacks ptb.train.txt, ptb.valid.txt, ptb.test.txt"),
        (["import", "gone.txt", "--name", "mine"], "gone.txt: no such file or folder"),
        (["import", "Makefile", "--name", "mine"], "Makefile: a file, not a folder of pictures; if it is text, say so"),
        (
            ["import", ".", "--name", "mine", "--vocabulary", "9"],
            "--vocabulary is for text, but . is taken as pictures",
        ),
        (["import", "x.txt", "--name", "x", "--size", "9"], "--size is for pictures, but x.txt is taken as text"),
        (["import", ".", "--name", "x", "--tokens", "char"], ".: holds no .txt file, expected train.txt"),
        (["import", ".", "--name", "cifar10"], "the name 'cifar10' is taken by a published data set"),
        (["import", ".", "--name", "../pets"], "'../pets' is not a name for a data set"),
    ],
)
def test_a_users_mistake_is_one_clear_line(run: Run, arguments: list[str], message: str) -> None:
    outcome = run(*arguments)
    assert (outcome.status, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith("error: ")
    assert outcome.stderr.count("\n") == 1
    assert message in outcome.stderr


def test_a_size_that_is_none_is_refused(run: Run) -> None:
    outcome = run("import", ".", "--name", "pets", "--size", "32by32")
    assert outcome.status == 2
    assert "'32by32' is not a size: expected N or HxW in pixels" in outcome.stderr


def test_the_data_command_loads_no_torch() -> None:
    program = "import sys, datasets.cli, datasets.catalog; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
