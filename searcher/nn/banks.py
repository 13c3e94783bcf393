"""Selects the weights that a network holds: of all candidates (a supernet) or of one architecture (a fixed network).

A wiring names each of its sites and the candidates there, and asks the bank which to build. Names of parameters do not
depend on the bank, so the weights of a fixed network are a subset of its supernet's.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, Literal, Protocol, TypeVar

from torch import Tensor, nn

Candidate = TypeVar("Candidate")
Site = tuple[str, ...]

Form = Literal["search", "final"]
"""How a wiring joins what a bank lets it build: as all architectures share it, or as one alone needs it."""


class Bank(Protocol):
    def select(self, site: Site, candidates: Iterable[Candidate]) -> list[Candidate]:
        """The candidates to build at `site`."""
        ...


class SharedOps:
    """The bank of a supernet: selects every candidate."""

    def select(self, site: Site, candidates: Iterable[Candidate]) -> list[Candidate]:
        return list(candidates)


class FixedOps:
    """The bank of a fixed network: `used` maps each site to the candidates that the architecture uses there."""

    def __init__(self, used: Mapping[Site, Set[Any]]) -> None:
        self._used = used

    def select(self, site: Site, candidates: Iterable[Candidate]) -> list[Candidate]:
        return [candidate for candidate in candidates if candidate in self._used[site]]


class Alternatives(nn.ModuleDict):
    """Modules of which a forward pass uses at most one, with all its parameters."""


def used_as_one(network: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters in their order, in groups of which a pass uses all or none: a group for each module of an
    `Alternatives`, and for each other parameter.
    """
    owners: dict[nn.Parameter, nn.Module] = {}
    for bank in network.modules():
        if isinstance(bank, Alternatives):
            owners |= {parameter: module for module in bank.values() for parameter in module.parameters()}
    runs = itertools.groupby(network.parameters(), key=lambda parameter: id(owners.get(parameter, parameter)))
    return [list(parameters) for _, parameters in runs]


class OperationBank(Alternatives):
    """The operations at one site, addressed by (source node, operation name): [B, C, H, W] -> its output."""

    def __init__(self, candidates: Iterable[tuple[int, str]], make: Callable[[int, str], nn.Module]) -> None:
        super().__init__({_key(source, name): make(source, name) for source, name in candidates})

    def forward(self, x: Tensor, source: int, name: str) -> Tensor:
        return self[_key(source, name)](x)


def _key(source: int, name: str) -> str:
    return f"from{source}_{name}"
