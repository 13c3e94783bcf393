"""Fits the widths of a network to a given time, by measuring the same architecture at other widths.

All of a network's widths are multiplied by one factor. If no factor gives the time, since narrow networks have few
possible widths, single widths are changed. Then widths that end within a block of channels, which kernels compute as a
whole, are filled up as far as the time allows. Knows nothing of training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from exporter.latency.measure import FITTING, measure
from searcher.arch.spec import Spec
from searcher.arch.widths import MULTIPLE, scaled, widths, with_changes
from searcher.nn.complexity import complexity_of

Shares = Callable[[Sequence[Spec]], Sequence[float]]
"""Measures networks; returns their latencies as fractions of the wanted time."""
IsEnough = Callable[[float], bool]
TOLERANCE = 0.03
"""Accepted difference of a network from the wanted time, as a fraction of it."""
# Channels in a block of AVX-512 kernels; a multiple of AVX2's blocks, which have half as many.
_BLOCK = 16
# Most multiply-adds of a network with widths filled up that is worth measuring, as a multiple of those before.
_MOST_FILLED = 2.0
_MOST_ROUNDS = 8
# Rounds in which single widths are changed, after that.
_MOST_CHANGES = 3
# Largest ratio of a step beyond all factors tried, and number of factors considered in a range.
_LONGEST_STEP = 3.0
_NUM_FACTORS = 48
_OVERHANG = 1.3


@dataclass(frozen=True)
class Fitted:
    """A network and its latency when it was fitted, as a fraction of the wanted time."""

    spec: Spec
    ratio: float

    @property
    def fits(self) -> bool:
        return abs(self.ratio - 1) <= TOLERANCE


def is_near(ratio: float) -> bool:
    """Whether a network's time is within half the tolerance of the wanted time."""
    return abs(ratio - 1) <= TOLERANCE / 2


def fit_widths(specs: Sequence[Spec], *, shares: Shares, is_enough: Sequence[IsEnough] | None = None) -> list[Fitted]:
    """Returns each network at those widths, of the ones tried, that take the wanted time and compute most in it.

    A network without such widths comes at those nearest to the wanted time; see `Fitted.fits`.

    Args: shares: measures the networks of a round together. is_enough: for each network, whether a fraction of the
    wanted time is accepted; `is_near` by default.
    """
    checks = [is_near] * len(specs) if is_enough is None else is_enough
    searches = [_Widths(spec, check) for spec, check in zip(specs, checks, strict=True)]
    for _ in range(_MOST_ROUNDS):
        asked = [(search, factor) for search in searches if (factor := search.next_factor()) is not None]
        if not asked:
            break
        networks = [scaled(search.spec, factor) for search, factor in asked]
        for (search, factor), network, share in zip(asked, networks, shares(networks), strict=True):
            search.add(factor, network, share)
    for _ in range(_MOST_CHANGES):
        changes = [(search, network) for search in searches for network in search.changed()]
        if not changes:
            break
        for (search, network), share in zip(changes, shares([network for _, network in changes]), strict=True):
            search.add_changed(network, share)
    filled = [(search, network) for search in searches for network in search.filled()]
    if filled:
        for (search, network), share in zip(filled, shares([network for _, network in filled]), strict=True):
            search.add_changed(network, share)
    return [search.best for search in searches]


def shares_of(like: Spec | bytes, *, batch: int, threads: int) -> Shares:
    """Returns `Shares` of the latency of `like`, which is measured with the networks, so that the pace cancels."""

    def shares(networks: Sequence[Spec]) -> list[float]:
        found = measure([like, *networks], batch=batch, threads=threads, effort=FITTING)
        return [ratio.value for ratio in found.ratios[1:]]

    return shares


@dataclass
class _Widths:
    """The widths tried for one network."""

    spec: Spec
    is_enough: IsEnough
    tried: dict[float, Fitted] = field(default_factory=dict)
    """By factor."""
    tried_changed: list[Fitted] = field(default_factory=list)

    @property
    def best(self) -> Fitted:
        tried = [*self.tried.values(), *self.tried_changed]
        if enough := [one for one in tried if self.is_enough(one.ratio)]:
            return max(enough, key=lambda one: _multiply_adds(one.spec))
        return min(tried, key=lambda one: abs(math.log(one.ratio)))

    def add(self, factor: float, network: Spec, ratio: float) -> None:
        self.tried[factor] = Fitted(network, ratio)

    def changed(self) -> list[Spec]:
        """Returns the best network with each single width a step nearer to the wanted time; empty if it fits well."""
        if self.is_enough(self.best.ratio):
            return []
        step = -MULTIPLE if self.best.ratio > 1 else MULTIPLE
        known = [one.spec for one in (*self.tried.values(), *self.tried_changed)]
        places = range(len(widths(self.best.spec)))
        networks = [with_changes(self.best.spec, {place: step}) for place in places]
        return [network for network in networks if network is not None and network not in known]

    def filled(self) -> list[Spec]:
        """Returns the best network with each partial block filled up, and with all; empty if its time does not fit."""
        best = self.best
        if not self.is_enough(best.ratio):
            return []
        steps = [-width % _BLOCK for width in widths(best.spec)]
        each = [with_changes(best.spec, {place: step}) for place, step in enumerate(steps) if step]
        all_of_them = [with_changes(best.spec, dict(enumerate(steps)))] if len(each) > 1 else []
        most = _MOST_FILLED * _multiply_adds(best.spec)
        return [one for one in (*each, *all_of_them) if one is not None and _multiply_adds(one) <= most]

    def add_changed(self, network: Spec, ratio: float) -> None:
        self.tried_changed.append(Fitted(network, ratio))

    def next_factor(self) -> float | None:
        """Returns the next factor to try; None if one fits well, or none is left that may be nearer."""
        if not self.tried:
            return 1.0
        if self.is_enough(self.best.ratio):
            return None
        below = max((factor for factor, one in self.tried.items() if one.ratio < 1), default=None)
        above = min((factor for factor, one in self.tried.items() if one.ratio >= 1), default=None)
        if below is None:
            assert above is not None
            low, high = above / _LONGEST_STEP, above
            wanted = above / self.tried[above].ratio
        elif above is None:
            low, high = below, below * _LONGEST_STEP
            wanted = below / self.tried[below].ratio
        else:
            low, high = below, above
            # Times grow roughly as a power of the width.
            times = np.log([self.tried[low].ratio, self.tried[high].ratio])
            wanted = float(np.exp(np.interp(0.0, times, np.log([low, high]))))
        # Beyond both, too: onnxruntime is faster on whole blocks of channels, so a wider network may take less time.
        factors = [wanted, *np.geomspace(low / _OVERHANG, high * _OVERHANG, _NUM_FACTORS).tolist()]
        factors.sort(key=lambda factor: abs(math.log(factor / wanted)))
        known = [scaled(self.spec, factor) for factor in self.tried]
        return next((factor for factor in factors if scaled(self.spec, factor) not in known), None)


def _multiply_adds(spec: Spec) -> int:
    return complexity_of(spec).total.multiply_adds
