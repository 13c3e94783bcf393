"""A retraining in progress: its network, the average of its weights, the epoch that is kept.

Knows nothing of folders, checkpoints or progress bars, which are in `retrain.py`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple
from typing import Any

import torch
from torch import nn

from exporter.retraining.config import RetrainConfig
from exporter.retraining.lstm import build_lstm
from exporter.retraining.overfitting import Overfitting
from exporter.retraining.teacher import Teachers
from foundation.seeds import numpy_generator, stream_seed
from searcher.arch.spec import Spec
from searcher.nn.build import build_network
from searcher.nn.graphs import GraphedNetwork, Graphs
from searcher.running.checkpoint import loading
from searcher.running.distributed import ALONE, World
from searcher.training.averaging import WeightAverage, estimate_norms, has_norms
from searcher.training.learner import Network, Score, is_better, is_no_worse
from searcher.training.task_kinds import Store, make_learner
from searcher.training.weights_trainer import DivergedError, WeightsTrainer

# Training examples from which the norms' statistics are estimated at the end of an epoch.
_NUM_NORM_EXAMPLES = 512

_EARLIER_NAMES = {
    "highest": "best",
    "highest_epoch": "best_epoch",
    "best": "kept",
    "best_epoch": "kept_epoch",
    "best_kept": "kept_form",
}


class Retraining:
    """A retraining in progress. All that changes is declared in `__init__`, saved in `state` and restored in `load`."""

    def __init__(
        self,
        spec: Spec,
        config: RetrainConfig,
        *,
        store: Store,
        device: torch.device,
        world: World = ALONE,
        graphs: Graphs | None = None,
        teachers: Teachers | None = None,
    ) -> None:
        """graphs: records the network's training passes. teachers: the configuration's teachers, opened."""
        self.config = config
        self.world = world
        self.teachers = teachers
        self._device = device
        # A stream of its own: with the search's seed, retraining must not replay the search's order and crops.
        seed = stream_seed(config.seed, "retrain")
        self.learner = make_learner(
            spec.task,
            config.training,
            store=store,
            train_on=config.train_on,
            batch_size=config.batch_size,
            reward_batch_size=config.batch_size,
            seed=seed,
            device=device,
            memory_budget_mb=config.memory_budget_mb,
            precision=config.precision,
            world=world,
            **({} if teachers is None else {"distillation": teachers.distillation}),
        )
        self.epoch = 0
        self.step = 0
        self.network = make_network(spec, config, seed=seed, **self.learner.network_options).to(device)
        # A wrapper: averages and checkpoints are copies of `network` itself.
        self.replica = world.replicate(self.network if graphs is None else GraphedNetwork(self.network, graphs))
        self.average: WeightAverage | None = None
        if config.average_share > 0:
            self.average = WeightAverage(self.network, share=config.average_share)
        self.weights = WeightsTrainer(
            self.network,
            self.learner,
            sgd=config.sgd,
            num_epochs=config.num_epochs,
            min_steps=config.min_steps,
            seed=seed,
            device=device,
            world=world,
            replicated=True,
        )
        self.overfitting = Overfitting()
        self.best: Score | None = None  # of all epochs
        self.best_epoch = 0
        self.kept: Score | None = None  # of the epoch that is kept: the last one that is no worse than the best
        self.kept_epoch = 0
        self.kept_form = ""  # a name in `candidates`

    def state(self) -> dict[str, Any]:
        """Raises: DivergedError: the loss is no longer finite, so the state is not worth keeping."""
        return {
            "epoch": self.epoch,
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state() if self.average else {},
            "weights": self.weights.state(),
            "overfitting": self.overfitting.state(),
            "best": astuple(self.best) if self.best else (),
            "best_epoch": self.best_epoch,
            "kept": astuple(self.kept) if self.kept else (),
            "kept_epoch": self.kept_epoch,
            "kept_form": self.kept_form,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Raises: CheckpointError: the state is of another kind of run."""
        state = _with_present_names(state)
        with loading("the checkpoint"):
            self.epoch, self.step = state["epoch"], state["step"]
            self.network.load_state_dict(state["network"])
            if state["average"]:
                self.average = self.average or WeightAverage(self.network, share=1.0)
                self.average.load(state["average"])
            self.weights.load(state["weights"])
            if "overfitting" in state:  # earlier checkpoints have none
                self.overfitting.load(state["overfitting"])
            self.best = Score(*state["best"]) if state["best"] else None
            self.best_epoch = state["best_epoch"]
            self.kept = Score(*state["kept"]) if state["kept"] else None
            self.kept_epoch, self.kept_form = state["kept_epoch"], state["kept_form"]

    @property
    def steps_done(self) -> int:
        return self.epoch * self.weights.steps_per_epoch + self.step

    @property
    def candidates(self) -> dict[str, nn.Module]:
        """The networks that the end of an epoch chooses from, by name; the first wins a tie on valid."""
        average = {"average": self.average.network} if self.average else {}
        return {**average, "weights": self.network}

    def train_epoch(self) -> Iterator[None]:
        """Trains the rest of the current epoch; yields after each step."""

        def network_of(_: int) -> Network:
            return self.replica

        for done in self.weights.epoch(network_of, epoch=self.epoch, start_step=self.step):
            self.step = done
            # Most trainings that diverge do so at once; on a CPU this check costs nothing.
            if self.epoch == 0 and self._device.type == "cpu" and self.world.size == 1:
                self.weights.totals.check()
            if self.average:
                self.average.update(self.network)
            yield
        self.weights.totals.check()

    def end_epoch(self) -> tuple[dict[str, Any], nn.Module | None]:
        """Ends the epoch: returns its record, and the network to keep, None if an earlier epoch was better.

        If valid is trained on, there is no split to choose on: each epoch replaces the one before, in the form of the
        average if there is one.
        Raises: DivergedError: the training loss is not finite, or, in the first epoch, the loss on valid, which leaves
        nothing to keep.
        """
        record: dict[str, Any] = {"epoch": self.epoch + 1, **self.weights.record()}
        candidates = self.candidates
        self._estimate_norms(candidates.values())
        kept, score = next(iter(candidates)), None
        if self.config.train_on == "train":
            metric = self.learner.metric
            scores = {name: self.learner.score(network.eval(), "valid") for name, network in candidates.items()}
            kept, score = self._best_of(scores)
            if self.epoch == 0 and not math.isfinite(score.loss):
                raise DivergedError("the loss on valid is not a number")
            record |= {f"valid_{metric}": score.value, "valid_loss": score.loss} | self.chosen_by(score)
            if len(scores) > 1:
                record |= {"kept": kept, **{f"valid_{metric}_{name}": each.value for name, each in scores.items()}}
        self.epoch, self.step = self.epoch + 1, 0
        self.weights.totals.sums.zero_()
        is_kept = score is None or is_no_worse(self.learner.criterion, score, self.best)
        if is_kept:
            self.kept, self.kept_epoch, self.kept_form = score, self.epoch, kept
        if score is not None and is_better(self.learner.criterion, score, self.best):
            self.best, self.best_epoch = score, self.epoch
        patience = self.config.average_patience
        if patience and self.average is None and self.epoch - self.best_epoch >= patience:
            self.average = WeightAverage(self.network, share=1.0)
        return record, candidates[kept] if is_kept else None

    def chosen_by(self, score: Score) -> dict[str, float]:
        """The criterion that chooses epochs on valid, name to value, if it is not the metric; otherwise empty."""
        if self.learner.criterion == self.learner.metric or score.balanced is None:
            return {}
        return {f"valid_{self.learner.criterion}": score.balanced}

    def _estimate_norms(self, networks: Iterable[nn.Module]) -> None:
        if not has_norms(self.network):
            return
        generator = numpy_generator(self.config.seed, "norms", self.epoch)
        batches = self.learner.norm_batches(generator, count=_NUM_NORM_EXAMPLES)
        for network in networks:
            estimate_norms(network, self.learner, batches, world=self.world)

    def _best_of(self, scores: Mapping[str, Score]) -> tuple[str, Score]:
        """Name and score of the best network, the first of them if several are equal."""
        best, *others = scores
        for name in others:
            if is_better(self.learner.criterion, scores[name], scores[best]):
                best = name
        return best, scores[best]


def _with_present_names(state: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's state in present names: earlier checkpoints call the best score highest and the kept one best."""
    return {_EARLIER_NAMES.get(name, name): state[name] for name in state} if "highest" in state else state


def make_network(spec: Spec, config: RetrainConfig, *, seed: int, **options: Any) -> nn.Module:
    """The network that a retraining trains, with initial weights. options: the learner's `network_options`."""
    if config.model == "lstm":
        return build_lstm(spec, seed=seed, dropout=options["dropout"], weight_range=options["weight_range"])
    return build_network(spec, seed=seed, **options)
