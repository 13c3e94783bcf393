"""What layers cost, by arithmetic alone: parameters, multiply-adds, and elements of outputs.

`area` is the number of pixels of a layer's output: height times width. What an operation costs stands beside its name,
in the table of its space.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

Sides = tuple[int, int]
"""Height and width of a map."""


@dataclass(frozen=True)
class Cost:
    """Of a layer, or of many together: costs add up."""

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
    """A convolution without bias."""
    weights = kernel_size**2 * (in_channels // groups) * out_channels
    return Cost(weights, weights * area, out_channels * area)


def linear(in_features: int, out_features: int) -> Cost:
    """A matrix product without bias."""
    return conv(1, in_features, out_features)


def norm(channels: int) -> Cost:
    """Scale and shift; running averages are no parameters."""
    return Cost(parameters=2 * channels)


def conv_norm(area: int, in_channels: int, out_channels: int, *, kernel_size: int = 1) -> Cost:
    """A convolution and its norm."""
    return conv(area, in_channels, out_channels, kernel_size=kernel_size) + norm(out_channels)


def factorized_reduction(sides: Sides, in_channels: int, out_channels: int) -> Cost:
    """Two convolutions of half the output channels each: of the even pixels of a map, and of the odd ones.

    sides: of the map before. One of a single row or column has no odd pixels, and is filled up with zeros first.
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
    """A convolution of every channel by itself."""
    return conv(area, channels, channels, kernel_size=kernel_size, groups=channels)
