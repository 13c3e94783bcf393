"""Detects overfitting: train gets better while valid gets worse, epoch after epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

_NOTABLE = 1.1
"""Factor on the lowest loss on valid; a loss above it is no fluctuation."""
_PATIENCE = 5
"""Consecutive epochs above it before the warning."""


class Overfitting:
    """Watches a training's records, and warns once."""

    def __init__(self) -> None:
        self._lowest: tuple[int, float, float] | None = None  # epoch, loss on valid, and on train then
        self._epochs_above = 0
        self._has_warned = False

    def look(self, record: Mapping[str, Any]) -> str | None:
        """Returns a warning if an epoch's record gives reason for one, else None."""
        epoch, train, valid = record["epoch"], record["loss"], record.get("valid_loss", math.nan)
        if self._lowest is None or valid < self._lowest[1]:
            self._lowest, self._epochs_above = (epoch, valid, train), 0
        since, lowest, train_then = self._lowest
        runs_away = valid > _NOTABLE * lowest and train < train_then
        self._epochs_above = self._epochs_above + 1 if runs_away else 0
        if self._has_warned or self._epochs_above < _PATIENCE:
            return None
        self._has_warned = True
        return (
            f"train runs away from valid: since epoch {since} the loss went from {train_then:.3f} to {train:.3f} on "
            f"train, but from {lowest:.3f} to {valid:.3f} on valid. More augmentation or weight decay, a teacher, more "
            "data or fewer epochs may help"
        )

    def state(self) -> dict[str, Any]:
        return {
            "lowest": self._lowest or (),
            "epochs_above": self._epochs_above,
            "has_warned": self._has_warned,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self._lowest = tuple(state["lowest"]) or None
        self._epochs_above, self._has_warned = state["epochs_above"], state["has_warned"]
