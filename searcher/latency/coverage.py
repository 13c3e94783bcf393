"""For each space, architectures that between them have every fused block that any architecture of the space has."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from searcher.arch.macro import Layer, MacroArchitecture, MacroSpace, skip_candidates
from searcher.arch.micro import NUM_INPUTS, SLOTS, Cell, MicroArchitecture, MicroSpace, Node
from searcher.arch.spec import Spec
from searcher.arch.stages import Stage, StagesArchitecture, StagesSpace, Stem
from searcher.arch.tasks import ImageClassification
from searcher.latency.blocks import Block, blocks_of


def blocks_of_space(space_name: str, space: Any, network: Any, task: ImageClassification) -> list[Block]:
    """Every block of the deployed networks of a space, in order, once. network: their size.

    Raises: ConfigError: its networks are not of images.
    """
    specs = (Spec(space_name, one, network, task) for one in _covering(space_name, space))
    return sorted({block for spec in specs for block in blocks_of(spec)})


def _covering(space_name: str, space: Any) -> Iterator[Any]:
    return _FAMILIES[space_name](space) if space_name in _FAMILIES else iter([None])


def _stages(space: StagesSpace) -> Iterator[StagesArchitecture]:
    """A block depends on its operation, the stem's stride, and the widths before and after it."""
    neighbours = [space.stem_channels, *space.stage_channels]
    rounds = max(map(len, neighbours)) ** 2
    for stride, operation in itertools.product(space.stem_strides, space.operations):
        for number in range(rounds):
            # Over all rounds, every width of a stage follows every width of the one before it.
            widths = [
                options[(number // len(neighbours[0]) if position % 2 else number) % len(options)]
                for position, options in enumerate(neighbours)
            ]
            stages = [
                Stage(width, (operation,) * min(2, most))
                for width, most in zip(widths[1:], space.max_layers, strict=True)
            ]
            yield StagesArchitecture(Stem(widths[0], stride), tuple(stages))


def _micro(space: MicroSpace) -> Iterator[MicroArchitecture]:
    """A block depends on its operation, on whether it reads an input of the cell, and on the cells' loose ends."""
    last = NUM_INPUTS + space.num_nodes - 1
    for operation in space.operations:
        for source in (0, last - 1):
            nodes = [Node((min(source, at - 1),) * 2, (operation,) * 2) for at in range(NUM_INPUTS, last + 1)]
            yield MicroArchitecture(tuple(nodes), tuple(nodes))
    for count in range(1, last + 1):
        cell = _cell_reading(space, count)
        yield MicroArchitecture(cell, cell)


def _cell_reading(space: MicroSpace, count: int) -> Cell:
    """A cell whose nodes read the first `count` of its nodes and inputs, or as many as can be read."""
    unread = 0
    nodes = []
    for index in range(NUM_INPUTS, NUM_INPUTS + space.num_nodes):
        picks = [0, 0]
        for slot in SLOTS:
            if unread < min(count, index):
                picks[slot] = unread
                unread += 1
        nodes.append(Node((picks[0], picks[1]), (space.operations[0],) * 2))
    return tuple(nodes)


def _macro(space: MacroSpace) -> Iterator[MacroArchitecture]:
    """A block depends on its operation, on its layer, and on how many skips the layer has."""
    for operation, count in itertools.product(space.operations, range(space.num_layers)):
        layers = [Layer(operation, tuple(skip_candidates(index))[:count]) for index in range(1, space.num_layers + 1)]
        yield MacroArchitecture(tuple(layers))


_FAMILIES: dict[str, Callable[[Any], Iterator[Any]]] = {"stages": _stages, "micro": _micro, "macro": _macro}
