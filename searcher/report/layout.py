"""A layered layout for small directed graphs: boxes in ranks from top to bottom, and curves that touch no box.

Knows nothing of what the boxes mean. The steps are Sugiyama's: ranks, few crossings, coordinates. Lines from one box to
several others leave it as one *trunk*, which passes further ranks in a lane of its own and branches off at each reader.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from charts.spacing import separated

_LANE_WIDTH = 14.0
_GAP_X = 18.0
_GAP_Y = (30.0, 56.0)
"""Between ranks, px: the minimum, and the maximum to which the widest swing of a curve may stretch it."""
_ORDER_SWEEPS = 12
_RELAXATIONS = 60
_TRUNK_STIFFNESS = 3.0
"""Weight for keeping a trunk straight; a branch has 1."""


@dataclass(frozen=True)
class Item:
    """A box to place. `entries` are the x at which lines may enter, from its left edge, one for each source."""

    key: str
    width: float
    height: float
    sources: tuple[str, ...]
    entries: tuple[float, ...]


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    width: float
    height: float

    @property
    def centre(self) -> float:
        return self.left + self.width / 2

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height


@dataclass(frozen=True)
class Curve:
    """A line from one rank down to the next: straight within the ranks, and bent only in the gap between them."""

    start: tuple[float, float]
    bend: tuple[float, float]
    """The y at which the gap between the ranks begins, and at which it ends."""
    end: tuple[float, float]
    enters: bool
    """Whether it ends at a box; otherwise it ends in the lane of its trunk."""


@dataclass(frozen=True)
class Layout:
    width: float
    height: float
    boxes: Mapping[str, Box]
    entry_order: Mapping[str, tuple[int, ...]]
    """For each box, the indices of its sources, in the order in which they enter from left to right."""
    curves: Mapping[str, tuple[Curve, ...]]
    """By the box they come from."""


_Slot = tuple[str, int]
"""A place in a rank, (key, rank): the item `key`, or, in the ranks below it, the lane of its trunk."""


def lay_out(items: Sequence[Item], *, max_per_rank: int) -> Layout:
    """Place items, each of which comes after all its sources. At most `max_per_rank` boxes stand side by side."""
    by_key = {item.key: item for item in items}
    ranks = _ranks(items, max_per_rank)
    links = _links(items, ranks)
    levels = _with_few_crossings(_levels(links, ranks), links)
    entry_order = _entry_order(items, ranks, levels)

    def width(slot: _Slot) -> float:
        return by_key[slot[0]].width if ranks[slot[0]] == slot[1] else _LANE_WIDTH

    offsets = {  # of a link's lower end from the centre of its box
        (source, item.key): [
            item.entries[place] - item.width / 2
            for place, index in enumerate(entry_order[item.key])
            if item.sources[index] == source
        ]
        for item in items
        for source in dict.fromkeys(item.sources)
    }
    centres = _centres(levels, links, offsets, width)
    left = min(centre - width(slot) / 2 for slot, centre in centres.items())
    centres = {slot: centre - left for slot, centre in centres.items()}

    def ends(link: tuple[_Slot, _Slot]) -> list[float]:
        upper, lower = link
        return [centres[lower] + offset for offset in offsets.get((upper[0], lower[0]), [0.0])]

    tops, heights = [0.0], []
    for rank, level in enumerate(levels):
        heights.append(max(by_key[key].height for key, at in level if ranks[key] == at))
        swings = [abs(x - centres[link[0]]) for link in links if link[0][1] == rank for x in ends(link)]
        gap = min(max(_GAP_Y[0], max(swings, default=0.0) / 4), _GAP_Y[1])
        tops.append(tops[-1] + heights[-1] + gap)

    boxes = {
        item.key: Box(
            centres[item.key, ranks[item.key]] - item.width / 2,
            tops[ranks[item.key]] + (heights[ranks[item.key]] - item.height) / 2,
            item.width,
            item.height,
        )
        for item in items
    }
    curves: dict[str, list[Curve]] = {item.key: [] for item in items}
    for upper, lower in links:
        key, rank = upper
        start_y = boxes[key].bottom if ranks[key] == rank else tops[rank]
        bend = tops[rank] + heights[rank], tops[rank + 1]
        enters = lower[0] != key
        end_y = boxes[lower[0]].top if enters else tops[rank + 1]
        curves[key] += [Curve((centres[upper], start_y), bend, (x, end_y), enters) for x in ends((upper, lower))]
    return Layout(
        width=max(centre + width(slot) / 2 for slot, centre in centres.items()),
        height=tops[len(levels) - 1] + heights[-1],
        boxes=boxes,
        entry_order=entry_order,
        curves={key: tuple(found) for key, found in curves.items()},
    )


def _ranks(items: Sequence[Item], max_per_rank: int) -> dict[str, int]:
    """The rank of each item: as high up as its sources and the room in a rank allow."""
    ranks: dict[str, int] = {}
    for item in items:
        rank = max((ranks[source] + 1 for source in item.sources), default=0)
        while list(ranks.values()).count(rank) >= max_per_rank:
            rank += 1
        ranks[item.key] = rank
    return ranks


def _links(items: Sequence[Item], ranks: Mapping[str, int]) -> list[tuple[_Slot, _Slot]]:
    """All pieces of trunks and branches, each from a rank to the next; one for a source that a box reads twice."""
    last = dict(ranks)  # the rank in which a key's trunk ends
    for item in items:
        for source in item.sources:
            last[source] = max(last[source], ranks[item.key] - 1)
    trunks = [((key, rank), (key, rank + 1)) for key, end in last.items() for rank in range(ranks[key], end)]
    branches = [
        ((source, ranks[item.key] - 1), (item.key, ranks[item.key]))
        for item in items
        for source in dict.fromkeys(item.sources)
    ]
    return trunks + branches


def _levels(links: Sequence[tuple[_Slot, _Slot]], ranks: Mapping[str, int]) -> list[list[_Slot]]:
    slots = dict.fromkeys([*ranks.items(), *(lower for _, lower in links)])
    return [[slot for slot in slots if slot[1] == rank] for rank in range(max(ranks.values()) + 1)]


_Neighbours = Mapping[_Slot, Sequence[_Slot]]


def _with_few_crossings(levels: list[list[_Slot]], links: Sequence[tuple[_Slot, _Slot]]) -> list[list[_Slot]]:
    """Order each level by its neighbours' mean places, sweeping down and up; swap adjacent slots while that helps."""
    above, below = _neighbours(links)
    best, best_cost = levels, _cost(levels, links)
    order = [list(level) for level in levels]
    for sweep in range(_ORDER_SWEEPS):
        down = sweep % 2 == 0
        for rank in range(1, len(order)) if down else range(len(order) - 2, -1, -1):
            order[rank] = _by_neighbours(order[rank], above if down else below, _places(order))
        _swap_while_better(order, above, below)
        if (cost := _cost(order, links)) < best_cost:
            best, best_cost = [list(level) for level in order], cost
    return best


