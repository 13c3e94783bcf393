"""`enas compare` on tiny runs: what it measures, what it leaves, how it goes on, what it refuses."""

from __future__ import annotations

import html
import json
import random
import shutil
import signal
import subprocess
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datasets.catalog import load_images
from datasets.store_writer import write_image_store
from exporter.judging import comparison, contenders
from exporter.latency.measure import Latencies
from foundation.machine import Machine
from foundation.statistics import Estimate, Interval
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.arch.spec import Spec, write_spec
from searcher.arch.tasks import ImageClassification
from searcher.nn.complexity import complexity_of
from tests.end_to_end.conftest import (
    CLASSES,
    command,
    environment,
    here,
    image_retraining,
    tiny_images,
    write_config,
)
from tests.exporter.teachers import fitted, write_teacher

OPTIONS = ("--seeds", "2", "--random", "2", "--epochs", "1", "--jobs", "1", "--device", "cpu")
SIZE = MicroSize(cells=3, channels=8)
TASK = {"input_shape": (8, 8, 1), "classes": CLASSES}


@pytest.fixture
def retrained(search_config: Path, store_path: Path, tmp_path: Path) -> Path:
    """What a search and a retraining leave of a run that a comparison reads."""
    run = tmp_path / "run"
    spec = Spec(
        "micro", MicroSpace(2).random(random.Random(5)), SIZE, ImageClassification(dataset=str(store_path), **TASK)
    )
    for stage, config in (("search", search_config), ("retrain", None)):
        (run / stage).mkdir(parents=True)
        if config is not None:
            shutil.copy(config, run / stage / "config.toml")
    write_spec(run / "spec.json", spec)
    write_spec(run / "retrain" / "spec.json", spec)
    write_config(run / "retrain", replace(image_retraining("micro"), batch_size=16))
    return run


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks take as long as they have multiply-adds, to the bit: a quick fit, and one that can be checked."""

    def measure(networks: list[Spec], *, batch: int, threads: int, **_: Any) -> Latencies:
        costs = [1e-6 * complexity_of(spec).total.multiply_adds + 0.1 for spec in networks]

        def exact(value: float) -> Estimate:
            return Estimate(value, Interval(value, value))

        return Latencies(
            tuple(map(exact, costs)),
            tuple(exact(cost / costs[0]) for cost in costs),
            batch,
            threads,
            Machine.inspect(),
            (),
        )

    monkeypatch.setattr(contenders, "measure", measure)
    monkeypatch.setattr("exporter.latency.scaling.measure", measure)


def document(run: Path) -> dict[str, Any]:
    return json.loads((run / "comparison.json").read_text())


def test_a_comparison_is_between_networks_that_are_as_fast(retrained: Path) -> None:
    done = here("compare", retrained, *OPTIONS)
    found = document(retrained)
    kinds = [row["kind"] for row in found["networks"]]
    assert kinds.count("found") == 1
    assert kinds.count("random") == 2
    assert kinds.count("reference") + sum(one["kind"] == "reference" for one in found["left_out"]) >= 4
    for row in found["networks"]:
        assert 0.97 <= row["latency_ratio"]["value"] <= (1.1 if row["kind"] == "reference" else 1.03)
        assert len(row["trainings"]) == 2
        assert row["test_accuracy"]["interval"]["low"] <= row["test_accuracy"]["value"]
        # Half of it is that of one seed, half of the other's.
        assert row["test_accuracy"]["value"] == pytest.approx(np.mean([x["test_accuracy"] for x in row["trainings"]]))
    assert (found["test_count"], found["seeds"]) == (41, 2)
    best = {one["less"]: one for one in found["differences"]}
    first = found["networks"][0]["test_accuracy"]["value"]
    rivals = [row["test_accuracy"]["value"] for row in found["networks"] if row["kind"] == "random"]
    assert best["mean random"]["value"] == pytest.approx(first - np.mean(rivals))
    assert "found - mean random" in done.stdout
    assert "the test split has 41 images, each 2.4 points: too few" in done.stdout
    references = [row for row in found["networks"] if row["kind"] == "reference"]
    less = [one for one in found["differences"] if "reference" in one["less"]]
    assert [one["less"] for one in less] == ["best reference"] + ["reference"] * (len(references) - 1)
    for one in less:
        (rival,) = [row for row in references if row["name"] == one["name"]]
        assert one["value"] == pytest.approx(first - rival["test_accuracy"]["value"])
        assert f"({one['name']}, " in done.stdout
    here("report", retrained)
    page = (retrained / "report.html").read_text()
    assert "Comparison" in page
    assert "Test accuracy against latency" in page
    found["spec_sha256"] = "0" * 64  # of another network
    (retrained / "comparison.json").write_text(json.dumps(found))
    here("report", retrained)
    assert "Test accuracy against latency" not in (retrained / "report.html").read_text()


def test_a_comparison_goes_on_with_what_is_trained_and_takes_more_seeds(retrained: Path) -> None:
    options = ("--random", "3", "--references", str(retrained), "--epochs", "1", "--jobs", "1", "--device", "cpu")
    here("compare", retrained, "--seeds", "1", *options)
    kept = (retrained / "comparison/random-1/seed-0/summary.json").stat().st_mtime_ns
    config = tomllib.loads((retrained / "comparison/random-1/seed-0/config.toml").read_text())
    assert (config["num_epochs"], config["min_steps"]) == (1, 0)  # passes over train, as the user says
    refused = str(here("compare", retrained, "--seeds", "2", *options, check=False).exception)
    assert "already holds a finished run" in refused
    here("compare", retrained, "--seeds", "2", *options, "--resume")
    whole = document(retrained)
    assert (retrained / "comparison/random-1/seed-0/summary.json").stat().st_mtime_ns == kept
    (retrained / "comparison/found/seed-1/summary.json").unlink()
    here("compare", retrained, "--seeds", "2", *options, "--resume")
    assert document(retrained) == whole
    for changes, message in ((["--seed", "5"], "seed was 0, now 5"), (["--epochs", "2"], "num_epochs was 1, now 2")):
        refused = str(here("compare", retrained, *options, *changes, "--resume", check=False).exception)
        assert message in refused
        assert document(retrained) == whole


def test_pictures_are_mirrored_no_more_than_in_the_search(retrained: Path, store_path: Path, tmp_path: Path) -> None:
    config = retrained / "search" / "config.toml"
    config.write_text(config.read_text().replace("flip = true", "flip = false"))
    for stage in ("search", "retrain"):
        path, digest = retrained / stage / "config.toml", load_images(str(store_path)).digest
        path.write_text(path.read_text().replace('dataset_sha256 = ""', f'dataset_sha256 = "{digest}"'))
    preset = ("--preset", "quick", "--set", "min_steps=0")
    options = ("--random", "0", "--references", str(retrained), "--seeds", "1", "--epochs", "1", "--jobs", "1")
    done = here("compare", retrained, *options, *preset)
    training = retrained / "comparison/found/seed-0/config.toml"
    assert not tomllib.loads(training.read_text())["training"]["augmentation"]["flip"]
    assert "pictures are not mirrored, as they were not in the search; --flip mirrors them" in done.stderr
    # As the retraining did, whose recipe it is else, by whatever name its data go; and as the user says.
    same = shutil.copy(store_path, tmp_path / "same.h5")
    for recipe in ((), ("--dataset", same), (*preset, "--flip")):
        here("compare", retrained, *options, *recipe, "--force")
        assert tomllib.loads(training.read_text())["training"]["augmentation"]["flip"]


def test_what_was_stopped_while_it_began_anew_goes_on(retrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--random", "1", "--references", str(retrained), "--seeds", "1", "--epochs", "1", "--jobs", "1")
    here("compare", retrained, *options)
    before = document(retrained)

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(comparison, "choose", stop)
        assert here("compare", retrained, *options, "--seed", "3", "--force", check=False).exit_code != 0
    here("compare", retrained, *options, "--seed", "3", "--resume")
    # Another network is drawn, and all are trained anew.
    assert document(retrained)["networks"][1]["parameters"] != before["networks"][1]["parameters"]


def test_a_teacher_that_has_changed_teaches_a_new_comparison(retrained: Path, tmp_path: Path, store_path: Path) -> None:
    teacher = tmp_path / "teacher.onnx"
    config = image_retraining("micro")
    config = replace(config, teacher=replace(config.teacher, models=(str(teacher),), sha256=("0" * 64,)))
    write_config(retrained / "retrain", config)
    store, names = load_images(str(store_path)), {"enas.classes": json.dumps(CLASSES)}
    options = ("--random", "0", "--references", str(retrained), "--seeds", "1", "--epochs", "1", "--jobs", "1")
    write_teacher(teacher, fitted(store), metadata=names)
    here("compare", retrained, *options)
    write_teacher(teacher, fitted(store, seed=2), metadata=names)
    refused = here("compare", retrained, *options, "--seeds", "2", "--resume", check=False)
    assert "no longer the model that the run was begun with; put that one back" in str(refused.exception)
    here("compare", retrained, *options, "--force")
    teacher.unlink()
    here("compare", retrained, *options, "--resume")  # nothing is left to learn


def test_a_comparison_does_not_go_on_with_other_data_or_fewer_seeds(retrained: Path, tmp_path: Path) -> None:
    def write(seed: int) -> None:
        splits = {"train": tiny_images(9, seed), "valid": tiny_images(9, 8), "test": tiny_images(41, 2)}
        path.unlink(missing_ok=True)
        write_image_store(path, name="own", splits=splits, classes=CLASSES, source="made up", licence="CC0-1.0")

    path = tmp_path / "own.h5"
    write(seed=1)
    options = ("--random", "0", "--references", str(retrained), "--epochs", "1", "--jobs", "1", "--dataset", path)
    here("compare", retrained, *options, "--seeds", "2")
    whole = document(retrained)
    refused = str(here("compare", retrained, *options, "--seeds", "1", "--resume", check=False).exception)
    assert "has 2 seeds of each network, and --seeds is 1: go on with --seeds 2 or more" in refused
    write(seed=5)
    refused = str(here("compare", retrained, *options, "--seeds", "2", "--resume", check=False).exception)
    assert f"the data set {path} is no longer the one of the comparison in {retrained / 'comparison'}" in refused
    assert document(retrained) == whole


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        *((name, f"; `enas retrain {name} --run DIR` makes one of this spec") for name in ("resnet-20", "spec.json")),
        ("gone", ""),
    ],
)
def test_what_is_no_run_is_refused_and_nothing_is_written(
    retrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    shutil.copy(retrained / "spec.json", folder)
    monkeypatch.chdir(folder)
    done = here("compare", name, check=False)
    assert str(done.exception) == f"{name}: not the directory of a run{advice}"
    assert isinstance(done.exception, ValueError)
    assert [path.name for path in folder.iterdir()] == ["spec.json"]


def test_another_test_split_is_scored_with_the_normalisation_of_what_was_trained_on(
    retrained: Path, tmp_path: Path
) -> None:
    splits = {"train": tiny_images(9, 7), "valid": tiny_images(9, 8), "test": tiny_images(41, 2)}
    splits["train"][0][:] //= 8  # darker: another mean, but the same test images
    path = tmp_path / "official.h5"
    write_image_store(path, name="official", splits=splits, classes=CLASSES, source="made up", licence="CC0-1.0")
    options = ("--random", "0", "--references", str(retrained), "--seeds", "1", "--epochs", "1", "--jobs", "1")
    here("compare", retrained, *options)
    own = document(retrained)
    here("compare", retrained, *options, "--test-dataset", path, "--force")
    other = document(retrained)
    assert other["test_dataset"] == "official"
    assert [row["trainings"] for row in other["networks"]] == [row["trainings"] for row in own["networks"]]


def test_another_data_set_has_all_networks_made_for_its_pictures_and_classes(retrained: Path, tmp_path: Path) -> None:
    classes = (*CLASSES, "ring")
    splits = {}
    for seed, (split, count) in enumerate({"train": 24, "valid": 12, "test": 41}.items()):
        labels = np.arange(count, dtype=np.int64) % len(classes)
        splits[split] = (tiny_images(count, seed)[0].repeat(2, axis=1).repeat(2, axis=2), labels)
    path = tmp_path / "larger.h5"
    write_image_store(path, name="larger", splits=splits, classes=classes, source="made up", licence="CC0-1.0")
    options = ("--random", "1", "--references", str(retrained), "--seeds", "1", "--epochs", "1", "--jobs", "1")
    here("compare", retrained, *options, "--dataset", path)
    for row in document(retrained)["networks"]:
        assert row["spec"]["task"]["input_shape"] == [16, 16, 1]
        assert row["spec"]["task"]["classes"] == list(classes)
        assert row["spec"]["network"]["stem_stride"] == 2
    here("report", retrained)
    assert "Test accuracy against latency" in (retrained / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--dataset", "gone.h5"), "gone.h5: no such file"),
        (("--references", "resnet-21"), "did you mean 'resnet-20'?"),
        (("--references", "enas-lm-published"), "enas-lm-published: recurrent networks are for language-modelling"),
        (("--test-dataset", "fashion-mnist-mini"), "has images of 28×28×1, but shapes has images of 8×8×1"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    retrained: Path, options: tuple[str, ...], message: str
) -> None:
    done = here("compare", retrained, *OPTIONS, *options, check=False)
    assert message in str(done.exception)
    assert isinstance(done.exception, ValueError)
    assert not (retrained / "comparison").exists()


def test_a_teacher_that_is_gone_is_said_before_anything_is_measured(retrained: Path) -> None:
    config = image_retraining("micro")
    teacher = replace(config.teacher, models=("teacher.onnx",), sha256=("0" * 64,))
    write_config(retrained / "retrain", replace(config, teacher=teacher))
    done = here("compare", retrained, *OPTIONS, check=False)
    assert "teacher.onnx" in str(done.exception)
    assert not (retrained / "comparison").exists()


def test_a_run_that_is_not_retrained_is_compared_at_its_own_size(retrained: Path) -> None:
    shutil.rmtree(retrained / "retrain")
    options = ("--random", "0", "--references", str(retrained), "--seeds", "1", "--epochs", "1", "--jobs", "1")
    done = here("compare", retrained, *options)
    assert "nothing is retrained there" in done.stderr
    here("report", retrained)
    page = html.unescape((retrained / "report.html").read_text())
    assert "with 1 seed each" in page
    assert "95 %, over images." in page
    for caveat in ("he test split has 41 images, each 2.4 points: too few", "ne seed tells nothing of what another"):
        assert caveat in done.stdout
        assert caveat in page
    assert document(retrained)["networks"][1]["name"] == retrained.name


def test_references_in_files_are_named_after_them_and_trained_within_the_comparison(
    retrained: Path, tmp_path: Path
) -> None:
    before = sorted(retrained.iterdir())
    files = [
        tmp_path / "a" / "hand drawn.json",
        tmp_path / "b" / "hand drawn.json",
        tmp_path / "random-1" / "spec.json",
    ]
    for file in files:
        file.parent.mkdir()
        shutil.copy(retrained / "spec.json", file)
    references = [option for file in (*files, retrained) for option in ("--references", str(file))]
    here("compare", retrained, "--random", "0", *references, "--seeds", "1", "--epochs", "1", "--jobs", "1")
    names = ["found", "hand-drawn", "hand-drawn-2", "random-1-2", retrained.name]
    whole = document(retrained)
    assert [row["name"] for row in whole["networks"]] == names
    assert sorted(path.name for path in (retrained / "comparison").iterdir() if path.is_dir()) == sorted(names)
    made = {retrained / name for name in ("comparison", "comparison.json")}
    assert sorted(retrained.iterdir()) == sorted({*before, *made})
    files[0].unlink()  # what takes part is written down
    options = ("--random", "0", "--seeds", "1", "--epochs", "1", "--jobs", "1")
    here("compare", retrained, *options, *references, "--resume")
    assert document(retrained) == whole
    refused = here("compare", retrained, *options, *references[2:], "--resume", check=False)
    assert "made with another configuration (references was" in str(refused.exception)


def with_a_deep_reference(run: Path, *, cells: int) -> str:
    """What a comparison tells with a network in it that takes longer than the found one however narrow it is."""
    deep = json.loads((run / "spec.json").read_text())
    deep["network"]["cells"] = cells
    path = run.parent / "deep.json"
    path.write_text(json.dumps(deep))
    options = ("--random", "0", "--references", str(path), "--seeds", "1", "--epochs", "1", "--jobs", "1")
    return here("compare", run, *options).stdout


def test_a_reference_that_no_width_makes_as_fast_may_take_a_little_longer(retrained: Path) -> None:
    with_a_deep_reference(retrained, cells=11)
    _, deep = document(retrained)["networks"]
    assert deep["kind"] == "reference"
    assert 1.03 < deep["latency_ratio"]["value"] <= 1.1


def test_a_reference_that_every_width_makes_much_slower_is_left_out_and_said_so(retrained: Path) -> None:
    told = with_a_deep_reference(retrained, cells=40)
    assert "no width takes between 0.97 and 1.10 of the found network's time" in told
    assert [row["kind"] for row in document(retrained)["networks"]] == ["found"]


@pytest.mark.slow
def test_a_comparison_that_is_killed_goes_on_to_the_same_result(retrained: Path, tmp_path: Path) -> None:
    options = ("--random", "0", "--references", "resnet-20", "--seeds", "2", "--epochs", "4", "--jobs", "2")
    arguments = ("compare", str(retrained), *options)
    process = subprocess.Popen(command(*arguments), env=environment(), stderr=subprocess.DEVNULL)
    while not list((retrained / "comparison").glob("*/seed-*/checkpoint.pt")):
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run(command(*arguments, "--resume"), env=environment(), check=True)
    whole = shutil.copytree(retrained, tmp_path / "whole")
    for folder in (whole / "comparison").glob("*/seed-*"):
        shutil.rmtree(folder)
    subprocess.run(command("compare", str(whole), *options, "--resume"), env=environment(), check=True)
    assert document(whole) == document(retrained)
