"""Retraining: which weights are kept, when averaging starts, and what a diverged one leaves."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datasets.catalog import load_images, load_text
from datasets.store import StoreError, TextStore
from datasets.store_writer import write_image_store, write_text_store
from exporter.delivery.export import load_retrained
from exporter.retraining.config import RetrainConfig
from exporter.retraining.retrain import check_task, retrain
from exporter.retraining.retraining import Retraining
from exporter.retraining.text import result_text
from foundation.document import ConfigError, read_json
from searcher.arch.spaces.stages import StagesSize
from searcher.nn.graphs import Graphs
from searcher.nn.tapes import EagerTape
from searcher.report.page import write_report
from searcher.running.interrupt import Interrupt
from searcher.running.metrics import read_metrics
from searcher.running.run_folder import RunFolder
from searcher.training.image_learner import ImageLearner, ImageTraining
from searcher.training.learner import Score
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.task_kinds import task_of
from searcher.training.text_learner import TextLearner, TextTraining
from searcher.training.weights_trainer import DivergedError, WeightsTrainer
from tests.searcher.conftest import VOCABULARY_SIZE, make_spec, make_text_spec, random_recurrent, random_stages

SPEC = make_text_spec(random_recurrent(0))
CONFIG = RetrainConfig(
    preset="tiny",
    num_epochs=8,
    batch_size=4,
    sgd=SgdConfig(learning_rate=1.0, momentum=0.0, clip_norm=0.25),
    training=TextTraining(window=5),
)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TextStore:
    path = tmp_path_factory.mktemp("data") / "letters.h5"
    rng = np.random.default_rng(0)
    splits = {split: rng.integers(0, VOCABULARY_SIZE, 60) for split in ("train", "valid", "test")}
    vocabulary = ("\n", *"abcdefghij")
    write_text_store(path, name="letters", splits=splits, vocabulary=vocabulary, source="made up", licence="CC0-1.0")
    return load_text(str(path))


class Judge:
    """Gives valid's scores as they were written down beforehand."""

    def __init__(self, run: Retraining, scores: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
        self._scores = iter(scores)
        monkeypatch.setattr(run.learner, "score", self)

    def __call__(self, network: nn.Module, split: str) -> Score:
        assert split == "valid"
        score = next(self._scores)
        return Score(score, 59, math.log(score))


def weights_of(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def test_the_result_has_balanced_accuracy_where_the_summary_has() -> None:
    summary = {"test_accuracy": 0.9, "test_count": 1000, "best_epoch": 3, "valid_accuracy": 0.91, "parameters": 4321}
    whole = "test accuracy 90.00% of 1,000 images{} (epoch 3, valid 91.00%; 4,321 parameters)"
    assert result_text(summary) == whole.format("")
    balanced = {**summary, "test_balanced_accuracy": 0.5}
    assert result_text(balanced) == whole.format(", balanced accuracy 50.00% (mean recall)")


def test_the_result_says_so_where_balanced_accuracy_chose() -> None:
    summary = {"test_accuracy": 0.9, "test_count": 1000, "best_epoch": 3, "valid_accuracy": 0.91, "parameters": 4321}
    assert result_text({**summary, "valid_balanced_accuracy": 0.8}) == (
        "test accuracy 90.00% of 1,000 images (epoch 3, chosen by valid balanced accuracy, 80.00%, valid 91.00%; "
        "4,321 parameters)"
    )


def test_where_classes_are_balanced_a_fair_epoch_is_kept_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = np.array([0] * 9 + [1] * 2 + [2])
    chunk = (np.zeros((12, 12, 12, 1), np.uint8), labels)
    splits = dict.fromkeys(("train", "valid", "test"), chunk)
    path = tmp_path / "unequal.h5"
    write_image_store(path, name="unequal", splits=splits, classes=("a", "b", "c"), source="made up", licence="CC0-1.0")
    store = load_images(str(path))
    spec = replace(make_spec(random_stages(0), StagesSize()), task=task_of(store, dataset=str(path)))
    config = replace(CONFIG, num_epochs=2, training=ImageTraining(class_weights="balanced"))
    scores = iter([Score(0.75, 12, 0.7, 1 / 3, 0.0), Score(0.5, 12, 0.8, 0.6, 0.1), Score(0.5, 12, 0.8, 0.5)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageLearner, "score", lambda *_: next(scores))
        folder = RunFolder.open(tmp_path / "retrain", config)
        summary = retrain(spec, config, store=store, folder=folder, device=CPU, interrupt=Interrupt())
    assert (summary["best_epoch"], summary["valid_accuracy"], summary["valid_balanced_accuracy"]) == (2, 0.5, 0.6)
    assert "valid accuracy 50.00%, valid balanced accuracy 60.00%" in capsys.readouterr().err
    records = read_metrics(tmp_path / "retrain/metrics.jsonl")
    assert [one["valid_balanced_accuracy"] for one in records] == pytest.approx([1 / 3, 0.6], abs=1e-6)


def test_the_least_perplexity_is_kept(store: TextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Retraining(SPEC, CONFIG, store=store, device=CPU)
    Judge(run, [9.0, 8.0, 8.5, float("nan"), 7.0], monkeypatch)
    kept = []
    for _ in range(5):
        list(run.train_epoch())
        kept.append(run.end_epoch()[1] is run.network)
    assert kept == [True, True, False, False, True]
    assert run.kept is not None
    assert (run.kept.value, run.kept_epoch, run.kept_form) == (7.0, 5, "weights")


@pytest.mark.parametrize(
    ("patience", "scores", "starts_after"),
    [
        (1, [9.0, 8.0, 8.5], 3),
        (2, [9.0, 8.0, 8.5, 7.9, 8.0, 8.0], 6),
        (2, [9.0, 9.0, 9.0], 3),
        (0, [9.0] * 6, None),
    ],
)
def test_averaging_starts_when_valid_has_not_got_better_for_that_long(
    store: TextStore, monkeypatch: pytest.MonkeyPatch, patience: int, scores: list[float], starts_after: int | None
) -> None:
    run = Retraining(SPEC, replace(CONFIG, average_patience=patience), store=store, device=CPU)
    Judge(run, scores, monkeypatch)
    started = None
    for _ in scores:
        list(run.train_epoch())
        run.end_epoch()
        if run.average is not None:
            started = run.epoch
            break
    assert started == starts_after


def test_what_is_kept_is_the_mean_of_the_weights_after_every_step_since(
    store: TextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Retraining(SPEC, replace(CONFIG, average_patience=1), store=store, device=CPU)
    # From the third epoch on, the average's and the weights' own.
    Judge(run, [8.0, 8.0, *(7.0, 7.5), *(7.0, 7.5), *(6.0, 6.0)], monkeypatch)
    for _ in range(2):
        assert list(run.candidates) == ["weights"]
        list(run.train_epoch())
        run.end_epoch()
    seen = []
    # No better valid restarts it.
    for _ in range(3):
        for _ in run.train_epoch():
            seen.append(weights_of(run.network))
        _, kept = run.end_epoch()
    assert len(seen) == 9
    assert kept is not None
    torch.testing.assert_close(weights_of(kept), torch.stack(seen).mean(0))
    assert not torch.equal(weights_of(kept), weights_of(run.network))


def test_the_better_of_the_weights_and_their_average_is_kept_and_named(
    store: TextStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Retraining(SPEC, replace(CONFIG, average_share=0.5), store=store, device=CPU)
    Judge(run, [*(9.0, 8.0), *(7.0, 7.0), *(6.0, math.nan), *(8.0, 5.0)], monkeypatch)
    named = []
    for _ in range(4):
        list(run.train_epoch())
        record, kept = run.end_epoch()
        named.append(record["kept"])
        assert kept is run.candidates[record["kept"]]
        assert run.kept_form == record["kept"]
    assert named == ["weights", "average", "average", "weights"]
    assert record["valid_perplexity"] == record["valid_perplexity_weights"] == 5.0
    assert record["valid_perplexity_average"] == 8.0


def test_a_network_that_is_replayed_learns_what_it_learns_otherwise(store: TextStore) -> None:
    config = replace(CONFIG, average_patience=1)
    plain = Retraining(SPEC, config, store=store, device=CPU)
    replayed = Retraining(SPEC, config, store=store, device=CPU, graphs=Graphs(EagerTape))
    records = []
    for run in (plain, replayed):
        for _ in range(4):
            list(run.train_epoch())
            records.append(run.end_epoch()[0])
    assert records[:4] == records[4:]
    for name, network in plain.candidates.items():
        assert torch.equal(weights_of(network), weights_of(replayed.candidates[name]))
    replayed.load(plain.state())  # names are the network's own


def test_a_checkpoint_with_earlier_names_is_read(store: TextStore) -> None:
    first, second = (Retraining(SPEC, CONFIG, store=store, device=CPU) for _ in range(2))
    first.best, first.best_epoch = Score(8.0, 59, 2.0), 3
    first.kept, first.kept_epoch, first.kept_form = Score(8.1, 59, 2.1), 4, "weights"
    state = first.state()
    assert (state["best"], state["best_epoch"], state["kept_epoch"], state["kept_form"]) == (
        (8.0, 59, 2.0, None, None),
        3,
        4,
        "weights",
    )
    earlier = {"highest": "best", "highest_epoch": "best_epoch"}
    earlier |= {"best": "kept", "best_epoch": "kept_epoch", "best_kept": "kept_form"}
    others = {name: value for name, value in state.items() if name not in earlier.values()}
    for one in (state, {**others, **{name: state[now] for name, now in earlier.items()}}):
        second.load(one)
        assert (second.best, second.best_epoch) == (first.best, 3)
        assert (second.kept, second.kept_epoch, second.kept_form) == (first.kept, 4, "weights")


def test_an_average_goes_on_from_a_checkpoint(store: TextStore, monkeypatch: pytest.MonkeyPatch) -> None:
    config = replace(CONFIG, average_patience=1)
    first, second = (Retraining(SPEC, config, store=store, device=CPU) for _ in range(2))
    for run in (first, second):
        Judge(run, [8.0, 8.0], monkeypatch)
    for _ in range(2):
        list(first.train_epoch())
        first.end_epoch()
    steps = first.train_epoch()
    next(steps)
    second.load(first.state())
    assert second.average is not None
    list(steps)
    list(second.train_epoch())
    assert first.average is not None
    assert torch.equal(weights_of(first.average.network), weights_of(second.average.network))
    assert not torch.equal(weights_of(first.average.network), weights_of(first.network))


@pytest.mark.parametrize("changes", [{"average_share": 0.1}, {"train_on": "train+valid"}])
def test_averaging_needs_valid_and_no_other_average(changes: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match="average_patience needs a valid split to watch, and no average_share beside it"
    ):
        replace(CONFIG, average_patience=1, **changes)


def test_a_diverged_training_keeps_its_last_checkpoint_and_gives_one_line_of_advice(
    store: TextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TextLearner.loss
    batches: list[Any] = []

    def loss(self: TextLearner, network: Any, batch: Any, *, progress: float) -> Any:
        """No number any more from the third epoch on."""
        batches.append(batch)
        result = original(self, network, batch, progress=progress)
        return replace(result, loss=result.loss * float("nan")) if len(batches) > 6 else result

    monkeypatch.setattr(TextLearner, "loss", loss)
    folder = RunFolder.open(tmp_path / "retrain", CONFIG)
    with pytest.raises(DivergedError) as error:
        retrain(SPEC, CONFIG, store=store, folder=folder, device=CPU, interrupt=Interrupt())
    assert str(error.value) == (
        "the loss is no longer a number; the last checkpoint is kept. Start again with a smaller learning rate or a "
        "smaller clip_norm (--config), or another seed"
    )
    checkpoint = folder.restore()
    assert checkpoint is not None
    assert checkpoint["epoch"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in checkpoint["network"].values())
    assert not folder.finished


def test_a_training_that_diverges_at_once_begins_again_with_half_the_rate(
    store: TextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = WeightsTrainer._set_rate

    def set_rate(self: WeightsTrainer, epoch: float) -> None:
        original(self, epoch)
        if self.rate_scale > 0.25:  # what diverges at a rate that is too high
            next(iter(self._network.parameters())).data[0] = float("nan")

    config = replace(CONFIG, num_epochs=2)
    folders = [RunFolder.open(tmp_path / name, config) for name in ("sharp", "gentle")]
    gentle = retrain(
        SPEC,
        replace(config, sgd=replace(config.sgd, learning_rate=0.25)),
        store=store,
        folder=folders[1],
        device=CPU,
        interrupt=Interrupt(),
    )
    capsys.readouterr()
    monkeypatch.setattr(WeightsTrainer, "_set_rate", set_rate)
    sharp = retrain(SPEC, config, store=store, folder=folders[0], device=CPU, interrupt=Interrupt())
    assert sharp["rate_scale"] == 0.25
    assert "rate_scale" not in gentle
    assert sharp["test_perplexity"] == gentle["test_perplexity"]
    first, second, *epochs = capsys.readouterr().err.splitlines()
    assert first.startswith("the loss is no longer a number after step 1 of the first epoch: beginning again with 0.5 ")
    assert second.endswith("with 0.25 of the learning rate")
    assert len(epochs) == 2
    assert len(read_metrics(tmp_path / "sharp/metrics.jsonl")) == 2
    checkpoint = folders[0].restore()
    assert checkpoint is not None
    assert checkpoint["weights"]["rate_scale"] == 0.25


def test_a_training_whose_first_valid_loss_is_no_number_ends_with_advice(
    store: TextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = TextLearner.score

    def score(self: TextLearner, network: Any, split: str) -> Score:
        with monkeypatch.context() as patch:  # a state without bounds: what only long texts bring about
            patch.setattr("searcher.training.text_learner.mean_nll", lambda *_, **__: math.nan)
            return original(self, network, split)

    monkeypatch.setattr(TextLearner, "score", score)
    folder = RunFolder.open(tmp_path / "retrain", CONFIG)
    with pytest.raises(DivergedError) as error:
        retrain(SPEC, CONFIG, store=store, folder=folder, device=CPU, interrupt=Interrupt())
    assert str(error.value) == (
        "the loss, on train or on valid, is no longer a number, with the learning rate and with less, down to 0.03125 "
        "of it; start again with a smaller clip_norm (--config), another seed, or another architecture"
    )
    assert not folder.finished
    assert len(capsys.readouterr().err.splitlines()) == 5


def test_a_spec_of_another_vocabulary_is_not_trained(store: TextStore) -> None:
    spec = replace(SPEC, task=replace(SPEC.task, vocabulary_size=12))
    with pytest.raises(StoreError) as error:
        check_task(spec, store)
    assert str(error.value) == "the spec is for text of 12 different words, but letters has text of 11 different words"


def test_a_spec_of_words_is_trained_on_words_however_they_were_parted(store: TextStore) -> None:
    check_task(SPEC, replace(store, tokens="whitespace"))


def test_every_epochs_line_names_what_it_measures(
    store: TextStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = replace(CONFIG, num_epochs=1)
    folder = RunFolder.open(tmp_path / "retrain", config)
    retrain(SPEC, config, store=store, folder=folder, device=CPU, interrupt=Interrupt())
    line = r"epoch 1/1: loss \d+\.\d{3}, train perplexity \d+\.\d\d, valid perplexity \d+\.\d\d, \d+ ms a step\n"
    assert re.fullmatch(line, capsys.readouterr().err)


def test_an_infinite_perplexity_is_null_in_every_file_of_the_run(
    store: TextStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("searcher.training.text_learner.mean_nll", lambda *_, **__: 1e4)
    folder = RunFolder.open(tmp_path / "retrain", replace(CONFIG, num_epochs=1))
    retrain(SPEC, replace(CONFIG, num_epochs=1), store=store, folder=folder, device=CPU, interrupt=Interrupt())
    assert "valid perplexity infinite" in capsys.readouterr().err
    summary = read_json(folder.summary_path)  # which takes no Infinity
    assert summary["test_perplexity"] is None
    assert summary["valid_loss"] == 1e4
    (record,) = read_metrics(tmp_path / "retrain/metrics.jsonl")
    assert record["valid_perplexity"] is None
    assert "1 of 1" in write_report(tmp_path).read_text()


def test_a_network_is_not_exported_with_other_data_than_it_was_trained_on(tmp_path: Path) -> None:
    path, rng = tmp_path / "letters.h5", np.random.default_rng(1)

    def write() -> TextStore:
        splits = {split: rng.integers(0, VOCABULARY_SIZE, 60) for split in ("train", "valid", "test")}
        vocabulary = ("\n", *"abcdefghij")
        write_text_store(path, name="letters", splits=splits, vocabulary=vocabulary, source="", licence="CC0-1.0")
        return load_text(str(path))

    store = write()
    spec = replace(SPEC, task=replace(SPEC.task, dataset=str(path)))
    config = replace(CONFIG, num_epochs=1, dataset_sha256=store.digest)
    folder = RunFolder.open(tmp_path / "run" / "retrain", config)
    retrain(spec, config, store=store, folder=folder, device=CPU, interrupt=Interrupt())
    assert load_retrained(tmp_path / "run").finished
    write()
    with pytest.raises(StoreError, match=r"letters.h5 is no longer the one that .*run was trained on; .*--force`$"):
        load_retrained(tmp_path / "run")
    path.unlink()
    with pytest.raises(StoreError, match=r"run was trained on .*letters\.h5, which does not exist$"):
        load_retrained(tmp_path / "run")
