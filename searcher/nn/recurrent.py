"""The recurrent network: one wiring for the supernet and for every fixed network.

Embedding, cell, and a softmax that shares the embedding's weights. Search and final network differ in the argument
`batch_norm`: the paper normalises the new state in the search only.

Source: Pham et al. 2018, sections 2.1 and 3.1 and appendix A.
"""

# T time steps, B batch, H hidden size, V vocabulary

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from foundation.document import ConfigError
from searcher.arch.spaces.recurrent import ACTIVATIONS, STATE, RecurrentArchitecture, RecurrentSize, RecurrentSpace
from searcher.nn.banks import Bank, FixedOps, Form, SharedOps
from searcher.nn.kernels.recurrence import CellPlan, StateNorm, run, step
from searcher.nn.kernels.tied_softmax import negative_log_likelihood


@dataclass(frozen=True)
class Dropout:
    """Variational dropout: probabilities in [0, 1) of masks that stay the same over a window's time steps."""

    embedding: float = 0.0
    """Of whole words, at all their positions in the window."""
    input: float = 0.0
    """Of the token's embedding that the cell reads."""
    state: float = 0.0
    """Of the state and nodes as the cell's matrices read them; the path that carries the state is not masked."""
    output: float = 0.0
    """Of the softmax's input."""

    def __post_init__(self) -> None:
        for name in ("embedding", "input", "state", "output"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; expected 0 up to, not including, 1")


class Scores(NamedTuple):
    """The results for a window of text."""

    nll: Tensor
    """[T, B]: -log of the probability given to each target, in nats."""
    outputs: Tensor
    """[T, B, H]: the softmax's input, after dropout."""
    states: Tensor
    """[T, B, H]: the cell's output, before dropout."""
    state: Tensor
    """[B, S]: the initial state for the next window; for a cell S is H, and this is the last of `states`."""


def build_shared(space: RecurrentSpace, size: RecurrentSize, **options: Any) -> RecurrentNetwork:
    """The supernet: all candidates. options: see `RecurrentNetwork`."""
    return RecurrentNetwork(size, SharedOps(), _candidates(space), **options)


def build_fixed(
    architecture: RecurrentArchitecture,
    size: RecurrentSize,
    *,
    form: Form = "final",
    batch_norm: bool = False,
    weights: str = "per_edge",
    **options: Any,
) -> RecurrentNetwork:
    """The network of one architecture; only the form `search` uses batch norm.

    weights: as in `RecurrentSpace`; determines the parameters' names. options: see `RecurrentNetwork`.
    """
    space = RecurrentSpace(len(architecture.nodes), weights=weights)  # type: ignore[arg-type]
    bank = FixedOps(architecture.used())
    return RecurrentNetwork(size, bank, _candidates(space), batch_norm=batch_norm and form == "search", **options)


class RecurrentNetwork(nn.Module):
    """Windows of text and an architecture -> scores of the tokens that came next.

    Args: candidates: for each node, the edges that may be chosen. weight_range: weights start uniform in ± this; in
    the paper 0.025 for the search, 0.04 for the final network.
    """

    def __init__(
        self,
        size: RecurrentSize,
        bank: Bank,
        candidates: Iterable[list[Edge]],
        *,
        vocabulary_size: int,
        dropout: Dropout | None = None,
        batch_norm: bool = False,
        weight_range: float = 0.04,
    ) -> None:
        super().__init__()
        hidden = size.hidden_size
        self.state_size = hidden
        self.embedding = nn.Parameter(torch.empty(vocabulary_size, hidden))
        self.input = nn.Parameter(torch.empty(hidden, 2 * hidden))
        self.nodes = nn.ModuleList(
            _Edges(bank.select((str(number),), edges), hidden) for number, edges in enumerate(candidates, start=1)
        )
        self.norm = nn.ParameterList([torch.ones(hidden), torch.zeros(hidden)]) if batch_norm else None
        self.weight_range = weight_range
        self._dropout = dropout or Dropout()

    def forward(
        self, tokens: Tensor, targets: Tensor, state: Tensor | None, architecture: RecurrentArchitecture
    ) -> Scores:
        """Read a window. Args: tokens, targets: int64 [T, B]. state: [B, H]; None starts from zero.

        Matrix products use autocast's dtype if autocast is on; everything else is in float32.
        """
        device = tokens.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        with torch.autocast(device, enabled=False):
            return self._read(tokens, targets, state, architecture, dtype=dtype)

    def _read(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: Tensor | None,
        architecture: RecurrentArchitecture,
        *,
        dtype: torch.dtype | None,
    ) -> Scores:
        batch_size, hidden = tokens.shape[1], self.state_size
        state = self.embedding.new_zeros(batch_size, hidden) if state is None else state
        embedded = functional.embedding(tokens, self.embedding)  # [T, B, H]
        words = self._mask(self._dropout.embedding, len(self.embedding), 1)
        embedded = embedded if words is None else embedded * words[tokens]
        embedded = _times(embedded, self._mask(self._dropout.input, batch_size, hidden))
        projected = (embedded.flatten(0, 1).to(dtype) @ self.input.to(dtype)).to(embedded.dtype)
        states = run(
            plan_of(architecture),
            projected.unflatten(0, tokens.shape),
            state,
            self.weights_of(architecture),
            mask=self._mask(self._dropout.state, batch_size, hidden),
            norm=self._norm(),
            dtype=dtype,
        )
        outputs = _times(states, self._mask(self._dropout.output, batch_size, hidden))
        nll = negative_log_likelihood(outputs.flatten(0, 1), self.embedding, targets.flatten(), dtype=dtype)
        return Scores(nll.view_as(targets), outputs, states, states[-1])

    def step(self, tokens: Tensor, state: Tensor, architecture: RecurrentArchitecture) -> tuple[Tensor, Tensor]:
        """Read one token each: tokens int64 [B], state [B, H] -> logits [B, V] of the next token, and the new state."""
        projected = functional.embedding(tokens, self.embedding) @ self.input
        state = step(plan_of(architecture), projected, state, self.weights_of(architecture), self._norm())
        return state @ self.embedding.t(), state

    def weights_of(self, architecture: RecurrentArchitecture) -> list[Tensor]:
        """The matrices [H, 2H] of an architecture's nodes."""
        return [
            edges.weight(node.previous, node.activation)  # type: ignore[operator]
            for edges, node in zip(self.nodes, architecture.nodes, strict=True)
        ]

    def _norm(self) -> StateNorm | None:
        return None if self.norm is None else StateNorm(*self.norm)

    def _mask(self, prob: float, *shape: int) -> Tensor | None:
        return draw_mask(prob, *shape, like=self.embedding) if prob > 0.0 and self.training else None


def draw_mask(prob: float, *shape: int, like: Tensor) -> Tensor:
    """A mask of zeros with probability `prob`, the rest scaled to a mean of one; from the global generator."""
    if prob == 0.0:
        return like.new_ones(shape)
    return (torch.rand(shape, device=like.device) >= prob).to(like.dtype).div_(1 - prob)


def initialise(network: RecurrentNetwork, *, generator: torch.Generator) -> None:
    """Uniform weights, as in the paper; the norm starts as the identity."""
    for parameter in (network.embedding, network.input, *network.nodes.parameters()):
        nn.init.uniform_(parameter, -network.weight_range, network.weight_range, generator=generator)


Edge = tuple[int] | tuple[int, str]
"""The node read, and also the activation if each activation has weights of its own."""


class _Edges(nn.Module):
    """A node's matrices [H, 2H], one for each edge that may be chosen."""

    def __init__(self, edges: list[Edge], hidden_size: int) -> None:
        super().__init__()
        for edge in edges:
            self.register_parameter(_name(*edge), nn.Parameter(torch.empty(hidden_size, 2 * hidden_size)))

    def weight(self, previous: int, activation: str) -> Tensor:
        shared = _name(previous)
        return getattr(self, shared if shared in self._parameters else _name(previous, activation))


def _name(previous: int, activation: str = "") -> str:
    return f"from{previous}_{activation}" if activation else f"from{previous}"


def _candidates(space: RecurrentSpace) -> Iterable[list[Edge]]:
    """For each node of a space, the edges that may be chosen."""
    for number in range(1, space.num_nodes + 1):
        sources = [STATE] if number == 1 else list(range(1, number))
        if space.weights == "per_edge":
            yield [(source,) for source in sources]
        else:
            fixed = (space.first_activation,) if number == 1 and space.first_activation else ACTIVATIONS
            yield [(source, activation) for source in sources for activation in fixed]


@lru_cache(maxsize=4096)
def plan_of(architecture: RecurrentArchitecture) -> CellPlan:
    """The cell's wiring, with nodes numbered from 0."""
    return CellPlan(
        previous=tuple(node.previous - 1 for node in architecture.nodes),
        activations=tuple(node.activation for node in architecture.nodes),
        averaged=tuple(number - 1 for number in architecture.averaged),
    )


def _times(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask
