"""Policies for when a form of a model may ship, given how its outputs differ from those of its network."""

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
    """The same predicted classes, except for ties, and logits within the tolerance: for float32."""

    def accepts(self, comparison: Comparison) -> bool:
        same_accuracy = comparison.ties > 0 or comparison.accuracy == comparison.torch_accuracy
        return comparison.largest_excess <= 1 and comparison.disagreements == 0 and same_accuracy


@dataclass(frozen=True)
class AccuracyLoss:
    """Finite logits, and an accuracy that is lower by at most `points`: for precisions below float32."""

    points: float
    """Per cent of the inputs."""

    def accepts(self, comparison: Comparison) -> bool:
        if comparison.accuracy is None or comparison.torch_accuracy is None:
            return False
        lost = comparison.torch_accuracy - comparison.accuracy
        # Accuracies are fractions of a count: a loss that exceeds the limit only by rounding is at the limit.
        return math.isfinite(comparison.max_difference) and 100 * lost <= self.points + 1e-9


EQUALITY = Equality()
