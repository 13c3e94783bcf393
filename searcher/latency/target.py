"""A latency that a search is to meet, and what missing it costs."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from foundation.document import ConfigError, unknown
from searcher.spaces import search_space

_MS = {"us": 1e-3, "µs": 1e-3, "ms": 1.0, "s": 1e3}
_NUMBER = r"-?[0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?"
_LONGEST_MS = 60_000.0
_NEAR = 0.4
"""How far outside a target an architecture may lie, as a part of it, for its weights to be worth training."""
SLACK_BELOW, SLACK_ABOVE = 0.10, 0.03
"""How far a network may miss a target, as parts of it; to measure one and the same network twice differs by as much."""


@dataclass(frozen=True)
class LatencyTarget:
    """What a search takes into its reward. Source: Bender et al. 2020 (TuNAS), section 3.2, the absolute value."""

    target_ms: float
    """Of the deployed network, in milliseconds a batch."""
    batch: int = 1
    """Images in a batch."""
    threads: int = 1
    """Of onnxruntime, within a network."""
    weight: float = -0.10
    """β: what a latency twice the target, or none at all, adds to the reward."""
    table_sha256: str = ""
    """Of the latency table that the search predicts with."""

    def __post_init__(self) -> None:
        if not 0 < self.target_ms <= _LONGEST_MS:
            raise ConfigError(f"the latency target is {self.target_ms:g} ms; expected more than 0 and up to a minute")
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the target's {name} is {getattr(self, name)}; at least 1 is needed")
        if not self.weight <= 0:
            raise ConfigError(f"the latency weight is {self.weight}; it must not be above 0")

    def penalty(self, latencies_ms: Tensor) -> Tensor:
        """What networks' latencies add to their rewards, 0 or less: [B] -> [B]."""
        return self.weight * torch.abs(latencies_ms / self.target_ms - 1)

    def miss(self, latency_ms: float) -> float:
        """How far a latency lies outside what meets the target and makes use of it, as a part of it; 0 within."""
        relative = latency_ms / self.target_ms - 1
        return max(0.0, relative - SLACK_ABOVE, -SLACK_BELOW - relative)


@dataclass(frozen=True)
class Aim:
    """A target, and what foretells how far architectures lie from it."""

    target: LatencyTarget
    predict: Callable[[Any], float]
    """An architecture -> the latency of its deployed network, ms."""

    def latencies(self, architectures: Sequence[Any]) -> Tensor:
        """What is predicted of each, ms: [B]."""
        return torch.tensor([self.predict(one) for one in architectures])

    def miss(self, architecture: Any) -> float:
        """See `LatencyTarget.miss`."""
        return self.target.miss(self.predict(architecture))

    def is_near(self, architecture: Any) -> bool:
        """Whether the weights of an architecture are worth training."""
        return self.miss(architecture) <= _NEAR


def check_has_latency(space: str) -> None:
    """Raises: ConfigError: networks of the space are not of images, whose latency alone is measured."""
    if search_space(space).latency_view is None:
        raise ConfigError(
            f"networks of the space {space} have no latency to aim at or to profile; those of images have"
        )


def target_ms(text: str, *, references: Mapping[str, float]) -> float:
    """`0.25ms`, `250us` or `0.001 s`, in milliseconds; or a known network's, or a part of it: `0.9x resnet-20`.

    Args: references: networks' latencies, ms, by name.
    Raises: ConfigError: it is neither, or not above 0.
    """
    time = _time_ms(text)
    if time is None:
        part, name = _part_of_known(text, known=references)
        time = part * references[name]
    return LatencyTarget(time).target_ms


def check_goal(text: str, *, known: Collection[str]) -> None:
    """See, before anything is measured, whether `target_ms` will understand it. known: networks by name.

    Raises: ConfigError: it is neither a time nor a known network's, or not above 0.
    """
    time = _time_ms(text)
    LatencyTarget(_part_of_known(text, known=known)[0] if time is None else time)


def _time_ms(text: str) -> float | None:
    """Of a time with its unit; None where the text is of another kind."""
    time = re.fullmatch(rf"\s*({_NUMBER})\s*([a-zµ]+)\s*", text)
    if time and time[2] in _MS:
        return float(time[1]) * _MS[time[2]]
    if time and time[2] != "x":
        raise ConfigError(f"latency {text!r}: {unknown('unit', time[2], tuple(_MS))}")
    return None


def _part_of_known(text: str, *, known: Collection[str]) -> tuple[float, str]:
    part, name = re.fullmatch(rf"\s*(?:({_NUMBER})\s*x\s+)?(.*?)\s*", text).groups()  # type: ignore[union-attr]
    if name not in known:
        names = ", ".join(known)
        others = f", or one of {names}, or a part as in 0.9x {next(iter(known))}" if known else ""
        raise ConfigError(f"{text!r} is no latency; expected a time such as 0.25ms{others}")
    return float(part or 1), name