def _by_neighbours(level: Sequence[_Slot], neighbours: _Neighbours, places: Mapping[_Slot, float]) -> list[_Slot]:
    def wanted(slot: _Slot) -> float:
        others = neighbours.get(slot)
        return sum(places[other] for other in others) / len(others) if others else places[slot]

    return sorted(level, key=wanted)


def _swap_while_better(levels: list[list[_Slot]], above: _Neighbours, below: _Neighbours) -> None:
    """Swap adjacent slots while that lowers the total cost. Only the links of the two slots change."""
    places = _places(levels)

    def cost(first: _Slot, second: _Slot, place: float) -> tuple[int, float]:
        """The cost of `first` at `place` and `second` right after it."""
        crossings, length = 0, 0.0
        for neighbours in (above, below):
            firsts = [places[other] for other in neighbours.get(first, ())]
            seconds = [places[other] for other in neighbours.get(second, ())]
            crossings += sum(a > b for a in firsts for b in seconds)
            length += sum(abs(a - place) for a in firsts) + sum(abs(b - place - 1) for b in seconds)
        return crossings, length

    improved = True
    while improved:
        improved = False
        for level in levels:
            for left in range(len(level) - 1):
                first, second = level[left], level[left + 1]
                place = places[first]
                if cost(second, first, place) < cost(first, second, place):
                    level[left], level[left + 1] = second, first
                    places[second], places[first] = place, place + 1
                    improved = True


