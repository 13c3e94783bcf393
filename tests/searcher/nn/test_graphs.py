"""Replayed parts against the modules themselves, through the twin that records nothing; on CUDA through real graphs."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from searcher.arch.spaces.macro import MacroSize, MacroSpace
from searcher.arch.spaces.micro import MicroSize, MicroSpace
from searcher.nn.banks import Alternatives
from searcher.nn.blocks import ConcatProjection
from searcher.nn.build import build_network, build_supernet
from searcher.nn.flat import views_of
from searcher.nn.graph_parts import Part
from searcher.nn.graphs import GraphedNetwork, Graphs, graph_operations, recordable
from searcher.nn.recurrent import Dropout
from searcher.nn.tapes import CudaTapes, EagerTape
from tests.searcher.conftest import make_spec, make_text_spec, random_architecture, random_recurrent
from tests.searcher.norms import assert_close_in_norm

Search = tuple[Any, Any, str]
SEARCHES: dict[str, Search] = {
    "micro": (MicroSpace(3), MicroSize(5, 8), "micro"),
    "macro": (MacroSpace(6), MacroSize(8), "macro"),
    "macro, sums": (MacroSpace(6), MacroSize(8, skip_merge="sum"), "macro"),
}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def graphs_on(device: str) -> Graphs:
    return Graphs(CudaTapes() if device == "cuda" else EagerTape)


def supernet_of(search: Search, device: str) -> nn.Module:
    space, size, name = search
    return build_supernet(name, space, size, input_shape=(12, 12, 1), num_classes=3, seed=0).to(device)


def gradients(network: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def assert_alike(actual: Any, expected: Any, device: str, *, bound: float = 1e-3) -> None:
    """To the bit on a CPU; on CUDA the algorithms of a recording may be others. bound: of relative norms there."""
    if device == "cpu":
        torch.testing.assert_close(actual, expected, atol=0.0, rtol=0.0)
    else:
        assert_close_in_norm(actual, expected, bound=bound)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
def test_replayed_operations_train_as_plain_ones(search: Search, device: str) -> None:
    plain, replayed, rng = supernet_of(search, device), supernet_of(search, device), random.Random(0)
    graphs = graphs_on(device)
    graph_operations(replayed, graphs)
    for _ in range(4):
        replayed.load_state_dict(plain.state_dict())  # weights of several steps may drift apart
        architectures = [search[0].random(rng) for _ in range(2)]  # whose gradients add up
        for network in (plain, replayed):
            torch.manual_seed(0)
            network.zero_grad(set_to_none=True)
            for architecture in architectures:
                logits, _ = network(torch.randn(4, 1, 12, 12).to(device), architecture)
                logits.square().mean().backward()
            with torch.no_grad():
                for parameter in network.parameters():
                    if parameter.grad is not None:
                        parameter -= 0.1 * parameter.grad
        assert_alike(gradients(replayed), gradients(plain), device)
    assert len(graphs) > 0


@pytest.mark.parametrize("device", DEVICES)
def test_replayed_operations_score_as_plain_ones(device: str) -> None:
    plain, replayed, rng = (*(supernet_of(SEARCHES["micro"], device).eval() for _ in range(2)), random.Random(0))
    graph_operations(replayed, graphs_on(device))
    for size in (4, 6, 4):
        images, architecture = torch.randn(size, 1, 12, 12).to(device), MicroSpace(3).random(rng)
        with torch.inference_mode():
            expected, _ = plain(images, architecture)
            actual, _ = replayed(images, architecture)
        # What is recorded once, with its gradient, may be computed otherwise where none is wanted.
        assert_close_in_norm(actual, expected, bound=1e-5 if device == "cpu" else 1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_recordings_are_bounded_by_places_however_many_architectures_pass(device: str) -> None:
    supernet, rng, graphs = supernet_of(SEARCHES["micro"], device), random.Random(0), graphs_on(device)
    graph_operations(supernet, graphs)
    images = torch.randn(4, 1, 12, 12, device=device)
    space, size, _ = SEARCHES["micro"]
    for _ in range(60):
        supernet(images, space.random(rng))[0].sum().backward()
    # Of a node's two operations: two kernels of separable convolution, and in reduction cells, of an input's map, once
    # more and the identity. Then two calibrations, two halved loose ends, the reduction's odd one out, and a merge of
    # each number of loose ends, for a cell; and the stem.
    cells, nodes = size.cells, space.num_nodes
    assert len(graphs) <= cells * (2 * nodes * 5 + 5 + nodes + 2) + 1


@pytest.mark.parametrize("device", DEVICES)
def test_a_replayed_network_trains_as_a_plain_one(device: str) -> None:
    spec = make_spec(random_architecture(1), MicroSize(5, 8))
    options = {"auxiliary": True, "dropout_prob": 0.3}
    plain, network = (build_network(spec, **options).to(device) for _ in range(2))
    replayed = GraphedNetwork(network, graphs_on(device))
    for step in range(4):
        images = torch.randn(4, 1, 12, 12).to(device)
        for module in (plain, replayed):
            module.zero_grad(set_to_none=True)
            torch.manual_seed(step)
            logits, auxiliary = module(images, drop_path_prob=0.1 * step)
            (logits.square().mean() + 0.4 * auxiliary.square().mean()).backward()
        assert_alike(gradients(network), gradients(plain), device)
        assert_alike(dict(network.named_buffers()), dict(plain.named_buffers()), device)  # the norms' averages
    plain.eval(), replayed.eval()
    with torch.inference_mode():
        assert_alike(replayed(images)[0], plain(images)[0], device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_replayed_recurrent_network_carries_its_state(device: str) -> None:
    spec = make_text_spec(random_recurrent(1))
    dropout = Dropout(embedding=0.1, input=0.2, state=0.2, output=0.3)
    plain, network = (build_network(spec, dropout=dropout).to(device) for _ in range(2))
    replayed = GraphedNetwork(network, graphs_on(device))
    states: dict[nn.Module, Tensor | None] = {plain: None, replayed: None}
    for step in range(4):
        tokens, targets = torch.randint(9, (2, 5, 3)).to(device)
        for module, state in states.items():
            module.zero_grad(set_to_none=True)
            torch.manual_seed(step)
            scores = module(tokens, targets, state)
            (scores.nll.mean() + scores.outputs.square().mean()).backward()
            states[module] = scores.state.detach()
        assert_alike(gradients(network), gradients(plain), device)
        assert_alike(states[replayed], states[plain], device)


def test_alternatives_of_one_build_share_a_recording() -> None:
    calls = 0

    def counting(*arguments: Any) -> EagerTape:
        nonlocal calls
        calls += 1
        return EagerTape(*arguments)

    graphs = Graphs(counting)
    first, second, other = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3, bias=False)
    x = torch.randn(2, 3)
    for module in (first, second, other):
        y = graphs.call(Part(module, place="here", build=repr(module)), [x])
        torch.testing.assert_close(y, module(x))
    assert calls == len(graphs) == 2


def test_training_and_scoring_share_a_recording_whichever_comes_first() -> None:
    for scores_first in (False, True):
        graphs, part = Graphs(EagerTape), Part(nn.Linear(3, 3), place="here")
        x = torch.randn(2, 3)
        for scores in (scores_first, not scores_first, scores_first):
            with torch.inference_mode(scores):
                given = x.clone() if scores else x.clone().requires_grad_()
                y = graphs.call(part, [given])
                torch.testing.assert_close(y, part.module(given))
            if not scores:
                y.sum().backward()
                assert given.grad is not None
        assert len(graphs) == 1


@pytest.mark.parametrize("search", SEARCHES.values(), ids=list(SEARCHES))
def test_recorded_parts_compute_the_same_in_training_and_in_evaluation(search: Search) -> None:
    """Or training and scoring could not share a recording."""
    supernet, seen = supernet_of(search, "cpu"), []
    for part, _ in recordable(supernet):
        part.register_forward_hook(lambda part, inputs, output: seen.append((part, *inputs, output)))
    supernet(torch.randn(4, 1, 12, 12), search[0].random(random.Random(0)))
    assert seen
    for part, x, expected in list(seen):
        torch.testing.assert_close(part.eval()(x), expected)


@pytest.mark.parametrize("decays", [True, False], ids=["one vector", "two vectors"])
def test_weights_and_gradients_may_be_views_of_anything_and_move(decays: bool) -> None:
    """As an optimiser lays them, all in a row, or matrices and vectors apart."""
    layers = [nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.Linear(3, 3)) for _ in range(2)]
    graphs, parts = Graphs(EagerTape), [Part(layer, place="here", build="alike") for layer in layers]
    for part in parts:
        graphs.call(part, [torch.randn(2, 3)]).sum().backward()
    parameters = [p for layer in layers for p in layer.parameters()]
    for chosen in [parameters] if decays else [[p for p in parameters if p.ndim == n] for n in (1, 2)]:
        weights, gradients = (torch.zeros(sum(p.numel() for p in chosen)) for _ in range(2))
        views = zip(chosen, views_of(weights, chosen), views_of(gradients, chosen), strict=True)
        for parameter, weight, gradient in views:
            weight.copy_(parameter.detach())
            parameter.data, parameter.grad = weight, gradient
    kept = [p.grad for p in parameters]
    for part, layer in zip(parts, layers, strict=True):
        x = torch.randn(4, 3)
        y = graphs.call(part, [x])
        torch.testing.assert_close(y, layer(x))
        y.square().sum().backward()
        expected = torch.autograd.grad(layer(x).square().sum(), list(layer.parameters()))
        torch.testing.assert_close([p.grad for p in layer.parameters()], list(expected))
    assert all(p.grad is k for p, k in zip(parameters, kept, strict=True))


def test_gradients_add_up_where_only_some_weights_have_one() -> None:
    layer = nn.Linear(3, 3)
    part, x = Part(layer, place="here"), torch.randn(2, 3)
    layer.bias.grad = torch.ones(3)
    Graphs(EagerTape).call(part, [x]).sum().backward()
    torch.testing.assert_close(layer.bias.grad, torch.full((3,), 3.0))
    torch.testing.assert_close(layer.weight.grad, x.sum(0).expand(3, 3))


def test_gradients_outlive_other_passes_through_their_recording() -> None:
    """Until those, they lie where the recording leaves them."""
    graphs, layers = Graphs(EagerTape), nn.ModuleList([nn.Linear(3, 3), nn.Linear(3, 3)])
    plain, parts = copy.deepcopy(layers), [Part(layer, place="here", build="alike") for layer in layers]
    for number in (0, 1, 0, 0, 1):
        x = torch.randn(2, 3)
        for y in (graphs.call(parts[number], [x]), plain[number](x)):
            y.square().sum().backward()
        assert_alike(gradients(layers), gradients(plain), "cpu")
    assert len(graphs) == 1


def test_merges_are_recorded_by_how_many_they_merge() -> None:
    projection, graphs = ConcatProjection(range(4), 3, norm=nn.BatchNorm2d), Graphs(EagerTape)
    supernet = nn.ModuleList([Alternatives({"a": nn.Linear(3, 3)}), projection])
    plain = copy.deepcopy(projection)
    graph_operations(supernet, graphs)
    for sources in ([0], [1, 3], [2], [0, 2]):
        maps = [torch.randn(2, 3, 4, 4) for _ in sources]
        for module in (projection, plain):
            module.zero_grad(set_to_none=True)
            module(maps, sources).square().sum().backward()
        assert_alike(projection(maps, sources), plain(maps, sources), "cpu")
        assert_alike(gradients(projection), gradients(plain), "cpu")
    assert len(graphs) == 2


def test_a_network_whose_weights_have_moved_is_recorded_again() -> None:
    spec = make_spec(random_architecture(1), MicroSize(5, 8))
    network = build_network(spec)
    graphs = Graphs(EagerTape)
    replayed = GraphedNetwork(network, graphs)
    images = torch.randn(4, 1, 12, 12)
    replayed(images)
    for parameter in network.parameters():
        parameter.data = 2 * parameter.data
    expected = network(images)[0]
    torch.testing.assert_close(replayed(images)[0], expected)
    assert len(graphs) == 1


def test_parts_without_room_run_as_they_are() -> None:
    search = SEARCHES["micro"]
    plain, replayed, rng = supernet_of(search, "cpu"), supernet_of(search, "cpu"), random.Random(0)
    room = [True] * 5
    graphs = Graphs(EagerTape, has_room=lambda: bool(room) and room.pop())
    graph_operations(replayed, graphs)
    for _ in range(3):
        images, architecture = torch.randn(4, 1, 12, 12), search[0].random(rng)
        for network in (plain, replayed):
            network.zero_grad(set_to_none=True)
            network(images, architecture)[0].square().mean().backward()
        assert_alike(gradients(replayed), gradients(plain), "cpu")
    assert len(graphs) == 5
    assert graphs.num_refused > 0


@pytest.mark.parametrize("device", DEVICES)
def test_a_place_recorded_later_does_not_disturb_one_recorded_before(device: str) -> None:
    """A pass goes through places in another order than they were recorded in."""
    graphs = graphs_on(device)
    layers = [nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64)).to(device) for _ in range(3)]
    parts = [Part(layer, place=number) for number, layer in enumerate(layers)]
    x = torch.randn(512, 64, device=device, requires_grad=True)
    for part in reversed(parts):
        graphs.call(part, [x]).sum().backward()
    for layer in layers:
        layer.zero_grad()
    found, expected = [], []
    for seen, call in (
        (found, lambda number, x: graphs.call(parts[number], [x])),
        (expected, lambda n, x: layers[n](x)),
    ):
        x.grad = None
        first = call(0, x)
        (call(2, call(1, first)) * first).sum().backward()
        seen += [x.grad, *(p.grad.clone() for layer in layers for p in layer.parameters() if p.grad is not None)]
        for layer in layers:
            layer.zero_grad()
    assert_alike(found, expected, device)


@pytest.mark.parametrize("device", DEVICES)
def test_what_autocast_remembers_is_not_taken_for_a_recording(device: str) -> None:
    graphs, layer = graphs_on(device), nn.Linear(8, 8).to(device)
    part = Part(layer, place="here")
    with torch.autocast(device, dtype=torch.bfloat16):
        for seed in range(3):
            x = torch.randn(4, 8, generator=torch.Generator().manual_seed(seed)).to(device).requires_grad_()
            assert_alike(graphs.call(part, [x]), layer(x), device, bound=1e-2)  # bfloat16 has 8 bits


@pytest.mark.gpu
def test_memory_stays_flat_over_changing_architectures() -> None:
    supernet, rng, graphs = supernet_of(SEARCHES["micro"], "cuda"), random.Random(0), Graphs(CudaTapes())
    graph_operations(supernet, graphs)
    images = torch.randn(4, 1, 12, 12, device="cuda")
    peaks = []
    for _ in range(3):
        torch.cuda.reset_peak_memory_stats()
        for _ in range(100):
            supernet(images, MicroSpace(3).random(rng))[0].sum().backward()
            supernet.zero_grad(set_to_none=True)
        peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[2] <= 1.02 * peaks[1]
