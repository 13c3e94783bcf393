"""A run whose network is chosen anew: what came of the one before is not told, exported or judged in its place."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from searcher.arch.spec import Spec, read_spec, write_spec
from searcher.arch.widths import is_same_network, scaled
from searcher.commands.advice import retrain_advice
from searcher.running.run_folder import RunError
from tests.end_to_end.conftest import Tiny, here

pytestmark = pytest.mark.parametrize("tiny", ["micro", "recurrent"], indirect=True)


@pytest.fixture
def chosen_anew(run: Path, tiny: Tiny, tmp_path: Path) -> Path:
    """A whole run after another search in it."""
    copy = shutil.copytree(run, tmp_path / "run")
    document = {"chosen": "random 1", "metric": "accuracy", "candidates": [], "rungs": [{"epochs": 1, "scores": {}}]}
    (copy / "derivation.json").write_text(json.dumps(document))
    here("report", copy)
    here(*tiny.search(copy), "--seed", "5", "--force")
    return copy


def test_an_earlier_networks_model_is_not_exported_or_verified_as_the_runs(chosen_anew: Path) -> None:
    model = (chosen_anew / "model.onnx").read_bytes()
    for command in (["export"], ["export", "--resume"], ["verify"]):
        done = here(*command, chosen_anew, check=False)
        assert isinstance(done.exception, RunError)
        assert "--force` trains that one" in str(done.exception)
    assert (chosen_anew / "model.onnx").read_bytes() == model


def test_the_advice_after_a_choice_tells_what_is_there_of_another_network(run: Path, chosen_anew: Path) -> None:
    assert retrain_advice(run) == f"enas retrain {run}"
    assert "--force; what is retrained there, and its model" in retrain_advice(chosen_anew)


def test_reports_tell_nothing_of_an_earlier_network(run: Path, chosen_anew: Path) -> None:
    here("report", run)
    assert "onnxruntime against torch" in (run / "report.html").read_text()
    here("report", chosen_anew)
    page = (chosen_anew / "report.html").read_text()
    assert "are not of this network" in page
    for told in ("onnxruntime against torch", "best validation", ">Derivation<"):
        assert told not in page
    watched = here("watch", chosen_anew, "--once").stdout
    assert "not of the network chosen since" in watched
    assert "model.onnx" not in watched


def test_training_the_new_network_makes_the_run_whole_again(chosen_anew: Path, tiny: Tiny) -> None:
    here(*tiny.retrain(chosen_anew), "--jobs", "1", "--no-lstm", "--epochs", "1", "--force")
    assert not (chosen_anew / "retrain-lstm" / "summary.json").exists()
    here("export", chosen_anew)
    here("report", chosen_anew)
    assert "are not of this network" not in (chosen_anew / "report.html").read_text()


def test_a_network_at_another_size_is_still_the_same(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    size = {"micro": "--channels", "recurrent": "--hidden-size"}[tiny.space]
    here(*tiny.retrain(copy), "--jobs", "1", "--no-lstm", "--epochs", "1", size, "8", "--force")
    here("export", copy)


def test_specs_are_the_same_network_whatever_their_sizes_and_their_data(tiny: Tiny, run: Path) -> None:
    spec = read_spec(run / "spec.json")
    assert is_same_network(spec, spec)
    other = Spec(spec.space, spec.architecture, spec.network, spec.task, {"seed": 5})
    assert is_same_network(spec, other)  # of equal layers and sizes, wherever they come from
    if tiny.space == "micro":
        assert is_same_network(spec, scaled(spec, 2))
        assert not is_same_network(other, scaled(spec, 2))


def test_a_derivation_that_confirms_the_network_makes_nothing_outdated(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    spec = read_spec(copy / "spec.json")
    write_spec(
        copy / "spec.json", replace(spec, provenance={**spec.provenance, "derivation": {"chosen": "favoured 1"}})
    )
    here("export", copy, "--resume")


def test_another_spec_is_not_trained_in_a_run_that_has_its_own(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    spec = read_spec(copy / "spec.json")
    here(*tiny.search(tmp_path / "other"), "--seed", "5")
    assert read_spec(tmp_path / "other" / "spec.json").architecture != spec.architecture
    done = here("retrain", tmp_path / "other" / "spec.json", "--run", copy, "--force", check=False)
    assert "is for another network" in str(done.exception)
    here("export", copy, "--resume")


def test_a_model_of_earlier_weights_is_not_reported_beside_new_ones(run: Path, tiny: Tiny, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    here(*tiny.retrain(copy), "--jobs", "1", "--no-lstm", "--epochs", "1", "--force")
    here("report", copy)
    page = (copy / "report.html").read_text()
    assert "of other weights than those of this retraining" in page
    assert "onnxruntime against torch" not in page
    again = here("verify", copy, check=False)
    assert f"this model is of earlier weights; `enas export {copy}` makes one of the present" in again.stderr
    here("report", copy)
    assert "of other weights than those of this retraining" in (copy / "report.html").read_text()
