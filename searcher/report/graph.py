"""An architecture as graphs to be shown: what reads what through which operation, and the network around it.

The one description behind the drawing and the text. How the architectures of a space look as graphs says its view,
`views/<space>.py`; nothing here knows of pixels, SVG or torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from searcher.arch.spec import Spec
from searcher.spaces import search_space

Role = Literal["input", "node", "output"]
Join = Literal["sum", "concat", "mean"]


@dataclass(frozen=True)
class GraphEdge:
    """What a node reads, and the operation it applies to it; without one, it takes it as it is."""

    source: str
    operation: str | None = None


@dataclass(frozen=True)
class GraphNode:
    """Joins what its edges bring; an `input` has none."""

    name: str
    """Unique in its graph."""
    edges: tuple[GraphEdge, ...] = ()
    role: Role = "node"
    join: Join = "sum"
    caption: str = ""
    """A few words on what it is, where the name does not say it."""
    shape: tuple[int, ...] = ()
    """Of its output: height, width, channels. Empty where it is different every time the graph is repeated."""
    note: str = ""
    """Said above it in a chain, with its shape: what begins with it."""


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which each comes after all it reads."""

    title: str
    caption: str
    nodes: tuple[GraphNode, ...]
    is_chain: bool = False
    """Whether every node applies an operation to the one before it; all else it reads are skips."""


@dataclass(frozen=True)
class Stage:
    """A stretch of the network: `count` equal parts one after another, each with an output of `shape`."""

    name: str
    shape: tuple[int, ...]
    """Height, width, channels; or the number of features alone."""
    count: int = 1
    width: int | None = None
    """Channels of the operations inside, where there are some."""
    reduces: bool = False
    """Whether it halves the map."""

    @property
    def title(self) -> str:
        return f"{self.count} × {self.name}" if self.count > 1 else self.name


def graphs_of(spec: Spec) -> tuple[Graph, ...]:
    """The architecture's graphs: both cells of micro, the layers of macro and of stages, the cell of recurrent."""
    return search_space(spec.space).view.graphs(spec)


def outline_of(spec: Spec) -> tuple[Stage, ...]:
    """The whole network from its input to its output."""
    return search_space(spec.space).view.outline(spec)
