"""Short batches, which run in the event loop; with a function that doubles numbers in place of a model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

import pytest

from runtime.serving.batching import pace as pace_module
from runtime.serving.batching.batcher import Batcher, BatchLimits
from runtime.serving.batching.pace import LoopShare
from runtime.serving.errors import ExpiredError, OverloadError
from tests.runtime.serving.doubling import Doubler, queued, run
from tests.runtime.serving.waiting import submit

LOOP, THREAD = "loop", "thread"
# Whatever has been measured is short then.
ANY_S = 1000.0


class Placed(Doubler):
    """Notes where its batches ran; made in the event loop."""

    def __init__(self) -> None:
        super().__init__()
        self.takes_s = 0.0
        self.places: list[tuple[list[int], str]] = []
        self._loop = threading.get_ident()

    def __call__(self, items: Sequence[int], size: int) -> list[int]:
        self.places.append((list(items), LOOP if threading.get_ident() == self._loop else THREAD))
        time.sleep(self.takes_s)
        return super().__call__(items, size)


async def measured(
    *sizes: int, short_s: float = ANY_S, ends_runs: bool = False, **limits: Any
) -> tuple[Batcher[int, int], Placed]:
    """A batcher that knows how long batches of these sizes take."""
    double = Placed()
    share = LoopShare(short_s, ends_runs)
    batching: Batcher[int, int] = Batcher(double, limits=BatchLimits(**limits), name="test", loop_share=share)
    for size in sizes:
        await submit(batching, 0, size=size)
    double.places.clear()
    return batching, double


def test_the_first_batch_of_a_size_runs_in_a_thread_and_the_next_in_the_event_loop() -> None:
    async def scenario() -> None:
        batching, double = await measured()
        for item, size in enumerate((1, 1, 2, 2, 1)):
            assert (await submit(batching, item, size=size)).result == 2 * item
        assert double.places == [([0], THREAD), ([1], LOOP), ([2], THREAD), ([3], LOOP), ([4], LOOP)]

    run(scenario())


def test_unless_a_time_is_given_all_run_in_threads() -> None:
    async def scenario() -> None:
        double = Placed()
        batching: Batcher[int, int] = Batcher(double, limits=BatchLimits(), name="test")
        for item in range(3):
            await submit(batching, item)
        assert double.places == [([0], THREAD), ([1], THREAD), ([2], THREAD)]

    run(scenario())


def test_a_function_that_becomes_slow_leaves_the_event_loop_after_one_batch_and_returns_when_it_is_fast() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, short_s=0.1)
        double.takes_s = 0.3
        for item in range(2):
            await submit(batching, item)
        assert double.places == [([0], LOOP), ([1], THREAD)]
        double.takes_s = 0.0
        for item in range(5):
            await submit(batching, item)
        assert double.places[-1] == ([4], LOOP)

    run(scenario())


def test_requests_of_one_turn_of_the_event_loop_share_its_batch() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, 4)
        calls = await queued(batching, (1, 2, 3, 4))
        assert [done.result for done in await asyncio.gather(*calls)] == [2, 4, 6, 8]
        assert double.places == [([1, 2, 3, 4], LOOP)]

    run(scenario())


def test_a_batch_that_grows_too_long_within_the_turn_runs_in_a_thread() -> None:
    async def scenario() -> None:
        batching, double = await measured(1)
        await asyncio.gather(*await queued(batching, (1, 2, 3, 4)))
        assert double.places == [([1, 2, 3, 4], THREAD)]

    run(scenario())


def test_the_event_loop_has_its_turn_between_two_batches() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, max_batch_size=1)
        calls = await queued(batching, (1, 2, 3))
        seen = []
        while not all(call.done() for call in calls):
            seen.append(len(double.places))
            await asyncio.sleep(0)
        assert {1, 2} <= set(seen)
        assert double.places == [([1], LOOP), ([2], LOOP), ([3], LOOP)]

    run(scenario())


def test_nothing_runs_in_the_event_loop_beside_a_runner() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, runners=2)
        double.gate.clear()
        blocker = asyncio.create_task(submit(batching, 0, size=2))
        await asyncio.sleep(0)
        other = asyncio.create_task(submit(batching, 1))
        await asyncio.sleep(0.01)
        double.gate.set()
        await asyncio.gather(blocker, other)
        assert double.places == [([0], THREAD), ([1], THREAD)]

    # Both runners work.
    with patch.object(pace_module, "_FEEDING_S", 1e-9):
        run(scenario())


def test_requests_that_two_runners_would_share_do_not_run_in_the_event_loop() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, runners=2)
        await asyncio.gather(*await queued(batching, (1, 2)))
        assert sorted(double.places) == [([1], THREAD), ([2], THREAD)]

    with patch.object(pace_module, "_FEEDING_S", 1e-9):
        run(scenario())


@pytest.mark.parametrize(
    ("ends_runs", "following", "place"), [(False, (1,), THREAD), (True, (1,), LOOP), (True, (1, 2), THREAD)]
)
def test_a_runner_leaves_a_short_batch_to_the_event_loop_if_told_so_and_goes_on_with_any_other(
    ends_runs: bool, following: tuple[int, ...], place: str
) -> None:
    async def scenario() -> None:
        batching, double = await measured(1, ends_runs=ends_runs)
        double.gate.clear()
        blocker = asyncio.create_task(submit(batching, 0, size=3))
        await asyncio.sleep(0)
        calls = await queued(batching, following)
        double.gate.set()
        await asyncio.gather(blocker, *calls)
        assert double.places == [([0], THREAD), (list(following), place)]

    run(scenario())


def test_a_request_withdrawn_within_the_turn_does_not_run() -> None:
    async def scenario() -> None:
        batching, double = await measured(1)
        withdraw = batching.enter(1, pytest.fail)
        withdraw()
        (other,) = await queued(batching, [2])
        assert (await other).result == 4
        batching.enter(3, pytest.fail)()
        await batching.close()  # which runs what is left in the queue
        assert double.places == [([2], LOOP)]

    run(scenario())


def test_a_request_past_its_deadline_at_the_end_of_the_turn_does_not_run() -> None:
    async def scenario() -> None:
        batching, double = await measured(1)
        late = asyncio.create_task(submit(batching, 1, timeout_s=0.01))
        patient = asyncio.create_task(submit(batching, 2))
        asyncio.get_running_loop().call_soon(time.sleep, 0.03)
        with pytest.raises(ExpiredError):
            await late
        assert (await patient).result == 4
        assert double.places == [([2], LOOP)]

    run(scenario())


def test_closing_within_the_turn_finishes_what_was_accepted() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, max_batch_size=1)
        calls = await queued(batching, (1, 2))
        assert double.places == []
        await batching.close()
        assert double.places == [([1], LOOP), ([2], LOOP)]
        assert [done.result for done in await asyncio.gather(*calls)] == [2, 4]

    run(scenario())


def test_closing_ends_though_all_that_was_accepted_is_withdrawn_within_the_turn() -> None:
    async def scenario() -> None:
        batching, double = await measured(1)
        withdraw = batching.enter(1, pytest.fail)
        closing = asyncio.create_task(batching.close())
        withdraw()
        await closing
        assert double.places == []

    run(scenario())


def test_a_request_that_fails_in_the_event_loop_takes_nobody_with_it() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, 3)
        calls = await queued(batching, (1, -1, 3))
        good, bad, other = await asyncio.gather(*calls, return_exceptions=True)
        assert (good.result, other.result) == (2, 6)
        assert str(bad) == "negative: [-1]"
        assert double.places == [(items, LOOP) for items in ([1, -1, 3], [1], [-1], [3])]
        assert (await submit(batching, 5)).result == 10

    run(scenario())


def test_requests_beyond_the_queue_are_refused_within_the_turn_too() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, 2, 3, max_queue_size=2)
        double.gate.clear()
        # As many as without an event loop that runs batches: those that may wait, and what a runner takes.
        calls = await queued(batching, range(5))
        with pytest.raises(OverloadError, match=r"^too many requests: 2 are waiting already$"):
            await submit(batching, 5)
        double.gate.set()
        assert [done.result for done in await asyncio.gather(*calls)] == [0, 2, 4, 6, 8]
        assert double.places[0] == ([0, 1, 2], THREAD)

    run(scenario())


def test_a_short_batch_waits_for_company_as_long_as_it_is_told() -> None:
    async def scenario() -> None:
        batching, double = await measured(1, 2, max_queue_delay_s=0.05)
        early = asyncio.create_task(submit(batching, 1))
        await asyncio.sleep(0.01)
        done, _ = await asyncio.gather(early, submit(batching, 2))
        assert double.places == [([1, 2], LOOP)]
        assert done.queued_s >= 0.05

    run(scenario())
