"""Learning to predict the next token: what state a window starts from, and what is made of its scores."""

# T time steps, B batch, H hidden size, V vocabulary

from __future__ import annotations

import math
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from datasets.catalog import load_text
from datasets.store import StoreError
from datasets.store_writer import write_text_store
from datasets.streams import split_streams
from datasets.token_batches import TokenBatches
from foundation.document import ConfigError
from searcher.arch.spaces.recurrent import RecurrentSize, RecurrentSpace
from searcher.nn.build import BoundNetwork, build_network, build_supernet
from searcher.nn.recurrent import Scores
from searcher.training.learner import Score, is_better, is_no_worse
from searcher.training.text_learner import TextBatch, TextLearner, TextTraining, perplexity, perplexity_of
from tests.searcher.conftest import VOCABULARY_SIZE, make_text_spec, random_recurrent

COUNTS = {"train": 101, "valid": 60, "test": 2500}
BATCH, WINDOW = 4, 5


def text(split: str) -> np.ndarray:
    return np.random.default_rng(len(split)).integers(0, VOCABULARY_SIZE, COUNTS[split])


@pytest.fixture(scope="module")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "letters.h5"
    vocabulary = ("\n", *"abcdefghij")
    splits = {split: text(split) for split in COUNTS}
    write_text_store(path, name="letters", splits=splits, vocabulary=vocabulary, source="made up", licence="CC0-1.0")
    return path


def make_learner(store_path: Path, *, batch_size: int = BATCH, **training: Any) -> TextLearner:
    return TextLearner(
        TextTraining(**{"window": WINDOW, **training}),
        store=load_text(str(store_path)),
        train_on="train",
        batch_size=batch_size,
        reward_batch_size=3,
        seed=0,
        device=torch.device("cpu"),
        memory_budget_mb=64,
        precision="float32",
    )


def make_network() -> BoundNetwork:
    return build_network(make_text_spec(random_recurrent(0)), weight_range=1.0)


# --- the state --------------------------------------------------------------------------------------------------------


def test_the_state_goes_from_window_to_window_without_a_gradient_and_starts_each_epoch_from_zero(
    store_path: Path,
) -> None:
    learner, network = make_learner(store_path), make_network()
    for epoch in range(2):
        expected = None
        steps = 0
        for batch in learner.batches(epoch=epoch, start_step=0):
            if expected is None:
                assert batch.state is None
            else:
                assert torch.equal(batch.state, expected)
                assert not batch.state.requires_grad
            learner.loss(network, batch, progress=1.0).loss.backward()
            expected = network(*batch).state.detach()
            steps += 1
        assert steps == learner.steps_per_epoch == 5


