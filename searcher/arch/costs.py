"""What layers cost, by arithmetic alone: parameters, multiply-adds, and elements of outputs.

`area` is the number of pixels of a layer's output: height times width. What an operation costs stands beside its name,
in the table of its space.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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
    """Of `ReluConvNorm`, and of `FactorizedReduction`, whose two convolutions share the outputs of one."""
    return conv(area, in_channels, out_channels, kernel_size=kernel_size) + norm(out_channels)


def depthwise(area: int, channels: int, *, kernel_size: int) -> Cost:
    """A convolution of every channel by itself."""
    return conv(area, channels, channels, kernel_size=kernel_size, groups=channels)
