"""What batches took, and which are expected to be short."""

from __future__ import annotations

import pytest

from runtime.serving.batching.pace import Pace, loop_share


def pace(*took_ms: float, size: int = 1) -> Pace:
    """After lone batches that took so long, where 1 ms is the limit."""
    pace = Pace(runners=1, short_s=1e-3)
    for ms in took_ms:
        pace.note(size=size, num_items=1, took_s=ms * 1e-3, cpu_s=1e-4)
    return pace


def test_nothing_is_short_before_it_has_run() -> None:
    assert not pace().is_short(1)
    assert not pace(0.1, size=1).is_short(2)


@pytest.mark.parametrize(("took_ms", "is_short"), [(0.9, True), (1.0, False), (1.1, False)])
def test_a_batch_is_short_if_those_of_its_size_took_less_than_the_limit(took_ms: float, is_short: bool) -> None:
    assert pace(took_ms, size=4).is_short(4) == is_short


def test_with_a_limit_of_zero_none_is_short() -> None:
    never = Pace(runners=1, short_s=0.0)
    never.note(size=1, num_items=1, took_s=0.0, cpu_s=0.0)
    assert not never.is_short(1)


@pytest.mark.parametrize("slow_ms", [2.0, 1000.0])
def test_one_slow_batch_ends_what_many_short_ones_have_begun(slow_ms: float) -> None:
    assert pace(*[0.1] * 100).is_short(1)
    assert not pace(*[0.1] * 100, slow_ms).is_short(1)


def test_after_two_batches_that_are_a_little_too_slow_none_is_expected_to_be_short() -> None:
    assert not pace(*[0.5] * 100, 1.4, 1.4).is_short(1)


@pytest.mark.parametrize("slow_ms", [3.0, 10_000.0])
def test_one_slow_batch_is_made_up_for_by_three_short_ones_however_slow_it_was(slow_ms: float) -> None:
    assert pace(0.5, slow_ms, 0.5, 0.5, 0.5).is_short(1)
    assert pace(slow_ms, 0.5, 0.5, 0.5).is_short(1)


def test_more_than_a_fraction_of_a_millisecond_is_short_only_where_no_other_core_could_help() -> None:
    several, one = loop_share(cores=2, on_cpu=True), loop_share(cores=1, on_cpu=True)
    assert 0 < several.short_s < 1e-3 < one.short_s
    assert (several.ends_runs, one.ends_runs) == (False, True)
    # More workers than cores.
    assert loop_share(cores=0, on_cpu=True) == one
    # A GPU computes beside the event loop, wherever that runs.
    assert loop_share(cores=1, on_cpu=False) == several
