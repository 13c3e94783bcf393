"""An epoch of training: steps, what is counted, where it goes on, what it refuses."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from datasets.augmentation import Augmentation
from foundation.document import ConfigError
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.nn.build import build_supernet
from searcher.nn.graphs import Graphs, graph_operations
from searcher.nn.tapes import CudaTapes
from searcher.presets.catalog import search_preset
from searcher.training.derive import bind
from searcher.training.image_learner import ImageTraining
from searcher.training.learner import StepLoss
from searcher.training.optimizers.optimizer import SgdConfig
from searcher.training.weights_trainer import DivergedError, WeightsTrainer, parts_of_batch, rounds_of
from tests.searcher.noise import noise_learner
from tests.searcher.toy import PLAIN, Toy


class FewPoints:
    """A learner of points [B, 4] in three classes, read in order."""

    metric = "accuracy"
    network_options: dict[str, Any] = {}  # noqa: RUF012 - of a class that stays as it is

    def __init__(self, count: int) -> None:
        self.points = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
        self.labels = torch.arange(count) % 3
        self.steps_per_epoch = count // 8
        self.asked: list[tuple[int, int]] = []

    def batches(self, *, epoch: int, start_step: int) -> Iterator[tuple[Tensor, Tensor]]:
        self.asked.append((epoch, start_step))
        for start in range(8 * start_step, len(self.points), 8):
            yield self.points[start : start + 8], self.labels[start : start + 8]

    def loss(self, network: Any, batch: tuple[Tensor, Tensor], *, progress: float) -> StepLoss:
        logits = network(batch[0])
        correct = (logits.argmax(1) == batch[1]).sum()
        return StepLoss(nn.functional.cross_entropy(logits, batch[1]), correct, len(logits))

    def record(self, mean_loss: float, mean_measured: float) -> dict[str, float]:
        return {"loss": mean_loss, "train_accuracy": mean_measured}

    def state(self) -> dict[str, Any]:
        return {}

    def load(self, state: dict[str, Any]) -> None:
        pass


def make_trainer(network: nn.Module, learner: FewPoints, sgd: SgdConfig = PLAIN, **options: Any) -> WeightsTrainer:
    return WeightsTrainer(
        network,
        learner,  # type: ignore[arg-type]
        sgd=sgd,
        num_epochs=1,
        seed=0,
        device=torch.device("cpu"),
        **options,
    )


def run_epoch(network: nn.Module, trainer: WeightsTrainer, *, start_step: int = 0) -> list[int]:
    return list(trainer.epoch(lambda _: network, epoch=0, start_step=start_step))


def test_an_epoch_learns_and_counts_what_it_saw() -> None:
    network, learner = Toy(), FewPoints(240)
    learner.points[:, 0] += 2.0 * (learner.labels == 0)
    trainer = make_trainer(network, learner)
    assert run_epoch(network, trainer) == list(range(1, 31))
    assert trainer.totals.sums[2] == 240
    loss, accuracy = trainer.totals.means()
    assert (network(learner.points).argmax(1) == learner.labels).double().mean() > accuracy
    assert loss < math.log(3)


def test_an_epoch_trains_a_network_that_was_evaluated_before() -> None:
    network = Toy().eval()
    steps = make_trainer(network, FewPoints(80)).epoch(lambda _: network, epoch=0, start_step=0)
    next(steps)
    assert all(module.training for module in network.modules())


def test_an_epoch_goes_on_where_it_stopped() -> None:
    networks = [Toy(), Toy()]
    networks[1].load_state_dict(networks[0].state_dict())
    trainers = [make_trainer(network, FewPoints(80)) for network in networks]
    run_epoch(networks[0], trainers[0])
    steps = trainers[1].epoch(lambda _: networks[1], epoch=0, start_step=0)
    assert [next(steps) for _ in range(4)] == [1, 2, 3, 4]
    assert run_epoch(networks[1], trainers[1], start_step=4) == [5, 6, 7, 8, 9, 10]
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)
    assert torch.equal(trainers[0].totals.sums, trainers[1].totals.sums)


def test_an_epoch_of_several_rounds_goes_on_where_it_stopped() -> None:
    networks, learners = [Toy(), Toy()], [FewPoints(24), FewPoints(24)]
    networks[1].load_state_dict(networks[0].state_dict())
    trainers = [make_trainer(n, each, min_steps=8) for n, each in zip(networks, learners, strict=True)]
    assert [trainers[0].rounds, trainers[0].steps_per_epoch] == [3, 9]
    assert run_epoch(networks[0], trainers[0]) == list(range(1, 10))
    assert learners[0].asked == [(0, 0), (1, 0), (2, 0)]
    steps = trainers[1].epoch(lambda _: networks[1], epoch=0, start_step=0)
    assert [next(steps) for _ in range(5)] == [1, 2, 3, 4, 5]
    assert run_epoch(networks[1], trainers[1], start_step=5) == [6, 7, 8, 9]
    assert learners[1].asked == [(0, 0), (1, 0), (1, 2), (2, 0)]
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("steps", "num_epochs", "min_steps", "expected"),
    [(140, 6, 600, 1), (25, 6, 600, 4), (3, 6, 600, 8), (100, 6, 600, 1), (99, 6, 600, 2), (1, 1, 0, 1)],
)
def test_a_small_data_sets_epochs_are_several_rounds(
    steps: int, num_epochs: int, min_steps: int, expected: int
) -> None:
    assert rounds_of(steps, num_epochs=num_epochs, min_steps=min_steps) == expected


def test_a_step_averages_the_gradients_of_its_passes() -> None:
    networks = [Toy(), Toy()]
    networks[1].load_state_dict(networks[0].state_dict())
    for network, passes in zip(networks, (1, 4), strict=True):
        run_epoch(network, make_trainer(network, FewPoints(24), passes=passes))  # equal passes average to one
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_passes_are_numbered_through_the_epoch() -> None:
    network, seen = Toy(), []

    def network_of(index: int) -> nn.Module:
        seen.append(index)
        return network

    list(make_trainer(network, FewPoints(24), passes=2).epoch(network_of, epoch=0, start_step=1))
    assert seen == [2, 3, 4, 5]


@pytest.mark.parametrize(("size", "parts"), [(64, 32), (40, 20), (5, 2), (1, 1)])
def test_every_part_of_a_batch_has_two_images(size: int, parts: int) -> None:
    sizes = [len(part[0]) for part, _ in parts_of_batch((torch.zeros(size, 1),), 32)]
    assert (len(sizes), sum(sizes)) == (parts, size)
    assert min(sizes) >= min(2, size)


@pytest.mark.parametrize("update_unused", [False, True])
def test_unused_parameters_decay_only_if_told_to(update_unused: bool) -> None:
    network = Toy()
    before = network.unused.weight.detach().clone()
    sgd = replace(PLAIN, weight_decay=0.5, update_unused=update_unused)
    run_epoch(network, make_trainer(network, FewPoints(8), sgd))
    assert torch.equal(network.unused.weight, before) is not update_unused


def test_parts_of_a_batch_add_up_to_the_gradient_of_the_whole() -> None:
    """Without norms, whose statistics are a part's."""
    networks = [nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)]
    for network in networks[1:]:
        network.load_state_dict(networks[0].state_dict())
    trainers = [
        make_trainer(network, FewPoints(80), replace(PLAIN, accumulation=parts))
        for network, parts in zip(networks, (1, 2, 8), strict=True)
    ]
    for network, trainer in zip(networks, trainers, strict=True):
        run_epoch(network, trainer)
        torch.testing.assert_close(network.weight, networks[0].weight)
        torch.testing.assert_close(trainer.totals.sums, trainers[0].totals.sums)
    assert not torch.equal(networks[0].weight, nn.Linear(4, 3).weight)


