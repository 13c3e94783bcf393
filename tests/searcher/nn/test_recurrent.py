"""The recurrent network: what it computes of windows of text, and what training's dropout does to them."""

# T time steps, B batch, H hidden size, V vocabulary

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from foundation.document import ConfigError
from searcher.arch.spaces.recurrent import Node, RecurrentArchitecture, RecurrentSize, RecurrentSpace
from searcher.nn.build import BoundNetwork, build_network, build_supernet
from searcher.nn.recurrent import Dropout, RecurrentNetwork
from tests.searcher.conftest import VOCABULARY_SIZE, make_text_spec, random_recurrent
from tests.searcher.norms import assert_close_in_norm

HIDDEN = 8
ONE_NODE = RecurrentArchitecture((Node(0, "identity"),))


def windows(steps: int = 6, batch: int = 4) -> tuple[Tensor, Tensor]:
    tokens, targets = torch.randint(VOCABULARY_SIZE, (2, steps, batch), generator=torch.Generator().manual_seed(0))
    return tokens, targets


def network_of(architecture: RecurrentArchitecture, **options: object) -> BoundNetwork:
    return build_network(make_text_spec(architecture, HIDDEN), weight_range=1.0, **options)


@pytest.mark.parametrize("seed", range(3))
def test_a_window_gives_what_its_tokens_give_one_by_one(seed: int) -> None:
    architecture = random_recurrent(seed)
    network = network_of(architecture)
    tokens, targets = windows()
    scores = network(tokens, targets, None)
    state = torch.zeros(4, HIDDEN)
    for t in range(6):
        logits, state = network.network.step(tokens[t], state, architecture)
        torch.testing.assert_close(scores.states[t], state)
        torch.testing.assert_close(scores.nll[t], functional.cross_entropy(logits, targets[t], reduction="none"))
    torch.testing.assert_close(scores.state, state)


def test_two_windows_with_the_state_carried_are_one_long_window() -> None:
    network = network_of(random_recurrent(1))
    tokens, targets = windows()
    whole, first = network(tokens, targets, None), network(tokens[:2], targets[:2], None)
    second = network(tokens[2:], targets[2:], first.state)
    torch.testing.assert_close(torch.cat([first.nll, second.nll]), whole.nll)


def test_a_supernet_scores_windows_together_as_one_at_a_time() -> None:
    space = RecurrentSpace(5)
    supernet = build_supernet("recurrent", space, RecurrentSize(HIDDEN), seed=0, vocabulary_size=VOCABULARY_SIZE)
    architecture = random_recurrent(2)
    tokens, targets = windows()
    together = supernet(tokens, targets, None, architecture).nll
    alone = [supernet(tokens[:, [i]], targets[:, [i]], None, architecture).nll for i in range(4)]
    torch.testing.assert_close(together, torch.cat(alone, dim=1))


def test_batch_norm_is_the_searchs_alone() -> None:
    architecture = random_recurrent(0)
    search, final = (network_of(architecture, form=form, batch_norm=True) for form in ("search", "final"))
    states = search(*windows(), None).states
    torch.testing.assert_close(states.mean(1), torch.zeros(6, HIDDEN), atol=1e-5, rtol=0)
    assert final(*windows(), None).states.mean(1).abs().max() > 0.1
    assert not [name for name, _ in final.named_parameters() if "norm" in name]


def test_a_large_language_models_products_may_be_in_bfloat16_and_its_scores_are_in_float32() -> None:
    network = network_of(random_recurrent(3))
    exact = network(*windows(), None)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network(*windows(), None)
    assert {part.dtype for part in rounded} == {torch.float32}
    # bfloat16 has 8 bits of mantissa.
    torch.testing.assert_close(rounded.nll, exact.nll, atol=0.1, rtol=0.05)
    assert not torch.equal(rounded.nll, exact.nll)


def test_weights_start_uniform_in_the_range_and_follow_the_seed() -> None:
    spec = make_text_spec(random_recurrent(0), hidden_size=64)
    first, again, other = (build_network(spec, seed=seed, weight_range=0.025) for seed in (0, 0, 1))
    for parameter in first.parameters():
        assert parameter.abs().max().item() <= 0.025
        assert parameter.std().item() == pytest.approx(0.025 / 3**0.5, rel=0.1)
    values = [torch.cat([p.flatten() for p in network.parameters()]) for network in (first, again, other)]
    assert torch.equal(values[0], values[1])
    assert not torch.equal(values[0], values[2])


# --- dropout ----------------------------------------------------------------------------------------------------------


