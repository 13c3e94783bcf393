"""What the options of a retraining mean together."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datasets.catalog import load_images
from datasets.store import StoreError
from exporter.retraining.request import RetrainOptions, RetrainRequest, retrain_request
from foundation.document import ConfigError, DocumentError
from searcher.arch.catalog import find_spec
from searcher.arch.retarget import retarget
from searcher.arch.spec import write_spec
from searcher.arch.widths import is_same_network, widths
from searcher.running.run_folder import Opening, RunError, RunFolder
from searcher.training.task_kinds import task_of
from tests.end_to_end import conftest as tiny

store_path = tiny.store_path
text_path = tiny.text_path


def request_of(source: str, run: Path, said: list[str] | None = None, **options: Any) -> RetrainRequest:
    asked = RetrainOptions(source=Path(source), run_path=run, **options)
    return retrain_request(asked, say=([] if said is None else said).append)


def test_a_spec_is_retargeted_and_resized(store_path: Path, tmp_path: Path) -> None:
    said: list[str] = []
    options = {"preset": "quick", "channels": 8, "cells": 5, "epochs": 3, "seed": 4, "memory_budget_mb": 9}
    request = request_of("enas-micro-published", tmp_path / "run", said, dataset=str(store_path), **options)
    network, config = request.spec.network, request.config
    assert (network.channels, network.cells, request.spec.task.dataset) == (8, 5, str(store_path))
    assert (config.num_epochs, config.seed, config.memory_budget_mb, config.threads) == (3, 4, 9, 0)
    assert request.folders == {"spec": tmp_path / "run" / "retrain"}
    assert said[0].startswith("a network for images of 8×8×1 in 3 classes (bar, dot, blank); the spec is for ")


def test_a_specs_own_data_set_that_has_gone_is_not_told_as_a_mistyped_name(tmp_path: Path) -> None:
    spec = find_spec(Path("resnet-20"))
    write_spec(tmp_path / "spec.json", replace(spec, task=replace(spec.task, dataset="pets")))
    with pytest.raises(
        StoreError, match=r"^the spec is for pets, which is not in .*; import it again, or set ENAS_DATA"
    ):
        request_of(str(tmp_path), tmp_path)


def test_a_seed_below_zero_is_refused(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"^--set: seed is -1; it must not be negative$"):
        request_of("resnet-20", tmp_path, dataset=str(store_path), preset="quick", assignments=("seed=-1",))


def test_stages_are_widened_in_proportion(store_path: Path, tmp_path: Path) -> None:
    request = request_of("resnet-20", tmp_path, dataset=str(store_path), preset="quick", channels=32)
    assert widths(request.spec) == [32, 32, 64, 128]


def test_a_network_that_no_memory_holds_is_refused(store_path: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"has 64,[\d,]+ parameters; .* take 481 GiB, more than the .* GiB that there are; train a narrower one",
    ):
        request_of("narrow-small", tmp_path / "run", dataset=str(store_path), preset="quick", channels=8_000)
    with pytest.raises(ConfigError, match=r"^--channels is 60,000; above 10,922 this spec is too wide$"):
        request_of("narrow-small", tmp_path / "run", dataset=str(store_path), preset="quick", channels=60_000)
    assert not (tmp_path / "run").exists()


def test_beside_a_language_model_an_lstm_is_trained_with_a_thread_each(text_path: Path, tmp_path: Path) -> None:
    options = {"dataset": str(text_path), "preset": "quick"}
    request = request_of("enas-recurrent-published", tmp_path, **options)
    assert request.folders == {"spec": tmp_path / "retrain", "lstm": tmp_path / "retrain-lstm"}
    assert {model: config.model for model, config in request.configs.items()} == {"spec": "spec", "lstm": "lstm"}
    assert request.config.threads == 1
    alone = request_of("enas-recurrent-published", tmp_path, lstm=False, **options)
    assert (list(alone.folders), alone.config.threads) == (["spec"], 0)


def test_a_setting_beats_what_the_search_did(store_path: Path, tmp_path: Path) -> None:
    options = {"dataset": str(store_path), "preset": "quick"}
    assert request_of("resnet-20", tmp_path, assignments=("seed=7",), **options).config.seed == 7
    assert request_of("resnet-20", tmp_path, assignments=("seed=7",), seed=8, **options).config.seed == 8
    balanced = request_of("resnet-20", tmp_path, class_weights="balanced", **options)
    assert balanced.config.training.class_weights == "balanced"


def test_epochs_are_passes_over_train_unless_the_user_sets_steps_too(store_path: Path, tmp_path: Path) -> None:
    def asked(**options: Any) -> tuple[int, int]:
        config = request_of("resnet-20", tmp_path, dataset=str(store_path), preset="quick", **options).config
        return config.num_epochs, config.min_steps

    assert asked() == (18, 1_200)
    assert asked(epochs=2) == (2, 0)
    assert asked(epochs=2, assignments=("min_steps=300",)) == (2, 300)


def test_pictures_are_mirrored_no_more_than_in_the_search_of_the_source(store_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "searched"
    (source / "search").mkdir(parents=True)
    spec = retarget(find_spec(Path("resnet-20")), task_of(load_images(str(store_path)), dataset=str(store_path)))
    write_spec(source / "spec.json", spec)
    (source / "search" / "summary.json").write_text("{}")
    (source / "search" / "config.toml").write_text(
        f'dataset = "{store_path}"\n[training.augmentation]\nflip = false\n', encoding="utf-8"
    )
    elsewhere = request_of(str(source), tmp_path / "elsewhere", preset="quick")
    assert not elsewhere.config.training.augmentation.flip
    copy = tmp_path / "copy.h5"
    shutil.copy(store_path, copy)

    def is_mirrored(*, searched_on: str) -> bool:
        (source / "search" / "config.toml").write_text(
            f'dataset = "{store_path}"\ndataset_sha256 = "{searched_on}"\n[training.augmentation]\nflip = false\n'
        )
        request = request_of(str(source), source, preset="quick", dataset=str(copy))
        return bool(request.config.training.augmentation.flip)

    assert not is_mirrored(searched_on=load_images(str(store_path)).digest)
    # A search says nothing of other pictures.
    assert is_mirrored(searched_on="0" * 64)
    assert is_mirrored(searched_on="")


def test_teachers_of_the_command_line_replace_the_files(store_path: Path, tmp_path: Path) -> None:
    said = ('teacher.models=["other.onnx"]',)
    options = {"dataset": str(store_path), "preset": "quick", "teachers": (Path("a.onnx"), Path("b.onnx"))}
    request = request_of("resnet-20", tmp_path, assignments=said, **options)
    assert request.config.teacher.models == ("a.onnx", "b.onnx")


def test_what_is_gone_on_with_keeps_the_options_it_was_begun_with(store_path: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    spec = retarget(find_spec(Path("resnet-20")), task_of(load_images(str(store_path)), dataset=str(store_path)))
    write_spec(run / "spec.json", spec)
    first = retrain_request(RetrainOptions(source=run, preset="quick", assignments=("seed=7",)), say=print)
    RunFolder.open(run / "retrain", first.config).close()

    def again(source: Path = run, **options: Any) -> RetrainRequest:
        return retrain_request(RetrainOptions(source=source, **options).going_on, say=print)

    assert again() == first
    assert again(preset="quick", seed=8).config == replace(first.config, seed=8)
    assert again(channels=8).config == replace(first.config, spec_sha256=again(channels=8).config.spec_sha256)
    assert again(preset="deploy").config.preset == "deploy"
    search = run / "search"
    search.mkdir()
    (search / "config.toml").touch()
    with pytest.raises(RunError, match="the search is not finished"):
        again()


def test_what_was_begun_at_another_size_on_other_data_is_gone_on_with_by_the_run_alone(
    store_path: Path, tmp_path: Path
) -> None:
    run, other = tmp_path / "run", tmp_path / "other.h5"
    run.mkdir()
    shutil.copy(store_path, other)
    spec = retarget(find_spec(Path("resnet-20")), task_of(load_images(str(store_path)), dataset=str(store_path)))
    write_spec(run / "spec.json", spec)
    sizes: dict[str, Any] = {"channels": 32, "dataset": str(other)}
    first = retrain_request(RetrainOptions(source=run, preset="quick", **sizes), say=print)
    RunFolder.open(run / "retrain", first.config).close()
    write_spec(run / "retrain" / "spec.json", first.spec)
    for said in ({}, {"preset": "quick"}, sizes):
        again = retrain_request(RetrainOptions(source=run, **said).going_on, say=print)
        assert again == first
        again.check_size(again="")
    smaller = retrain_request(RetrainOptions(source=run, channels=16).going_on, say=print)
    advice = (
        rf"go on with `enas retrain {run} --resume`, without .* --channels, .* or --dataset, or start anew with `again"
    )
    with pytest.raises(RunError, match=advice):
        smaller.check_size(again="again")
    write_spec(run / "spec.json", find_spec(Path("narrow-small")))  # as a later search may choose
    assert not is_same_network(
        retrain_request(RetrainOptions(source=run, dataset=str(other)).going_on, say=print).spec, spec
    )


def test_a_network_that_is_chosen_again_is_not_told_as_one_of_another_size(store_path: Path, tmp_path: Path) -> None:
    spec = retarget(find_spec(Path("resnet-20")), task_of(load_images(str(store_path)), dataset=str(store_path)))
    first = replace(spec, provenance={"seed": 1})
    write_spec(tmp_path / "spec.json", first)
    config = retrain_request(RetrainOptions(source=tmp_path, preset="quick"), say=print).config
    RunFolder.open(tmp_path / "retrain", config).close()
    write_spec(tmp_path / "retrain" / "spec.json", first)
    write_spec(tmp_path / "spec.json", replace(spec, provenance={"seed": 1, "derivation": {"chosen": "favoured 1"}}))
    told = (
        f"{tmp_path}/retrain is of this very network, chosen before as well: go on with `enas retrain {tmp_path} "
        "--resume`, or start anew with `again --force`"
    )
    with pytest.raises(RunError, match=f"^{re.escape(told)}$"):
        retrain_request(RetrainOptions(source=tmp_path, preset="quick"), say=print).check_size(again="again")
    gone_on = retrain_request(RetrainOptions(source=tmp_path).going_on, say=print)
    gone_on.check_size(again="again")
    assert gone_on.config == config


def test_an_lstm_is_gone_on_with_where_one_was_begun(text_path: Path, tmp_path: Path) -> None:
    options = {"dataset": str(text_path), "preset": "quick", "lstm": False}
    first = request_of("enas-recurrent-published", tmp_path, **options)
    RunFolder.open(tmp_path / "retrain", first.config).close()
    asked = RetrainOptions(source=Path("enas-recurrent-published"), run_path=tmp_path, dataset=str(text_path))
    assert retrain_request(asked.going_on, say=print) == first
    earlier = replace(first.config, model="lstm", num_epochs=first.config.num_epochs + 1)
    RunFolder.open(tmp_path / "retrain-lstm", earlier).close()
    assert not asked.going_on.lstm
    RunFolder.open(tmp_path / "retrain-lstm", replace(first.config, model="lstm"), Opening(force=True)).close()
    assert asked.going_on.lstm
    (tmp_path / "retrain-lstm" / "config.toml").write_text("damaged")
    assert retrain_request(replace(asked, lstm=False).going_on, say=print) == first  # which needs none


def test_the_configuration_of_a_search_is_not_that_of_a_retraining(store_path: Path, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[search_space]\n")
    with pytest.raises(ConfigError, match="is a search's; a retraining takes that of another"):
        request_of("resnet-20", tmp_path / "run", dataset=str(store_path), config_file=config)


def test_teachers_are_those_that_the_files_hold_when_a_run_begins(store_path: Path, tmp_path: Path) -> None:
    said = ('teacher.models=["other.onnx"]', f'teacher.sha256=["{"0" * 64}"]')  # as the config.toml of another run says
    request = request_of("resnet-20", tmp_path, assignments=said, dataset=str(store_path), preset="quick")
    assert (request.config.teacher.models, request.config.teacher.sha256) == (("other.onnx",), ())


@pytest.mark.parametrize("source", ["run", "spec.json"])
def test_a_run_that_is_for_another_network_is_refused(source: str, store_path: Path, tmp_path: Path) -> None:
    spec, other = find_spec(Path("resnet-20")), find_spec(Path("narrow-small"))
    for name, one in (("run", spec), ("other", other)):
        (tmp_path / name).mkdir()
        write_spec(tmp_path / name / "spec.json", one)
    path = tmp_path / "run" if source == "run" else tmp_path / "run" / "spec.json"
    with pytest.raises(RunError, match="other is for another network, that of its "):
        request_of(str(path), tmp_path / "other", dataset=str(store_path), preset="quick")


def test_what_does_not_fit_is_refused(text_path: Path, tmp_path: Path) -> None:
    options = {"dataset": str(text_path), "preset": "quick"}
    with pytest.raises(ConfigError, match="--class-weights is for images"):
        request_of("enas-recurrent-published", tmp_path, class_weights="balanced", **options)
    with pytest.raises(RunError, match="say where to train this spec"):
        retrain_request(RetrainOptions(source=Path("resnet-20")), say=print)
