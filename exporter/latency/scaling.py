"""Networks of the same architecture at other widths, until one takes a given time: fitted by measurement.

All of a network's widths are multiplied by one factor; where no factor gives the time, for narrow networks have few
widths, single ones are changed. Then widths that end within a block of channels, which kernels compute as a whole, are
filled up as far as the time allows. Knows nothing of training.
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
"""What networks take, measured, as shares of the time that they are to take."""
IsEnough = Callable[[float], bool]
TOLERANCE = 0.03
"""How far from the time it is to take a network may lie, as a share of it."""
# Of kernels with AVX-512. Those of AVX2 compute half of it, of which it is a multiple.
_BLOCK = 16
# Multiply-adds of a network with widths filled up, as a multiple of those before: with more it is not worth measuring.
_MOST_FILLED = 2.0
_MOST_ROUNDS = 8
# Then single widths are changed one after the other.
_MOST_CHANGES = 3
# What a step outside of all widths tried may multiply a factor by, and how many factors are looked at in between.
_LONGEST_STEP = 3.0
_NUM_FACTORS = 48
_OVERHANG = 1.3


@dataclass(frozen=True)
class Fitted:
    """A network and the time it took when it was fitted, as a share of the time it was to take."""

    spec: Spec
    ratio: float

    @property
    def fits(self) -> bool:
        return abs(self.ratio - 1) <= TOLERANCE


def is_near(ratio: float) -> bool:
    """Whether a network takes what it is to take, give or take half the tolerance."""
    return abs(ratio - 1) <= TOLERANCE / 2


def fit_widths(specs: Sequence[Spec], *, shares: Shares, is_enough: Sequence[IsEnough] | None = None) -> list[Fitted]:
    """Each network at the widths, of those tried, that take the wanted time and compute most in it.

    One that has no such widths comes at those that take nearest to it, and says that it does not fit.

    Args: shares: measures the networks of a round, all in one sitting. is_enough: of each network, whether such a share
    of the time will do; by default where that is near 1.
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
    """Latencies as shares of that of a network which is measured with them, so that the machine's pace cancels."""

    def shares(networks: Sequence[Spec]) -> list[float]:
        found = measure([like, *networks], batch=batch, threads=threads, effort=FITTING)
        return [ratio.value for ratio in found.ratios[1:]]

    return shares


@dataclass
class _Widths:
    """The widths tried of one network."""

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
        """The best network with one of its widths a step nearer to the wanted time; none where that fits well."""
        if self.is_enough(self.best.ratio):
            return []
        step = -MULTIPLE if self.best.ratio > 1 else MULTIPLE
        known = [one.spec for one in (*self.tried.values(), *self.tried_changed)]
        places = range(len(widths(self.best.spec)))
        networks = [with_changes(self.best.spec, {place: step}) for place in places]
        return [network for network in networks if network is not None and network not in known]

    def filled(self) -> list[Spec]:
        """The best network with one of the widths that end within a block filled up, or all; none where it is slow."""
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
        """The next one to try; None where one fits well, or none is left that is nearer."""
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
            # Times grow about as a power of the width.
            times = np.log([self.tried[low].ratio, self.tried[high].ratio])
            wanted = float(np.exp(np.interp(0.0, times, np.log([low, high]))))
        # Beyond both, too: onnxruntime is fast on whole blocks of channels, so a wider network may take less time.
        factors = [wanted, *np.geomspace(low / _OVERHANG, high * _OVERHANG, _NUM_FACTORS).tolist()]
        factors.sort(key=lambda factor: abs(math.log(factor / wanted)))
        known = [scaled(self.spec, factor) for factor in self.tried]
        return next((factor for factor in factors if scaled(self.spec, factor) not in known), None)


def _multiply_adds(spec: Spec) -> int:
    return complexity_of(spec).total.multiply_adds
