"""When a form of a model may ship: policies over how its answers differ from those of the network it was made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from exporter.delivery.verify import Comparison


class Acceptance(Protocol):
    """A policy."""

    def accepts(self, comparison: Comparison) -> bool: ...


@dataclass(frozen=True)
class Equality:
    """The same answers, ties aside, and logits within the tolerance: for float32."""

    def accepts(self, comparison: Comparison) -> bool:
        same_accuracy = comparison.ties > 0 or comparison.accuracy == comparison.torch_accuracy
        return comparison.largest_excess <= 1 and comparison.disagreements == 0 and same_accuracy


@dataclass(frozen=True)
class AccuracyLoss:
    """Finite logits, and an accuracy that is lower by no more than some points: for less than float32."""

    points: float
    """Per cent of the inputs."""

    def accepts(self, comparison: Comparison) -> bool:
        if comparison.accuracy is None or comparison.torch_accuracy is None:
            return False
        lost = comparison.torch_accuracy - comparison.accuracy
        # Shares of a count: what is a hair above the limit only by rounding is at it.
        return math.isfinite(comparison.max_difference) and 100 * lost <= self.points + 1e-9


EQUALITY = Equality()
