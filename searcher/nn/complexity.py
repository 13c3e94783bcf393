"""The cost of a spec's network, by arithmetic alone: the network is not built, and torch is not loaded.

Three figures, for the final form without its auxiliary head, which is for training only:
  parameters     elements of all weights, including those of norms; running averages are not parameters;
  multiply_adds  of convolutions and matrix products, for one image or one token, including those with padding;
  activations    elements of the outputs of convolutions and matrix products, for one image or one token.

A space's view, `views/<space>.py`, mirrors its wiring; the tests compare its figures with torch's counts.
Source: Radosavovic et al. 2020, "Designing Network Design Spaces", for activations as a measure.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from searcher.arch.costs import Cost, conv_norm, total
from searcher.arch.spec import Spec
from searcher.arch.stems import stem_steps
from searcher.spaces import search_space


@dataclass(frozen=True)
class Part:
    """A named part of the network: the stem, a cell, the classifier."""

    name: str
    shape: tuple[int, ...]
    """Of its output: height, width, channels; or only the number of features."""
    cost: Cost


@dataclass(frozen=True)
class Complexity:
    """The parts of a network from its input to its output, each with its cost."""

    parts: tuple[Part, ...]

    @property
    def total(self) -> Cost:
        return total(part.cost for part in self.parts)

    def to_document(self) -> dict[str, Any]:
        """As JSON: `{"total": {"parameters": …}, "parts": [{"name": …, "shape": …, …}]}`."""
        parts = [{"name": part.name, "shape": list(part.shape), **asdict(part.cost)} for part in self.parts]
        return {"total": asdict(self.total), "parts": parts}


def complexity_of(spec: Spec) -> Complexity:
    """The cost of a spec's network."""
    return Complexity(tuple(search_space(spec.space).view.parts(spec)))


def stem_part(input_shape: tuple[int, ...], out_channels: int, *, stride: int) -> Part:
    """The stem of a convolutional network. Args: input_shape: H, W, C."""
    height, width, in_channels = input_shape
    cost = Cost()
    for step in stem_steps(stride):
        height, width = math.ceil(height / step), math.ceil(width / step)
        cost += conv_norm(height * width, in_channels, out_channels, kernel_size=3)
        in_channels = out_channels
    return Part("stem", (height, width, out_channels), cost)
