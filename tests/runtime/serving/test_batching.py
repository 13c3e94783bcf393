"""Dynamic batching, with a function that doubles numbers in place of a model."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.serving.batching import pace as pace_module
from runtime.serving.batching.batcher import Batcher, BatchLimits
from runtime.serving.batching.batches import bucket_sizes
from runtime.serving.batching.pace import ALL_IN_THREADS, LoopShare
from runtime.serving.errors import UnavailableError
from tests.runtime.serving.doubling import Doubler, batcher, behind_a_blocker, hold_up_the_event_loop, queued, run
from tests.runtime.serving.waiting import submit


def test_a_lone_request_runs_at_once_and_alone() -> None:
    async def scenario() -> None:
        double = Doubler()
        done = await submit(batcher(double), 21)
        assert done.result == 42
        assert double.batches == [([21], 1)]
        assert done.queued_s < 1

    run(scenario())


def test_requests_that_wait_for_a_runner_share_the_next_batch_oldest_first() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=4)
        blocker = await behind_a_blocker(batching, double)
        others = await queued(batching, range(1, 7))
        double.gate.set()
        assert [done.result for done in await asyncio.gather(blocker, *others)] == [0, 2, 4, 6, 8, 10, 12]
        assert double.batches == [([0], 1), ([1, 2, 3, 4], 4), ([5, 6], 2)]

    run(scenario())


def test_a_runner_goes_on_while_the_event_loop_is_busy() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=2)
        blocker = await behind_a_blocker(batching, double)
        others = await queued(batching, range(1, 5))
        double.gate.set()
        hold_up_the_event_loop(until=lambda: len(double.batches) == 3)
        assert double.batches == [([0], 1), ([1, 2], 2), ([3, 4], 2)]
        assert [done.result for done in await asyncio.gather(blocker, *others)] == [0, 2, 4, 6, 8]

    run(scenario())


def compute(seconds: float) -> None:
    stop = time.thread_time() + seconds
    while time.thread_time() < stop:
        pass


@pytest.mark.parametrize(("spend", "most"), [(time.sleep, 1), (compute, 2)])
def test_a_second_runner_works_where_items_compute_for_longer_than_the_event_loop(
    spend: Callable[[float], None], most: int
) -> None:
    running, seen = 0, []
    lock = threading.Lock()

    def work(items: Sequence[int], size: int) -> Sequence[int]:
        nonlocal running
        with lock:
            running += 1
            seen.append(running)
        spend(0.02)
        with lock:
            running -= 1
        return items

    async def scenario() -> None:
        batching = Batcher(work, limits=BatchLimits(max_batch_size=1, runners=2), name="test")
        await submit(batching, 0)
        await asyncio.gather(*(submit(batching, n) for n in range(6)))

    run(scenario())
    assert max(seen) == most


def test_a_free_runner_waits_for_company_as_long_as_it_is_told() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_queue_delay_s=0.05)
        early = asyncio.create_task(submit(batching, 1))
        await asyncio.sleep(0.01)
        done, _ = await asyncio.gather(early, submit(batching, 2))
        assert double.batches == [([1, 2], 2)]
        assert done.queued_s >= 0.05

    run(scenario())


@pytest.mark.parametrize("runners", [1, 2])
def test_a_full_batch_does_not_wait_for_its_age(runners: int) -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=2, max_queue_delay_s=60, runners=runners)
        await asyncio.gather(submit(batching, 1), submit(batching, 2))
        assert double.batches == [([1, 2], 2)]

    run(scenario())


def test_requests_of_different_kinds_never_share_a_batch() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=8)
        blocker = await behind_a_blocker(batching, double)
        others = [asyncio.create_task(submit(batching, n, key=n % 2)) for n in (1, 2, 3, 4)]
        await asyncio.sleep(0)
        double.gate.set()
        await asyncio.gather(blocker, *others)
        assert double.batches[1:] == [([1, 3], 2), ([2, 4], 2)]

    run(scenario())


def test_a_runner_takes_its_share_and_leaves_the_others_theirs() -> None:
    gates = {-1: threading.Event(), -2: threading.Event()}
    batches: list[list[int]] = []

    def double(items: Sequence[int], size: int) -> list[int]:
        for gate in (gates[item] for item in items if item in gates):
            assert gate.wait(5)
        batches.append(list(items))
        return [2 * item for item in items]

    async def scenario() -> None:
        batching = Batcher(double, limits=BatchLimits(max_batch_size=8, runners=2), name="test")
        blockers = await queued(batching, gates)
        calls = await queued(batching, range(8))
        gates[-1].set()
        await asyncio.gather(*calls)
        gates[-2].set()
        await asyncio.gather(*blockers)
        # Of nine rows in hand five are a runner's share, of which four are a bucket.
        assert batches[:2] == [[-1], [0, 1, 2, 3]]

    with patch.object(pace_module, "_FEEDING_S", 1e-9):
        run(scenario())


def test_rows_that_do_not_add_up_to_a_bucket_are_filled_up() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=8)
        await submit(batching, 1, size=5)
        assert double.batches == [([1], 6)]

    run(scenario())


def test_closing_finishes_what_waits_and_refuses_what_comes() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=2, max_queue_delay_s=60)
        double.gate.clear()
        calls = await queued(batching, (1, 2, 3))
        closing = asyncio.create_task(batching.close())
        await asyncio.sleep(0)
        with pytest.raises(UnavailableError):
            await submit(batching, 4)
        assert not closing.done()
        double.gate.set()
        await closing
        assert double.batches == [([1, 2], 2), ([3], 1)]
        # Whatever was taken is answered by now.
        assert all(call.done() for call in calls)
        assert [done.result for done in await asyncio.gather(*calls)] == [2, 4, 6]

    run(scenario())


@pytest.mark.parametrize(
    ("largest", "sizes"), [(1, (1,)), (2, (1, 2)), (5, (1, 2, 3, 4, 5)), (32, (1, 2, 3, 4, 6, 8, 12, 16, 24, 32))]
)
def test_batches_have_few_sizes(largest: int, sizes: tuple[int, ...]) -> None:
    assert bucket_sizes(largest) == sizes


@settings(max_examples=100)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=40),
    max_batch_size=st.integers(7, 20),
    runners=st.integers(1, 3),
    delay_s=st.sampled_from([0.0, 0.001]),
    feeding_s=st.sampled_from([1e-9, 1.0]),
    loop_share=st.sampled_from([ALL_IN_THREADS, LoopShare(1.0), LoopShare(1.0, ends_runs=True)]),
)
def test_every_request_gets_its_own_answer_whatever_the_batches(
    sizes: list[int], max_batch_size: int, runners: int, delay_s: float, feeding_s: float, loop_share: LoopShare
) -> None:
    ran: list[tuple[list[tuple[int, int]], int]] = []

    def echo(items: Sequence[tuple[int, int]], size: int) -> list[int]:
        ran.append((list(items), size))
        return [number for number, _ in items]

    async def scenario() -> None:
        limits = BatchLimits(max_batch_size, delay_s, max_queue_size=len(sizes), runners=runners)
        batching = Batcher(echo, limits=limits, name="test", loop_share=loop_share)
        calls = [submit(batching, (number, size), size=size) for number, size in enumerate(sizes)]
        assert [done.result for done in await asyncio.gather(*calls)] == list(range(len(sizes)))
        await batching.close()

    # All runners that there are work, or one alone.
    with patch.object(pace_module, "_FEEDING_S", feeding_s):
        run(scenario())
    for items, size in ran:
        assert sum(rows for _, rows in items) <= size <= max_batch_size
        assert size in bucket_sizes(max_batch_size)
    if runners == 1:
        assert [number for items, _ in ran for number, _ in items] == list(range(len(sizes)))
