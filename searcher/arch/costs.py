"""Calculates the cost of layers without running them: parameters, multiply-adds, and elements of outputs.

`area` is the number of pixels of a layer's output: height times width. The cost of an operation is listed with its
name, in the table of its space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Sides = tuple[int, int]
"""Height and width of a map."""


@dataclass(frozen=True)
class Cost:
    """The cost of a layer, or the sum over several layers."""

    parameters: int = 0
    multiply_adds: int = 0
    activations: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.parameters + other.parameters,
            self.multiply_adds + other.multiply_adds,
            self.activations + other.activations,
        )


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    return sum(costs, start=Cost())


def conv(area: int, in_channels: int, out_channels: int, *, kernel_size: int = 1, groups: int = 1) -> Cost:
    """The cost of a convolution without bias."""
    weights = kernel_size**2 * (in_channels // groups) * out_channels
    return Cost(weights, weights * area, out_channels * area)


def linear(in_features: int, out_features: int) -> Cost:
    """The cost of a matrix product without bias."""
    return conv(1, in_features, out_features)


def norm(channels: int) -> Cost:
    """The cost of a norm: scale and shift; running averages do not count as parameters."""
    return Cost(parameters=2 * channels)


def conv_norm(area: int, in_channels: int, out_channels: int, *, kernel_size: int = 1) -> Cost:
    """The cost of a convolution and its norm."""
    return conv(area, in_channels, out_channels, kernel_size=kernel_size) + norm(out_channels)


def factorized_reduction(sides: Sides, in_channels: int, out_channels: int) -> Cost:
    """The cost of two convolutions with half the output channels each: one on the even pixels of a map, one on the odd.

    sides: of the input map. A map with a single row or column has no odd pixels, and is padded with zeros first.
    """
    even, odd = area_of(halved(sides)), (sides[0] // 2) * (sides[1] // 2)
    half = out_channels // 2
    return conv(even, in_channels, half) + conv(odd or even, in_channels, out_channels - half) + norm(out_channels)


def halved(sides: Sides, *, stride: int = 2) -> Sides:
    """Height and width after a stride, rounded up."""
    return math.ceil(sides[0] / stride), math.ceil(sides[1] / stride)


def area_of(sides: Sides) -> int:
    return sides[0] * sides[1]


def depthwise(area: int, channels: int, *, kernel_size: int) -> Cost:
    """The cost of a depthwise convolution without bias."""
    return conv(area, channels, channels, kernel_size=kernel_size, groups=channels)
