"""The LSTM that a recurrent cell is compared with."""

# T time steps, B batch, H hidden size, V vocabulary

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from exporter.retraining.lstm import LstmNetwork, build_lstm, equal_width
from searcher.arch.catalog import published_spec
from searcher.nn.build import build_network
from searcher.nn.recurrent import Dropout
from tests.searcher.conftest import VOCABULARY_SIZE, make_text_spec, random_recurrent


def make_lstm(dropout: Dropout | None = None, *, seed: int = 0) -> LstmNetwork:
    return build_lstm(make_text_spec(random_recurrent(0)), seed=seed, dropout=dropout)


def windows() -> tuple[Tensor, Tensor]:
    tokens, targets = torch.randint(VOCABULARY_SIZE, (2, 6, 4), generator=torch.Generator().manual_seed(0))
    return tokens, targets


def test_it_computes_torchs_lstm_with_the_embedding_as_softmax() -> None:
    network = make_lstm().eval()
    tokens, targets = windows()
    scores = network(tokens, targets, None)
    states, (hidden, cell) = network.lstm(network.embedding[tokens])
    logits = states @ network.embedding.t()
    torch.testing.assert_close(
        scores.nll.flatten(), functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    )
    torch.testing.assert_close(scores.state, torch.cat([hidden, cell], dim=2)[0])


def test_two_windows_with_the_state_carried_are_one_long_window() -> None:
    network = make_lstm().eval()
    tokens, targets = windows()
    whole, first = network(tokens, targets, None), network(tokens[:2], targets[:2], None)
    second = network(tokens[2:], targets[2:], first.state)
    torch.testing.assert_close(torch.cat([first.nll, second.nll]), whole.nll)


@pytest.mark.parametrize("vocabulary_size", [10, 65, 10_000])
@pytest.mark.parametrize("num_parameters", [3_000, 1_000_000, 22_000_000])
def test_the_width_is_that_with_the_nearest_number_of_parameters(vocabulary_size: int, num_parameters: int) -> None:
    def parameters(width: int) -> int:
        return vocabulary_size * width + 8 * width**2 + 8 * width

    width = equal_width(num_parameters, vocabulary_size=vocabulary_size)
    distances = {w: abs(parameters(w) - num_parameters) for w in (width - 1, width, width + 1) if w > 0}
    assert min(distances, key=distances.__getitem__) == width


def test_it_has_as_many_parameters_as_the_published_cells_network_to_a_few_in_a_thousand() -> None:
    spec = published_spec("enas-recurrent-published")
    ours, theirs = (
        sum(p.numel() for p in network.parameters()) for network in (build_network(spec), build_lstm(spec, seed=0))
    )
    assert theirs == pytest.approx(ours, rel=2e-3)


@pytest.mark.parametrize("kind", ["embedding", "input", "output"])
def test_dropout_acts_in_training_alone(kind: str) -> None:
    plain, network = make_lstm(), make_lstm(Dropout(**{kind: 0.5}))
    expected = plain.eval()(*windows(), None).nll
    assert torch.equal(network.eval()(*windows(), None).nll, expected)
    assert not torch.equal(network.train()(*windows(), None).nll, expected)


def test_first_weights_follow_the_seed() -> None:
    values = [torch.cat([p.flatten() for p in make_lstm(seed=seed).parameters()]) for seed in (0, 0, 1)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])