def test_a_sharpness_aware_step_follows_the_gradient_uphill_of_the_weights() -> None:
    network, twin = nn.Linear(4, 3), nn.Linear(4, 3)
    twin.load_state_dict(network.state_dict())
    learner = FewPoints(8)
    trainer = make_trainer(network, learner, replace(PLAIN, sharpness=0.3, momentum=0.0))
    run_epoch(network, trainer)

    def gradients() -> list[Tensor]:
        twin.zero_grad()
        nn.functional.cross_entropy(twin(learner.points), learner.labels).backward()
        return [p.grad.clone() for p in twin.parameters() if p.grad is not None]

    first = gradients()
    norm = torch.cat([gradient.flatten() for gradient in first]).norm()
    start = [p.detach().clone() for p in twin.parameters()]
    with torch.no_grad():
        for p, gradient in zip(twin.parameters(), first, strict=True):
            p += 0.3 * gradient / norm
    for p, before, gradient in zip(network.parameters(), start, gradients(), strict=True):
        torch.testing.assert_close(p, before - 0.1 * gradient)
    assert trainer.totals.sums[2] == 8  # what is measured is measured once, at the weights themselves


@pytest.mark.parametrize(
    "changes", [{"optimizer": "adamw", "learning_rate": 0.01}, {"sharpness": 0.1, "accumulation": 2}]
)
def test_other_steps_go_on_where_they_stopped(changes: dict[str, Any]) -> None:
    sgd = replace(PLAIN, **changes)
    networks = [Toy(), Toy()]
    networks[1].load_state_dict(networks[0].state_dict())
    through, first = (make_trainer(network, FewPoints(80), sgd) for network in networks)
    run_epoch(networks[0], through)
    steps = first.epoch(lambda _: networks[1], epoch=0, start_step=0)
    for _ in range(4):
        next(steps)
    second = make_trainer(networks[1], FewPoints(80), sgd)
    second.load(copy.deepcopy(first.state()))
    run_epoch(networks[1], second, start_step=4)
    for a, b in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("space", "changes", "message"),
    [
        ("stages", {"accumulation": 3}, "accumulation is 3, which does not divide batch_size, 64"),
        (
            "stages",
            {"accumulation": 64},
            "accumulation is 64 and batch_size 64; a part of a batch must have two images",
        ),
        ("recurrent", {"accumulation": 2}, "accumulation and sharpness are for images"),
        ("recurrent", {"sharpness": 0.1}, "accumulation and sharpness are for images"),
        ("recurrent", {"optimizer": "muon"}, "muon is for convolutions"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused(space: str, changes: dict[str, Any], message: str) -> None:
    config = search_preset(space, "quick", image_size=None if space == "recurrent" else 28)
    with pytest.raises(ConfigError, match=message):
        replace(config, batch_size=64, sgd=replace(config.sgd, **changes))


@pytest.mark.parametrize("clip_norm", [0.0, 5.0])
def test_a_loss_that_is_no_number_stops_with_advice(clip_norm: float) -> None:
    network, learner = Toy(), FewPoints(8)
    learner.points.fill_(math.inf)
    trainer = make_trainer(network, learner, replace(PLAIN, clip_norm=clip_norm))
    run_epoch(network, trainer)
    with pytest.raises(DivergedError, match="smaller learning rate"):
        trainer.state()


@pytest.fixture
def supernet() -> nn.Module:
    return build_supernet("micro", MicroSpace(2), MicroSize(3, 4), input_shape=(12, 12, 1), num_classes=3, seed=0)


@pytest.mark.gpu
@pytest.mark.parametrize("replays", [False, True])
def test_no_step_of_an_epoch_waits_for_the_device(tmp_path: Path, supernet: nn.Module, replays: bool) -> None:
    augmentation = Augmentation(crop_padding=1, flip=True, cutout=3)
    learner = noise_learner(tmp_path, device="cuda", training=ImageTraining(augmentation, drop_path_prob=0.2))
    supernet.cuda()
    if replays:
        graph_operations(supernet, Graphs(CudaTapes()))
    trainer = WeightsTrainer(
        supernet,
        learner,
        sgd=replace(PLAIN, clip_norm=5.0),
        num_epochs=2,
        seed=0,
        device=torch.device("cuda"),
        passes=2,
    )
    # The same few in every epoch, so that all is recorded in the first.
    pool = [MicroSpace(2).random(random.Random(seed)) for seed in range(3)]
    for epoch in range(2):
        steps = trainer.epoch(lambda index: bind(supernet, pool[index % 3]), epoch=epoch, start_step=0)
        if replays and epoch == 0:
            list(steps)
            continue
        next(steps)  # brings to the device what the epoch needs
        torch.cuda.set_sync_debug_mode("error")
        try:
            assert len(list(steps)) == learner.steps_per_epoch - 1
        finally:
            torch.cuda.set_sync_debug_mode("default")