def test_an_epoch_goes_on_from_a_checkpoint_with_the_state_it_stopped_at(store_path: Path) -> None:
    network = make_network()
    first, second = make_learner(store_path), make_learner(store_path)
    windows = first.batches(epoch=0, start_step=0)
    for _ in range(3):
        first.loss(network, next(windows), progress=1.0)
    second.load(first.state())
    for expected, found in zip(windows, second.batches(epoch=0, start_step=3), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        for learner in (first, second):
            learner.loss(network, expected, progress=1.0)


def test_a_checkpoint_before_the_first_step_holds_the_zero_state(store_path: Path) -> None:
    learner = make_learner(store_path)
    assert learner.state() == {}
    learner.loss(make_network(), next(learner.batches(epoch=0, start_step=0)), progress=1.0)
    learner.load({})
    assert next(learner.batches(epoch=0, start_step=1)).state is None


def test_reward_windows_come_from_valid_and_start_from_zero(store_path: Path) -> None:
    learner = make_learner(store_path)
    one, again, other = (learner.reward_batch(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert one.state is None
    assert one.tokens.shape == one.targets.shape == (WINDOW, 3)
    assert torch.equal(one.tokens, again.tokens)
    assert not torch.equal(one.tokens, other.tokens)
    places = np.lib.stride_tricks.sliding_window_view(text("valid"), WINDOW + 1).tolist()
    for column in torch.cat([one.tokens, one.targets[-1:]]).t().tolist():
        assert column in places


# --- scores -----------------------------------------------------------------------------------------------------------


def test_a_reward_is_the_constant_over_the_perplexity_of_the_minibatches(store_path: Path) -> None:
    learner, network = make_learner(store_path, reward_constant=40.0), make_network()
    batches = learner.reward_batches(np.random.default_rng(0), count=4)
    nll = np.concatenate([network(*batch).nll.detach().double().numpy().ravel() for batch in batches])
    assert nll.shape == (4 * WINDOW * 3,)
    reward = learner.reward(network, batches)
    assert reward.item() == pytest.approx(40 / np.exp(nll.mean()), rel=1e-6)
    assert not reward.requires_grad


def plain_perplexity(network: BoundNetwork, tokens: np.ndarray, num_streams: int) -> float:
    """Stream by stream, token by token."""
    streams = split_streams(tokens, num_streams)
    nll, count = 0.0, 0
    for inputs, targets, weights in zip(streams.inputs, streams.targets, streams.weights, strict=True):
        state = torch.zeros(1, network.network.state_size)  # type: ignore[arg-type]
        for token, target, weight in zip(inputs, targets, weights, strict=True):
            logits, state = network.network.step(torch.tensor([token]), state, network.architecture)  # type: ignore[operator]
            if weight:
                nll -= logits.double().log_softmax(1)[0, target].item()
                count += 1
    assert count == len(tokens) - 1
    return math.exp(nll / count)


def test_a_child_whose_state_grows_out_of_bounds_earns_nothing(store_path: Path) -> None:
    learner, network = make_learner(store_path), make_network().eval()
    for parameter in network.parameters():
        parameter.data.mul_(1e30)
    batch = learner.reward_batch(np.random.default_rng(0))
    assert network(*batch).nll.isnan().any()
    assert learner.reward(network, [batch]) == 0.0
    assert learner.whole_reward(network, np.random.default_rng(0)) == 0.0


def test_perplexity_is_that_of_a_plain_loop_over_the_evaluation_streams(store_path: Path) -> None:
    network = make_network().eval()
    score = make_learner(store_path).score(network, "test")
    # 2499 tokens in 32 streams of 79, more than one window of the evaluation.
    assert score.value == pytest.approx(plain_perplexity(network, text("test"), 32), rel=1e-6)
    assert score.count == 2499


def test_a_supernets_child_is_scored_on_all_of_valid(store_path: Path) -> None:
    learner, space = make_learner(store_path), RecurrentSpace(5)
    supernet = build_supernet("recurrent", space, RecurrentSize(8), seed=0, vocabulary_size=VOCABULARY_SIZE)
    child = partial(supernet.eval(), architecture=random_recurrent(0))
    found = learner.whole_reward(child, np.random.default_rng(0))
    assert found == pytest.approx(80 / learner.score(child, "valid").value)


def test_chance_is_what_frequencies_alone_earn(store_path: Path) -> None:
    counts = Counter(text("train").tolist())
    total = len(text("train")) + VOCABULARY_SIZE
    nll = [-math.log((counts[token] + 1) / total) for token in text("valid").tolist()]
    expected = 80 / math.exp(sum(nll) / len(nll))
    assert make_learner(store_path).chance_reward() == pytest.approx(expected)


def test_the_network_that_knows_nothing_has_the_vocabularys_perplexity(store_path: Path) -> None:
    network = make_network()
    nn.init.zeros_(network.network.embedding)  # type: ignore[arg-type]
    batches = TokenBatches.load(load_text(str(store_path)), "test", device="cpu")
    assert perplexity(network, batches, precision="float32") == pytest.approx(VOCABULARY_SIZE)


def fixed_scores(*_: object) -> Scores:
    """Two time steps of one text with a state of two."""
    return Scores(
        nll=torch.tensor([[1.0], [3.0]], requires_grad=True),
        outputs=torch.tensor([[[1.0, 2.0]], [[0.0, 3.0]]]),
        states=torch.tensor([[[1.0, 1.0]], [[4.0, 3.0]]]),
        state=torch.zeros(1, 2),
    )


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({}, 2.0),
        ({"activation_penalty": 0.5}, 2.0 + 0.5 * (1 + 1 + 16 + 9) / 4),
        ({"slowness_penalty": 2.0}, 2.0 + 2.0 * (3**2 + 2**2) / 2),
        ({"activation_penalty": 0.5, "slowness_penalty": 2.0}, 2.0 + 3.375 + 13.0),
    ],
)
def test_penalties_are_added_to_the_loss_and_not_to_what_is_measured(
    store_path: Path, training: dict[str, float], expected: float
) -> None:
    learner = make_learner(store_path, **training)
    batch = TextBatch(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 1, dtype=torch.int64), None)
    result = learner.loss(fixed_scores, batch, progress=1.0)
    assert result.loss.item() == pytest.approx(expected)
    assert (result.measured.item(), result.count) == (4.0, 2)


