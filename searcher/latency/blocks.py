"""The fused blocks of a deployed image network, as a runtime executes them, each with its channels and map size.

A runtime folds norms into convolutions and runs a block as a whole, so the time of a block depends only on the fields
of `Block`. Knows specs, and nothing of how blocks compute or how they are timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from foundation.document import ConfigError
from searcher.arch.spec import Spec
from searcher.arch.stems import stem_steps
from searcher.arch.tasks import ImageClassification
from searcher.spaces import LatencyView, search_space


class Block(NamedTuple):
    """Takes a map of `height` × `width` pixels and `in_channels` channels to `out_channels` channels, at a stride."""

    operation: str
    """An operation of the space, or one of STEM, PROJECT, HALVE, CONCAT, SUM and HEAD."""
    in_channels: int
    out_channels: int
    height: int
    width: int
    stride: int = 1


STEM = "stem"
"""3×3 convolution, norm."""
PROJECT = "project"
"""ReLU, 1×1 convolution, norm."""
HALVE = "halve"
"""Factorised reduction."""
CONCAT = "concat"
"""Tensors of equal width, side by side: in_channels is the width of one of them."""
SUM = "sum"
"""Sum of two tensors."""
HEAD = "head"
"""The mean over the map, and a linear layer."""


def blocks_of(spec: Spec) -> list[Block]:
    """The blocks of a spec's network, from its input to its output.

    Raises: ConfigError: it is not an image network.
    """
    return list(_view(spec.space).blocks(spec))


def blocks_of_space(space_name: str, space: Any, network: Any, task: ImageClassification) -> list[Block]:
    """Every distinct block of the deployed networks of a space, sorted. network: their size.

    Raises: ConfigError: its networks are not image networks.
    """
    specs = (Spec(space_name, one, network, task) for one in _view(space_name).covering(space))
    return sorted({block for spec in specs for block in blocks_of(spec)})


def stem_blocks(in_channels: int, out_channels: int, height: int, width: int, *, stride: int) -> Iterator[Block]:
    """Yields the blocks of a stem, each of which halves the map; at stride 1, one block that keeps its size."""
    for step in stem_steps(stride):
        yield Block(STEM, in_channels, out_channels, height, width, step)
        in_channels, height, width = out_channels, after(height, step), after(width, step)


def after(side: int, stride: int) -> int:
    """A side of a map after a stride, in pixels."""
    return -(-side // stride)


def _view(space_name: str) -> LatencyView:
    view = search_space(space_name).latency_view
    if view is None:
        raise ConfigError(f"networks of the space {space_name} have no latency to search for; those of images have")
    return view
