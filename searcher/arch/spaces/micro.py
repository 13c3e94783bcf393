"""The micro space: a normal and a reduction cell, repeated to make a convolutional network.

A cell has two inputs, nodes 0 (the output of the cell before the previous one) and 1 (of the previous one). Every
further node adds up two operations, each applied to an earlier node. Nodes that no other node reads, the *loose ends*,
make the cell's output.

Source: Pham et al. 2018, section 2.4.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from foundation.document import ConfigError, Problems, unknown
from searcher.arch.decisions import Anchor, Choice, Inputs, Pointer, Step
from searcher.arch.errors import ArchitectureError
from searcher.arch.limits import MAX_DEPTH, MAX_WIDTH, check_at_most
from searcher.arch.operations import CELL_COSTS, check_operations
from searcher.arch.reading import check_number, read_entries, read_list, read_numbers, read_object
from searcher.arch.stems import check_stem_stride
from searcher.arch.tasks import IMAGE_CLASSIFICATION

# Order matters: the controller's index is the position in this tuple, unless a space has other operations.
PUBLISHED_OPERATIONS = ("sep_conv_3x3", "sep_conv_5x5", "avg_pool_3x3", "max_pool_3x3", "identity")
NUM_INPUTS = 2
SLOTS = (0, 1)
CellKind = Literal["normal", "reduction"]
CELL_KINDS: tuple[CellKind, CellKind] = ("normal", "reduction")


@dataclass(frozen=True)
class Node:
    """A node adds operations[0] of node inputs[0] and operations[1] of node inputs[1]."""

    inputs: tuple[int, int]
    operations: tuple[str, str]


Cell = tuple[Node, ...]


def loose_ends(cell: Cell) -> tuple[int, ...]:
    """The nodes that no node of the cell reads, in order; the cell's inputs count when they are unused."""
    used = {source for node in cell for source in node.inputs}
    return tuple(i for i in range(NUM_INPUTS + len(cell)) if i not in used)


@dataclass(frozen=True)
class MicroArchitecture:
    """Both cells. Node k of the tuple is node k + 2 of the cell.

    Raises: ArchitectureError: a node reads itself or a later one, or an operation is unknown.
    """

    normal: Cell
    reduction: Cell

    def __post_init__(self) -> None:
        problems = Problems("architecture")
        for kind in CELL_KINDS:
            for position, node in enumerate(self.cell(kind)):
                for problem in _node_problems(position, node.inputs, node.operations):
                    problems.add(f"{kind}[{position}].{problem}")
        problems.raise_if_any(ArchitectureError)

    def cell(self, kind: CellKind) -> Cell:
        return self.normal if kind == "normal" else self.reduction

    def used(self) -> dict[tuple[str, ...], set[Any]]:
        """Returns the candidates chosen at each site of a network of this architecture (see `nn/banks.py`)."""
        sites: dict[tuple[str, ...], set[Any]] = {}
        for kind in CELL_KINDS:
            cell = self.cell(kind)
            sites[kind, "leaves"] = set(loose_ends(cell))
            for index, node in enumerate(cell, start=NUM_INPUTS):
                for slot in SLOTS:
                    sites[kind, str(index), str(slot)] = {(node.inputs[slot], node.operations[slot])}
        return sites


@dataclass(frozen=True)
class MicroSize:
    """The number of cells and their width: the `network` section of a spec, and of a search's config."""

    cells: int
    """Number of all cells, including the two reduction cells."""
    channels: int
    """Width of the first cell; each reduction cell doubles it."""
    stem_stride: int = 1
    """Ratio of the picture's side to the side of the first cell's input, a power of two."""

    def __post_init__(self) -> None:
        if self.cells < 3:
            raise ConfigError(f"cells is {self.cells}; at least 3 are needed, two of which reduce")
        if self.channels < 2:
            raise ConfigError(f"channels is {self.channels}; at least 2 are needed")
        check_at_most(MAX_DEPTH, cells=self.cells)
        check_at_most(MAX_WIDTH, channels=self.channels)
        check_stem_stride("stem_stride", self.stem_stride)

    @property
    def reduction_cells(self) -> tuple[int, int]:
        """Positions of the two reduction cells. Source: the authors' code; 8 cells give 2 and 5, 17 give 5 and 11."""
        third = (self.cells - 2) // 3
        return third, 2 * third + 1

    def kind(self, position: int) -> CellKind:
        return "reduction" if position in self.reduction_cells else "normal"


