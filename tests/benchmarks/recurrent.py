"""A step of shared weights of the recurrent space over random cells: the cell walked by autograd, and by hand."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import torch
from torch.nn import functional

from searcher.arch.spaces.recurrent import RecurrentArchitecture, RecurrentSize, RecurrentSpace
from searcher.nn.build import build_supernet
from searcher.nn.kernels.recurrence import step as cell_step
from searcher.nn.recurrent import RecurrentNetwork, plan_of
from searcher.running.device import computing, prepare, products_precision
from searcher.training.optimizers.optimizer import SgdConfig, clip_gradients, make_sgd
from tests.benchmarks.side_by_side import side_by_side

NUM_ARCHITECTURES = 20
VOCABULARY_SIZE = 10_000
WINDOW, BATCH_SIZE = 35, 64
CPU = torch.device("cpu")


def main() -> None:
    prepare(CPU)
    for hidden_size in (200, 1000):
        side_by_side(
            f"recurrent step, batch {BATCH_SIZE}, {WINDOW} time steps, 12 nodes, hidden {hidden_size}, 10,000 words",
            {
                "autograd through every node": step_of(hidden_size, plain_loss),
                "by hand, float32": step_of(hidden_size, lambda *inputs: our_loss(*inputs, fast=False)),
                "by hand, products in bfloat16": step_of(hidden_size, lambda *inputs: our_loss(*inputs, fast=True)),
            },
        )


Loss = Callable[[RecurrentNetwork, torch.Tensor, torch.Tensor, RecurrentArchitecture], torch.Tensor]


def step_of(hidden_size: int, loss: Loss) -> Callable[[], None]:
    """A training step, going round the same random architectures."""
    space, rng = RecurrentSpace(), random.Random(0)
    order = itertools.cycle([space.random(rng) for _ in range(NUM_ARCHITECTURES)])
    network = build_supernet("recurrent", space, RecurrentSize(hidden_size), vocabulary_size=VOCABULARY_SIZE, seed=0)
    assert isinstance(network, RecurrentNetwork)
    sgd = SgdConfig(learning_rate=0.1, momentum=0.0, weight_decay=1e-7, clip_norm=0.25)
    optimizer = make_sgd(network, sgd)
    parameters = list(network.parameters())
    text = torch.randint(VOCABULARY_SIZE, (WINDOW + 1, BATCH_SIZE), generator=torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss(network, text[:-1], text[1:], next(order)).backward()
        clip_gradients(parameters, sgd.clip_norm)
        optimizer.step()

    return step


def our_loss(
    network: RecurrentNetwork,
    tokens: torch.Tensor,
    targets: torch.Tensor,
    architecture: RecurrentArchitecture,
    *,
    fast: bool,
) -> torch.Tensor:
    with computing(CPU, products_precision(CPU, "auto") if fast else "float32"):
        return network(tokens, targets, None, architecture).nll.mean()


def plain_loss(
    network: RecurrentNetwork, tokens: torch.Tensor, targets: torch.Tensor, architecture: RecurrentArchitecture
) -> torch.Tensor:
    """The same by torch's own means."""
    plan, weights = plan_of(architecture), network.weights_of(architecture)
    state, states = torch.zeros(BATCH_SIZE, network.state_size), []
    for token in tokens:
        state = cell_step(plan, functional.embedding(token, network.embedding) @ network.input, state, weights)
        states.append(state)
    logits = torch.cat(states) @ network.embedding.t()
    return functional.cross_entropy(logits, targets.flatten())