def _cost(levels: Sequence[Sequence[_Slot]], links: Sequence[tuple[_Slot, _Slot]]) -> tuple[int, float]:
    """The number of crossings, then the total sideways distance of all links."""
    places = _places(levels)
    crossings = 0
    for rank in range(len(levels)):
        ends = [(places[upper], places[lower]) for upper, lower in links if upper[1] == rank]
        crossings += sum((a - c) * (b - d) < 0 for (a, b), (c, d) in itertools.combinations(ends, 2))
    return crossings, sum(abs(places[upper] - places[lower]) for upper, lower in links)


def _entry_order(
    items: Sequence[Item], ranks: Mapping[str, int], levels: Sequence[Sequence[_Slot]]
) -> dict[str, tuple[int, ...]]:
    """The entries of each box, ordered by where their lines come from, so that the lines do not cross at the box."""
    places = _places(levels)
    order = {}
    for item in items:
        arrivals = [places[source, ranks[item.key] - 1] for source in item.sources]
        order[item.key] = tuple(sorted(range(len(arrivals)), key=arrivals.__getitem__))
    return order


def _centres(
    levels: Sequence[Sequence[_Slot]],
    links: Sequence[tuple[_Slot, _Slot]],
    offsets: Mapping[tuple[str, str], Sequence[float]],
    width: Callable[[_Slot], float],
) -> dict[_Slot, float]:
    """The centre of every slot, x: near its neighbours, in the level's order, with a gap to the slots beside it."""
    centres: dict[_Slot, float] = {}
    gaps = []
    for level in levels:
        gaps.append([(width(a) + width(b)) / 2 + _GAP_X for a, b in itertools.pairwise(level)])
        places = [0.0, *itertools.accumulate(gaps[-1])]
        centres |= {slot: place - places[-1] / 2 for slot, place in zip(level, places, strict=True)}
    pulls: dict[_Slot, list[tuple[_Slot, float, float]]] = {slot: [] for slot in centres}  # towards, offset, weight
    for upper, lower in links:
        is_trunk = upper[0] == lower[0]
        for offset in offsets.get((upper[0], lower[0]), [0.0]):
            weight = _TRUNK_STIFFNESS if is_trunk else 1.0
            pulls[upper].append((lower, offset, weight))
            pulls[lower].append((upper, -offset, weight))
    downwards = range(len(levels))
    for sweep in range(_RELAXATIONS):
        for rank in downwards if sweep % 2 == 0 else reversed(downwards):
            level = levels[rank]
            weights = [math.fsum(weight for _, _, weight in pulls[slot]) or 1.0 for slot in level]
            wanted = [
                math.fsum((centres[other] + offset) * weight for other, offset, weight in pulls[slot]) / total
                if pulls[slot]
                else centres[slot]
                for slot, total in zip(level, weights, strict=True)
            ]
            centres |= zip(level, separated(wanted, gaps[rank], weights), strict=True)
    return centres


def _neighbours(links: Sequence[tuple[_Slot, _Slot]]) -> tuple[dict[_Slot, list[_Slot]], dict[_Slot, list[_Slot]]]:
    above: dict[_Slot, list[_Slot]] = {}
    below: dict[_Slot, list[_Slot]] = {}
    for upper, lower in links:
        above.setdefault(lower, []).append(upper)
        below.setdefault(upper, []).append(lower)
    return above, below


def _places(levels: Sequence[Sequence[_Slot]]) -> dict[_Slot, float]:
    """The position of each slot in its level, counted from the middle."""
    return {slot: place - (len(level) - 1) / 2 for level in levels for place, slot in enumerate(level)}