def test_a_window_of_one_step_has_no_change_to_punish(store_path: Path) -> None:
    learner = make_learner(store_path, window=1, slowness_penalty=1.0)
    batch = next(learner.batches(epoch=0, start_step=0))
    result = learner.loss(make_network(), batch, progress=1.0)
    assert result.loss.item() == pytest.approx(result.measured.item() / BATCH)


def test_the_record_gives_perplexity_and_survives_a_loss_beyond_all_numbers(store_path: Path) -> None:
    learner = make_learner(store_path)
    assert learner.record(2.5, math.log(90)) == {"loss": 2.5, "train_perplexity": pytest.approx(90)}
    assert math.isfinite(learner.record(1e6, 1e6)["train_perplexity"])


def test_less_perplexity_is_better_and_no_number_never_is() -> None:
    ninety, more = Score(90.0, 59, math.log(90)), Score(91.0, 59, math.log(91))
    assert is_better("perplexity", ninety, None)
    assert is_better("perplexity", ninety, more)
    assert not is_better("perplexity", more, ninety)
    assert not is_better("perplexity", ninety, ninety)
    for loss in (math.nan, math.inf):
        assert not is_better("perplexity", Score(loss, 59, loss), None)
        assert not is_better("perplexity", Score(loss, 59, loss), ninety)
        assert not is_better("accuracy", Score(1.0, 59, loss), Score(0.5, 59, 0.1))


def test_an_accuracy_within_a_standard_error_of_the_best_is_no_worse() -> None:
    best = Score(0.9, 900, 0.3)  # give or take 0.01
    assert is_no_worse("accuracy", Score(0.8901, 900, 0.5), best)
    assert is_no_worse("accuracy", Score(0.95, 900, 0.5), best)
    assert is_no_worse("accuracy", Score(0.1, 900, 2.0), None)
    assert not is_no_worse("accuracy", Score(0.8899, 900, 0.1), best)
    assert not is_no_worse("accuracy", Score(0.95, 900, math.nan), best)
    assert not is_no_worse("accuracy", Score(0.999, 900, 0.1), Score(1.0, 900, 0.1))
    assert not is_no_worse("perplexity", Score(90.01, 900, 4.5), Score(90.0, 900, 4.5))


def test_more_accuracy_is_better_and_less_loss_where_it_is_equal() -> None:
    assert is_better("accuracy", Score(0.9, 30, 0.5), Score(0.8, 30, 0.1))
    assert not is_better("accuracy", Score(0.8, 30, 0.1), Score(0.9, 30, 0.5))
    assert is_better("accuracy", Score(0.9, 30, 0.1), Score(0.9, 30, 0.2))
    assert not is_better("accuracy", Score(0.9, 30, 0.2), Score(0.9, 30, 0.2))


def test_a_perplexity_beyond_all_numbers_is_infinite() -> None:
    assert perplexity_of(math.log(90)) == pytest.approx(90)
    assert perplexity_of(1e4) == math.inf
    assert is_better("perplexity", Score(math.inf, 59, 800.0), Score(math.inf, 59, 900.0))


def test_training_asks_the_network_for_its_dropout_norm_and_range(store_path: Path) -> None:
    learner = make_learner(store_path, batch_norm=True, weight_range=0.025)
    options = learner.network_options
    network = build_network(make_text_spec(random_recurrent(0)), form="search", **options)
    assert max(p.abs().max().item() for name, p in network.named_parameters() if "norm" not in name) <= 0.025
    assert any("norm" in name for name, _ in network.named_parameters())


# --- mistakes ---------------------------------------------------------------------------------------------------------


def test_a_text_too_short_for_the_batch_says_what_would_do(store_path: Path) -> None:
    with pytest.raises(StoreError) as error:
        make_learner(store_path, batch_size=101)
    assert str(error.value) == (
        f"{store_path}: split 'train' has 101 tokens, too few for a batch_size of 101 streams of at least 2 tokens "
        "each: use a batch_size of at most 100, or more text"
    )


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"window": 0}, "window is 0; at least 1 is needed"),
        ({"activation_penalty": -1.0}, "activation_penalty is -1.0; it must not be negative"),
        ({"slowness_penalty": math.nan}, "slowness_penalty is nan; it must not be negative"),
        ({"weight_range": 0.0}, "weight_range is 0.0; it must be above 0"),
        ({"reward_constant": 0.0}, "reward_constant is 0.0; it must be above 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(setting: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        TextTraining(**setting)  # type: ignore[arg-type]
    assert str(error.value) == message
