"""A latency target: how it is read, and what it does to a reward."""

from __future__ import annotations

import pytest
import torch

from foundation.document import ConfigError
from searcher.latency.target import LatencyTarget, target_ms

REFERENCES = {"resnet-20": 0.4}


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0.25ms", 0.25),
        ("250us", 0.25),
        ("250 µs", 0.25),
        (".001 s", 1.0),
        ("1e-3s", 1.0),
        ("resnet-20", 0.4),
        (" 0.5x resnet-20 ", 0.2),
    ],
)
def test_a_time_or_a_part_of_a_known_networks_is_read(text: str, ms: float) -> None:
    assert target_ms(text, references=REFERENCES) == pytest.approx(ms)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("0ms", "expected more than 0"),
        ("-1ms", "expected more than 0"),
        ("1e9ms", "expected more than 0"),
        ("3 min", "unknown unit 'min'"),
        ("quick", "is no latency"),
        ("0.25", "is no latency"),
        ("", "is no latency"),
        ("0x resnet-20", "expected more than 0"),
        ("2x resnet-21", "is no latency"),
    ],
)
def test_anything_else_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        target_ms(text, references=REFERENCES)


def test_the_penalty_is_the_absolute_relative_distance_times_its_weight() -> None:
    target = LatencyTarget(0.2, weight=-0.1)
    assert target.penalty(torch.tensor([0.2, 0.3, 0.1])).tolist() == pytest.approx([0.0, -0.05, -0.05])


def test_a_network_may_be_three_per_cent_slower_and_a_tenth_faster_than_its_target() -> None:
    target = LatencyTarget(1.0)
    assert [target.miss(ms) for ms in (0.9, 1.0, 1.03)] == pytest.approx([0.0, 0.0, 0.0], abs=1e-12)
    assert target.miss(1.08) == pytest.approx(0.05)
    assert target.miss(0.7) == pytest.approx(0.2)


@pytest.mark.parametrize("setting", [{"batch": 0}, {"threads": 0}, {"weight": 0.1}, {"target_ms": float("nan")}])
def test_senseless_settings_are_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        LatencyTarget(**{"target_ms": 1.0, **setting})  # type: ignore[arg-type]
