"""The average of weights against its closed form, and norms' statistics against plain ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from datasets.catalog import load_images
from datasets.store_writer import write_image_store
from searcher.nn.blocks import drop_path
from searcher.nn.kernels.norm import batch_norm
from searcher.training.averaging import WeightAverage, estimate_norms, has_norms, horizon
from searcher.training.image_learner import ImageLearner, ImageTraining


def average_of_the_steps_numbers(steps: int, *, resumed_after: int = 0) -> float:
    """The average after that many steps of a network whose weight is the number of the step."""
    network = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    weight = next(network.parameters()).detach()
    average = WeightAverage(network, share=0.1)
    for step in range(1, steps + 1):
        weight.fill_(step)
        average.update(network)
        if step == resumed_after:
            state = average.state()
            average = WeightAverage(network, share=0.1)
            average.load(state)
    return next(average.network.parameters()).item()


@pytest.mark.parametrize("steps", [1, 10, 100, 10_000])
def test_an_average_is_what_the_formula_gives(steps: int) -> None:
    # With n = 1 / share the average m(t) of weights 1, 2, …, t is m(t-1) + (t - m(t-1)) · n / (t + n - 1), which
    # (n·t + 1) / (n + 1) solves: nothing of what was there before the first step remains.
    assert average_of_the_steps_numbers(steps) == pytest.approx((10 * steps + 1) / 11, rel=1e-12)


@pytest.mark.parametrize("steps", [10, 100, 10_000])
def test_an_average_goes_on_half_way_to_the_bit(steps: int) -> None:
    assert average_of_the_steps_numbers(steps, resumed_after=steps // 2) == average_of_the_steps_numbers(steps)


def test_a_horizon_grows_from_one_step_to_the_share_of_all() -> None:
    assert horizon(1, share=0.1) == 1
    assert horizon(10, share=0.1) == pytest.approx(1.9)
    assert horizon(100, share=0.1) == pytest.approx(10.9)
    assert horizon(10_000, share=0.1) == pytest.approx(1000.9)
    assert horizon(7, share=1.0) == 7


class Normed(nn.Module):
    """A convolution and a norm, with dropout and drop path before it that evaluation must not see."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.norm = batch_norm(running_statistics=True)(3)
        self.unmoved = batch_norm(running_statistics=False)(3)
        self.classify = nn.Linear(3, 2)

    def forward(self, images: Tensor, drop_path_prob: float = 0.0) -> tuple[Tensor, None]:
        x = drop_path(self.drop(self.conv(images)), drop_path_prob)
        x = self.unmoved(self.norm(x))
        return self.classify(x.mean((2, 3))), None


@pytest.fixture(scope="module")
def learner(tmp_path_factory: pytest.TempPathFactory) -> ImageLearner:
    path = tmp_path_factory.mktemp("data") / "noise.h5"
    rng = np.random.default_rng(0)
    splits = {
        split: (rng.integers(0, 255, (count, 6, 6, 1), dtype=np.uint8), np.arange(count) % 2)
        for split, count in {"train": 50, "valid": 10, "test": 10}.items()
    }
    write_image_store(path, name="noise", splits=splits, classes=("a", "b"), source="made up", licence="CC0-1.0")
    return ImageLearner(
        ImageTraining(drop_path_prob=0.5),
        store=load_images(str(path)),
        train_on="train",
        batch_size=8,
        reward_batch_size=8,
        seed=0,
        device=torch.device("cpu"),
        memory_budget_mb=64,
        precision="float32",
    )


def test_norms_get_the_mean_of_the_batches_whatever_they_held(learner: ImageLearner) -> None:
    torch.manual_seed(0)
    network = Normed()
    nn.init.constant_(network.norm.running_mean, 1e6)  # type: ignore[arg-type]
    batches = learner.norm_batches(np.random.default_rng(0), count=32)
    estimate_norms(network, learner, batches)
    with torch.no_grad():
        maps = [network.conv(images) for images, _ in batches]
    assert len(batches) == 4
    torch.testing.assert_close(network.norm.running_mean, torch.stack([x.mean((0, 2, 3)) for x in maps]).mean(0))
    torch.testing.assert_close(network.norm.running_var, torch.stack([x.var((0, 2, 3)) for x in maps]).mean(0))
    assert not any(module.training for module in network.modules())
    assert network.norm.momentum == 0.1


def test_an_average_does_not_touch_the_network_it_is_of(learner: ImageLearner) -> None:
    torch.manual_seed(0)
    network = Normed()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    average = WeightAverage(network, share=0.1)
    average.update(Normed())
    estimate_norms(average.network, learner, learner.norm_batches(np.random.default_rng(0), count=8))
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not torch.equal(average.network.state_dict()["norm.running_mean"], before["norm.running_mean"])


@pytest.mark.parametrize(("count", "sizes"), [(32, [8] * 4), (30, [8] * 3), (1, [8]), (1000, [8] * 6)])
def test_norms_are_shown_whole_batches_of_different_images(learner: ImageLearner, count: int, sizes: list[int]) -> None:
    batches = learner.norm_batches(np.random.default_rng(0), count=count)
    assert [len(labels) for _, labels in batches] == sizes
    images = torch.cat([images for images, _ in batches])
    assert len(images.flatten(1).unique(dim=0)) == sum(sizes)


def test_a_network_without_norms_says_so() -> None:
    assert has_norms(Normed())
    assert not has_norms(nn.Linear(1, 1))
