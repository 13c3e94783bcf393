"""The latency target of a search, and the penalty for missing it."""

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
"""The largest miss, as a fraction of the target, at which the weights of an architecture are worth training."""
SLACK_BELOW, SLACK_ABOVE = 0.10, 0.03
"""Accepted misses, as fractions of the target; two measurements of the same network differ by as much."""


@dataclass(frozen=True)
class LatencyTarget:
    """The latency term of a search's reward. Source: Bender et al. 2020 (TuNAS), section 3.2, the absolute value."""

    target_ms: float
    """Latency of the deployed network, in milliseconds per batch."""
    batch: int = 1
    """Images in a batch."""
    threads: int = 1
    """onnxruntime's threads within a network."""
    weight: float = -0.10
    """β: added to the reward at a latency of twice the target, or of 0."""
    table_sha256: str = ""
    """sha256 of the latency table that the search predicts with."""

    def __post_init__(self) -> None:
        if not 0 < self.target_ms <= _LONGEST_MS:
            raise ConfigError(f"the latency target is {self.target_ms:g} ms; expected more than 0 and up to a minute")
        for name in ("batch", "threads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"the target's {name} is {getattr(self, name)}; at least 1 is needed")
        if not self.weight <= 0:
            raise ConfigError(f"the latency weight is {self.weight}; it must not be above 0")

    def penalty(self, latencies_ms: Tensor) -> Tensor:
        """Returns the terms that latencies add to the rewards, 0 or less: [B] -> [B]."""
        return self.weight * torch.abs(latencies_ms / self.target_ms - 1)

    def miss(self, latency_ms: float) -> float:
        """The distance of a latency from the accepted range, as a fraction of the target; 0 within the range."""
        relative = latency_ms / self.target_ms - 1
        return max(0.0, relative - SLACK_ABOVE, -SLACK_BELOW - relative)


@dataclass(frozen=True)
class Aim:
    """A latency target with a predictor of architectures' latencies."""

    target: LatencyTarget
    predict: Callable[[Any], float]
    """An architecture -> the latency of its deployed network, ms."""

    def latencies(self, architectures: Sequence[Any]) -> Tensor:
        """Returns the predicted latency of each architecture, ms: [B]."""
        return torch.tensor([self.predict(one) for one in architectures])

    def miss(self, architecture: Any) -> float:
        """See `LatencyTarget.miss`."""
        return self.target.miss(self.predict(architecture))

    def is_near(self, architecture: Any) -> bool:
        """Whether the weights of an architecture are worth training."""
        return self.miss(architecture) <= _NEAR


def check_has_latency(space: str) -> None:
    """Raises: ConfigError: the space has no image networks; latency is measured only for those."""
    if search_space(space).latency_view is None:
        raise ConfigError(
            f"networks of the space {space} have no latency to aim at or to profile; those of images have"
        )


def target_ms(text: str, *, references: Mapping[str, float]) -> float:
    """Returns a latency in milliseconds: a time, `0.25ms`, `250us` or `0.001 s`; or a known network's, or a part of it,
    `0.9x resnet-20`.

    Args: references: networks' latencies, ms, by name.
    Raises: ConfigError: it is neither, or not above 0.
    """
    time = _time_ms(text)
    if time is None:
        part, name = _part_of_known(text, known=references)
        time = part * references[name]
    return LatencyTarget(time).target_ms


def check_goal(text: str, *, known: Collection[str]) -> None:
    """Checks, before anything is measured, that `target_ms` accepts the text. known: names of networks.

    Raises: ConfigError: it is neither a time nor a known network's, or not above 0.
    """
    time = _time_ms(text)
    LatencyTarget(_part_of_known(text, known=known)[0] if time is None else time)


def _time_ms(text: str) -> float | None:
    """Milliseconds of a time with its unit; None if the text is not a time."""
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