@dataclass(frozen=True)
class MicroSpace:
    """All micro architectures with `num_nodes` nodes a cell, the two inputs not counted, of the given operations."""

    num_nodes: int = 5
    operations: tuple[str, ...] = PUBLISHED_OPERATIONS
    """Operations of a node; by default those of the paper."""

    def __post_init__(self) -> None:
        if self.num_nodes < 1:
            raise ConfigError(f"num_nodes is {self.num_nodes}; a cell needs at least one node")
        check_at_most(MAX_DEPTH, num_nodes=self.num_nodes)
        check_operations(self.operations, CELL_COSTS)

    @property
    def size(self) -> int:
        """The number of ways to make all decisions.

        The paper counts (5 · (B - 2)!)^4 with B nodes in all, which leaves out repeated factors of 5; this is exact.
        """
        per_cell = math.prod(
            (num_candidates * len(self.operations)) ** 2
            for num_candidates in range(NUM_INPUTS, NUM_INPUTS + self.num_nodes)
        )
        return per_cell**2

    def steps(self) -> tuple[Step, ...]:
        """The controller's decisions, in order: for each cell and node, both inputs, then both operations."""
        sequence: list[Step] = []
        for kind in CELL_KINDS:
            sequence.append(Inputs(NUM_INPUTS))
            for num_candidates in range(NUM_INPUTS, NUM_INPUTS + self.num_nodes):
                sequence += [Pointer(num_candidates)] * 2 + [Choice(self.operations, scope=kind)] * 2 + [Anchor()]
        return tuple(sequence)

    def from_tokens(self, tokens: Sequence[int]) -> MicroArchitecture:
        """The architecture of a row of tokens (4 a node: input, input, operation, operation)."""
        nodes = [
            Node((first, second), (self.operations[op_first], self.operations[op_second]))
            for first, second, op_first, op_second in _rows_of_4(tokens, 2 * self.num_nodes)
        ]
        return MicroArchitecture(tuple(nodes[: self.num_nodes]), tuple(nodes[self.num_nodes :]))

    def to_tokens(self, architecture: MicroArchitecture) -> list[int]:
        """The inverse of `from_tokens`."""
        return [
            token
            for kind in CELL_KINDS
            for node in architecture.cell(kind)
            for token in (*node.inputs, *map(self.operations.index, node.operations))
        ]

    def random(self, rng: random.Random) -> MicroArchitecture:
        """An architecture with every decision uniform and independent."""

        def cell() -> Cell:
            return tuple(
                Node(
                    (rng.randrange(num_candidates), rng.randrange(num_candidates)),
                    (rng.choice(self.operations), rng.choice(self.operations)),
                )
                for num_candidates in range(NUM_INPUTS, NUM_INPUTS + self.num_nodes)
            )

        return MicroArchitecture(cell(), cell())


def to_document(architecture: MicroArchitecture) -> dict[str, Any]:
    """The `architecture` section of a spec."""
    return {
        kind: [
            {"node": index, "inputs": list(node.inputs), "operations": list(node.operations)}
            for index, node in enumerate(architecture.cell(kind), start=NUM_INPUTS)
        ]
        for kind in CELL_KINDS
    }


def from_document(document: object, *, place: str, problems: Problems) -> MicroArchitecture | None:
    """Read the `architecture` section of a spec; None, with the reasons noted, if it breaks a rule."""
    before = len(problems)
    found = read_object(document, place=place, keys=CELL_KINDS, problems=problems)
    if found is None:
        return None
    cells = {
        kind: tuple(_read_cell(found[kind], place=f"{place}.{kind}", problems=problems))
        for kind in CELL_KINDS
        if kind in found
    }
    if len(problems) == before and len(cells["normal"]) != len(cells["reduction"]):
        problems.add(
            f"{place}.reduction has {len(cells['reduction'])} nodes, but {place}.normal has {len(cells['normal'])}"
        )
    return None if len(problems) > before else MicroArchitecture(cells["normal"], cells["reduction"])


