"""How a search chooses its architecture in the end, and what scores one."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from datasets.catalog import load_images
from foundation.seeds import stream_seed
from searcher.arch.spaces.micro import MicroArchitecture, MicroSize, MicroSpace
from searcher.controller.random_policy import RandomPolicy
from searcher.nn.build import build_supernet
from searcher.presets.catalog import search_preset
from searcher.running.interrupt import Interrupt
from searcher.running.run_folder import RunFolder
from searcher.training.derive import DeriveConfig, bind, derive, num_scorings, score
from searcher.training.image_learner import ImageLearner
from searcher.training.search import search
from tests.searcher.conftest import random_architecture
from tests.searcher.noise import noise_learner


@pytest.fixture
def supernet() -> nn.Module:
    return build_supernet("micro", MicroSpace(2), MicroSize(3, 4), input_shape=(12, 12, 1), num_classes=3, seed=0)


@pytest.fixture
def learner(tmp_path: Path) -> ImageLearner:
    return noise_learner(tmp_path)


def test_derivation_takes_the_best_finalist_on_the_whole_split(supernet: nn.Module, learner: ImageLearner) -> None:
    space = MicroSpace(2)
    config = DeriveConfig(num_samples=12, num_batches=1, num_finalists=4)
    calls: list[int] = []
    derived = derive(
        RandomPolicy(space.steps()), space, supernet, learner, config, seed=0, on_score=lambda: calls.append(1)
    )
    assert len(derived.sampled_rewards) == 12
    assert derived.reward == max(derived.finalist_rewards)
    assert len(calls) == num_scorings(config) == 16
    again = learner.whole_reward(bind(supernet, derived.architecture), np.random.default_rng(0))
    assert again * 7 == pytest.approx(round(again * 7))


@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_a_search_within_chance_says_so(
    tmp_path: Path, chance: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    noise_learner(tmp_path)
    config = replace(
        search_preset("micro", "quick", image_size=12),
        num_epochs=1,
        min_steps=0,
        policy_start_epoch=0,
        policy_steps=1,
        reward_batch_size=4,
        search_space=MicroSpace(2),
        network=MicroSize(3, 4),
        final_network=MicroSize(3, 4),
        derivation=DeriveConfig(num_samples=2, num_batches=1, num_finalists=2),
    )
    monkeypatch.setattr(ImageLearner, "chance_reward", lambda *_, **__: chance)
    folder = RunFolder.open(tmp_path / "run" / "search", config)
    store = load_images(str(tmp_path / "noise.h5"))
    search(config, store=store, folder=folder, device=torch.device("cpu"), interrupt=Interrupt())
    assert folder.summary()["chance_reward"] == chance
    assert ("is within chance (1.000)" in capsys.readouterr().err) is (chance == 1.0)


def test_the_papers_derivation_takes_the_best_on_one_minibatch(supernet: nn.Module, learner: ImageLearner) -> None:
    space = MicroSpace(2)
    config = DeriveConfig(num_samples=5, num_batches=1, num_finalists=1)
    derived = derive(RandomPolicy(space.steps()), space, supernet, learner, config, seed=0)
    assert derived.finalist_rewards == ()
    assert derived.reward == max(derived.sampled_rewards)


def test_a_reward_that_is_no_number_loses_against_all(
    supernet: nn.Module, learner: ImageLearner, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = MicroSpace(2)
    rewards = iter([0.2, math.nan, 0.9, 0.95, math.nan, 0.1])
    finals = iter([math.nan, 0.3, 0.4])
    monkeypatch.setattr(learner, "reward", lambda network, batches: torch.tensor(next(rewards)))
    monkeypatch.setattr(learner, "whole_reward", lambda network, generator: next(finals))
    config = DeriveConfig(num_samples=6, num_batches=1, num_finalists=3)
    policy = RandomPolicy(space.steps())
    derived = derive(policy, space, supernet, learner, config, seed=0)
    # The finalists are .95, .9 and .2, in this order; the last of them has .4.
    tokens = policy.sample(6, generator=torch.Generator().manual_seed(stream_seed(0, "derive", "architectures"))).tokens
    assert derived.reward == 0.4
    assert derived.architecture == space.from_tokens(tokens[0].tolist())


def test_scores_leave_no_gradients_and_no_mode_behind_that_matters(supernet: nn.Module, learner: ImageLearner) -> None:
    architectures: list[MicroArchitecture] = [random_architecture(seed, 2) for seed in range(3)]
    batch = learner.reward_batch(np.random.default_rng(0))
    rewards = score(learner, supernet, architectures, [batch])
    assert rewards.shape == (3,)
    assert torch.equal(rewards, score(learner, supernet, architectures, [batch]))
    assert all(p.grad is None for p in supernet.parameters())