def half_gate(**dropout: float) -> RecurrentNetwork:
    """A cell that leaves half of its state, and adds half of what it reads of the token: s' = s / 2 + x / 2."""
    network = network_of(ONE_NODE, dropout=Dropout(**dropout)).network
    assert isinstance(network, RecurrentNetwork)
    with torch.no_grad():
        network.input.copy_(torch.cat([torch.zeros(HIDDEN, HIDDEN), torch.eye(HIDDEN)], dim=1))
        for weight in network.nodes.parameters():
            weight.zero_()
    return network


def read_of_tokens(network: RecurrentNetwork, tokens: Tensor) -> Tensor:
    """What the cell read of each token: [T, B, H]."""
    states = network(tokens, tokens, None, ONE_NODE).states
    return 2 * states - torch.cat([torch.zeros_like(states[:1]), states[:-1]])


@pytest.mark.parametrize("kind", ["embedding", "input", "state", "output"])
def test_dropout_acts_in_training_alone_and_anew_for_every_window(kind: str) -> None:
    architecture = random_recurrent(1)
    plain, network = network_of(architecture), network_of(architecture, dropout=Dropout(**{kind: 0.5}))
    expected = plain(*windows(), None).nll
    assert torch.equal(network.eval()(*windows(), None).nll, expected)
    first, second = (network.train()(*windows(), None).nll for _ in range(2))
    assert not torch.equal(first, expected)
    assert not torch.equal(first, second)


def test_embedding_dropout_drops_whole_words_at_all_their_places() -> None:
    network = half_gate(embedding=0.5)
    tokens = torch.arange(VOCABULARY_SIZE).repeat(4)[:, None].repeat(1, 3)  # every word at 12 places
    read = read_of_tokens(network, tokens)
    factors = (read / network.embedding[tokens]).detach()  # [T, B, H]
    by_word = factors.unflatten(0, (4, VOCABULARY_SIZE)).movedim(1, 0).flatten(1)  # [V, 4·B·H]
    torch.testing.assert_close(by_word, by_word[:, :1].expand_as(by_word), atol=1e-3, rtol=1e-3)
    assert sorted(set(by_word[:, 0].round(decimals=2).abs().tolist())) == [0.0, 2.0]


def test_a_windows_input_mask_stays_over_time_and_differs_from_that_of_its_neighbour() -> None:
    network = half_gate(input=0.5)
    tokens, _ = windows()
    factors = (read_of_tokens(network, tokens) / network.embedding[tokens]).detach()
    torch.testing.assert_close(factors, factors[:1].expand_as(factors), atol=1e-3, rtol=1e-3)
    mask = factors[0].round(decimals=2).abs()
    assert sorted(set(mask.flatten().tolist())) == [0.0, 2.0]
    assert not torch.equal(mask[0], mask[1])


def test_a_windows_output_mask_stays_over_time_and_differs_from_that_of_its_neighbour() -> None:
    network = network_of(random_recurrent(1), dropout=Dropout(output=0.5))
    scores = network(*windows(), None)
    factors = (scores.outputs / scores.states).detach()
    torch.testing.assert_close(factors, factors[:1].expand_as(factors))
    assert sorted(set(factors.flatten().tolist())) == [0.0, 2.0]
    assert not torch.equal(factors[0, 0], factors[0, 1])


def test_state_dropout_spares_the_path_that_carries_the_state() -> None:
    network = half_gate(state=0.5)
    with torch.no_grad():
        network.input.zero_()
        # What the node's matrix reads of the state is the state: s' = s / 2 + mask · s / 2.
        network.nodes[0].from0.copy_(torch.cat([torch.zeros(HIDDEN, HIDDEN), torch.eye(HIDDEN)], dim=1))  # type: ignore[operator, union-attr]
    tokens, targets = windows()
    states = network(tokens, targets, torch.ones(4, HIDDEN), ONE_NODE).states
    masks = 2 * states / torch.cat([torch.ones(1, 4, HIDDEN), states[:-1]]) - 1
    torch.testing.assert_close(masks, masks[:1].expand_as(masks))
    assert sorted(set(masks.flatten().tolist())) == [0.0, 2.0]
    assert not torch.equal(masks[0, 0], masks[0, 1])


@pytest.mark.parametrize("value", [1.0, -0.1])
def test_a_dropout_that_leaves_nothing_is_refused(value: float) -> None:
    with pytest.raises(ConfigError, match=f"state is {value}; expected 0 up to, not including, 1"):
        Dropout(state=value)


@pytest.mark.gpu
def test_cuda_computes_what_the_cpu_computes_of_text() -> None:
    network = network_of(random_recurrent(1))
    expected = network(*windows(), None).nll
    actual = network.cuda()(*(part.cuda() for part in windows()), None).nll
    assert_close_in_norm(actual, expected, bound=1e-4)