def from_published(text: str) -> MicroArchitecture:
    """Read the published encoding: per node `input operation input operation`, normal cell first.

    Raises: ArchitectureError: not whole numbers, not a whole number of nodes, or an index out of range.
    Source: the authors' README; nodes are numbered from 2, operations as in CELL_COSTS.
    """
    source, names = "published encoding", tuple(CELL_COSTS)
    numbers = read_numbers(text, source=source)
    if not numbers or len(numbers) % 8:
        raise ArchitectureError(
            source, [f"{len(numbers)} numbers; expected 4 for each node of both cells, e.g. 40 for 5 nodes a cell"]
        )
    rows = list(_rows_of_4(numbers, len(numbers) // 4))
    for position, (_, first, _, second) in enumerate(rows):
        for operation in (first, second):
            if not 0 <= operation < len(names):
                raise ArchitectureError(
                    source,
                    [f"row {position + 1}: operation {operation}; expected 0 to {len(names) - 1}"],
                )
    nodes = [Node((a, b), (names[op_a], names[op_b])) for a, op_a, b, op_b in rows]
    half = len(nodes) // 2
    return MicroArchitecture(tuple(nodes[:half]), tuple(nodes[half:]))


def to_published(architecture: MicroArchitecture) -> str:
    """The inverse of `from_published`: two lines, the normal and the reduction cell."""
    names = tuple(CELL_COSTS)
    return "\n".join(
        " ".join(
            f"{source} {names.index(operation)}"
            for node in architecture.cell(kind)
            for source, operation in zip(node.inputs, node.operations, strict=True)
        )
        for kind in CELL_KINDS
    )


def _rows_of_4(numbers: Sequence[int], num_rows: int) -> Iterator[tuple[int, int, int, int]]:
    if len(numbers) != 4 * num_rows:
        raise ArchitectureError("tokens", [f"{len(numbers)} numbers; expected {4 * num_rows}"])
    for start in range(0, len(numbers), 4):
        first, second, third, fourth = numbers[start : start + 4]
        yield first, second, third, fourth


def _read_cell(document: object, *, place: str, problems: Problems) -> Iterator[Node]:
    entries = read_list(document, place=place, entry="node", problems=problems)
    keys = ("node", "inputs", "operations")
    for position, node_place, node in read_entries(entries, place=place, keys=keys, problems=problems):
        before = len(problems)
        check_number(node, "node", place=node_place, position=position, first=NUM_INPUTS, problems=problems)
        for key in ("inputs", "operations"):
            if not isinstance(node[key], list) or len(node[key]) != 2:
                problems.add(f"{node_place}.{key} must be a list of two")
        if len(problems) > before:
            continue
        for problem in _node_problems(position, node["inputs"], node["operations"]):
            problems.add(f"{node_place}.{problem}")
        if len(problems) == before:
            yield Node(tuple(node["inputs"]), tuple(node["operations"]))


def _node_problems(position: int, inputs: Sequence[object], operations: Sequence[object]) -> Iterator[str]:
    node = position + NUM_INPUTS
    for slot, source in enumerate(inputs):
        if type(source) is not int or not 0 <= source < node:
            yield f"inputs[{slot}] is {source!r}, but node {node} can only read nodes 0 to {node - 1}"
    for slot, operation in enumerate(operations):
        if not isinstance(operation, str) or operation not in CELL_COSTS:
            yield f"operations[{slot}]: {unknown('operation', operation, CELL_COSTS)}"


def stem_stride_of(architecture: MicroArchitecture, size: MicroSize) -> int:
    """The ratio of the picture's side to the side of the first layers' input."""
    return size.stem_stride


def with_stem_stride(
    architecture: MicroArchitecture, size: MicroSize, stride: int
) -> tuple[MicroArchitecture, MicroSize]:
    """The same network for pictures of another size."""
    return architecture, replace(size, stem_stride=stride)


SPACE = MicroSpace
SIZE = MicroSize
TASK_KIND = IMAGE_CLASSIFICATION
LACKS: dict[str, str] = {}
