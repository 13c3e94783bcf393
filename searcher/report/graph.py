"""An architecture as graphs to show: which node reads which others through which operations, and the network around it.

The drawing and the text are both made from this description. A space's view, `views/<space>.py`, turns its
architectures into graphs. Knows nothing of pixels, SVG or torch.
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
    """A source that a node reads, and the operation applied to it; None leaves it unchanged."""

    source: str
    operation: str | None = None


@dataclass(frozen=True)
class GraphNode:
    """A node, which joins the results of its edges; an `input` has no edges."""

    name: str
    """Unique in its graph."""
    edges: tuple[GraphEdge, ...] = ()
    role: Role = "node"
    join: Join = "sum"
    caption: str = ""
    """A few words on what the node is, if the name is not enough."""
    shape: tuple[int, ...] = ()
    """Of its output: height, width, channels. Empty if it differs between repetitions of the graph."""
    note: str = ""
    """Shown above the node in a chain, with its shape: what begins at this node."""


@dataclass(frozen=True)
class Graph:
    """Nodes, each after all nodes that it reads."""

    title: str
    caption: str
    nodes: tuple[GraphNode, ...]
    is_chain: bool = False
    """Whether every node applies an operation to the node before it; all its other sources are skips."""


@dataclass(frozen=True)
class Stage:
    """A stretch of the network: `count` equal parts one after another, each with an output of `shape`."""

    name: str
    shape: tuple[int, ...]
    """Height, width, channels; or only the number of features."""
    count: int = 1
    width: int | None = None
    """Channels of the operations inside; None if there are none."""
    reduces: bool = False
    """Whether it halves the map."""

    @property
    def title(self) -> str:
        return f"{self.count} × {self.name}" if self.count > 1 else self.name


def graphs_of(spec: Spec) -> tuple[Graph, ...]:
    """The architecture's graphs: both cells of micro, the layers of macro and of stages, the cell of recurrent."""
    return search_space(spec.space).view.graphs(spec)


def outline_of(spec: Spec) -> tuple[Stage, ...]:
    """The stages of the whole network from its input to its output."""
    return search_space(spec.space).view.outline(spec)
