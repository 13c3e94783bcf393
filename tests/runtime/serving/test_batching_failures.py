"""Requests that no batch answers: refused, expired, cancelled, failed; the others are not touched."""

from __future__ import annotations

import asyncio
import time
from unittest.mock import patch

import pytest

from runtime.serving.batching.batcher import Batcher, BatchLimits
from runtime.serving.errors import ExpiredError, OverloadError
from tests.runtime.serving.doubling import Doubler, batcher, behind_a_blocker, hold_up_the_event_loop, queued, run
from tests.runtime.serving.waiting import submit


@pytest.mark.parametrize("runners", [1, 2])
def test_a_request_beyond_the_queue_is_refused_and_the_others_are_served(runners: int) -> None:
    async def scenario() -> None:
        double = Doubler()
        # A second runner, which so little work does not wake, is no room to wait in.
        batching = batcher(double, max_queue_size=2, runners=runners)
        await submit(batching, 0)
        blocker = await behind_a_blocker(batching, double)
        waiting = await queued(batching, (1, 2))
        with pytest.raises(OverloadError, match=r"^too many requests: 2 are waiting already$"):
            await submit(batching, 3)
        double.gate.set()
        assert [done.result for done in await asyncio.gather(blocker, *waiting)] == [0, 2, 4]

    run(scenario())


def test_a_request_whose_deadline_passes_in_the_queue_fails_then_and_never_runs() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double)
        blocker = await behind_a_blocker(batching, double)
        with pytest.raises(ExpiredError):
            await submit(batching, 1, timeout_s=0.01)
        assert not blocker.done()
        double.gate.set()
        await blocker
        assert (await submit(batching, 2, timeout_s=5)).result == 4
        assert double.batches == [([0], 1), ([2], 1)]

    run(scenario())


def test_a_request_past_its_deadline_does_not_run_even_before_the_event_loop_notices() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double)
        blocker = await behind_a_blocker(batching, double)
        late = asyncio.create_task(submit(batching, 1, timeout_s=0.01))
        (patient,) = await queued(batching, [2])
        time.sleep(0.02)
        double.gate.set()
        hold_up_the_event_loop(until=lambda: len(double.batches) == 2)
        assert double.batches == [([0], 1), ([2], 1)]
        with pytest.raises(ExpiredError):
            await late
        assert [done.result for done in await asyncio.gather(blocker, patient)] == [0, 4]

    run(scenario())


def test_results_that_are_too_few_fail_their_requests_and_no_others() -> None:
    async def scenario() -> None:
        batching: Batcher[int, int] = Batcher(lambda items, size: list(items)[1:], limits=BatchLimits(), name="test")
        with pytest.raises(ValueError, match="0 results of 1 items"):
            await submit(batching, 1)
        await batching.close()

    run(scenario())


def test_a_cancelled_request_leaves_the_queue() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_queue_size=1)
        blocker = await behind_a_blocker(batching, double)
        gone = asyncio.create_task(submit(batching, 1))
        await asyncio.sleep(0)
        gone.cancel()
        await asyncio.sleep(0)
        # Were it still there, the queue would be full.
        stays = asyncio.create_task(submit(batching, 2))
        await asyncio.sleep(0)
        double.gate.set()
        await asyncio.gather(blocker, stays)
        assert double.batches == [([0], 1), ([2], 1)]

    run(scenario())


def test_cancelling_one_request_of_a_running_batch_leaves_the_others_their_answers() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=2, max_queue_delay_s=60)
        double.gate.clear()
        first, second = (asyncio.create_task(submit(batching, n)) for n in (1, 2))
        await asyncio.sleep(0.01)
        first.cancel()
        double.gate.set()
        assert (await second).result == 4

    run(scenario())


def test_a_request_that_fails_takes_nobody_with_it() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=3, max_queue_delay_s=60)
        good, bad, other = await asyncio.gather(*(submit(batching, n) for n in (1, -1, 3)), return_exceptions=True)
        assert (good.result, other.result) == (2, 6)
        assert str(bad) == "negative: [-1]"

    run(scenario())


def test_a_failure_of_all_reaches_every_caller_and_the_next_batch_runs() -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double, max_batch_size=2, max_queue_delay_s=60)
        failures = await asyncio.gather(submit(batching, -1), submit(batching, -2), return_exceptions=True)
        assert [str(failure) for failure in failures] == ["negative: [-1]", "negative: [-2]"]
        assert [done.result for done in await asyncio.gather(submit(batching, 1), submit(batching, 2))] == [2, 4]

    run(scenario())


def test_who_cannot_be_told_keeps_nothing_from_the_others(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        double = Doubler()
        batching = batcher(double)
        blocker = await behind_a_blocker(batching, double)

        def raises(outcome: object) -> None:
            raise MemoryError

        batching.enter(1, raises)
        other = asyncio.create_task(submit(batching, 2))
        await asyncio.sleep(0)
        double.gate.set()
        assert (await other).result == 4
        assert double.batches[1:] == [([1, 2], 2)]
        await asyncio.gather(blocker, batching.close())

    run(scenario())
    assert "a request's answer was lost" in caplog.text


def test_who_was_refused_is_told_nothing_later() -> None:
    async def scenario() -> None:
        batching, told = batcher(Doubler()), []
        with (
            patch.object(batching._threads, "submit", side_effect=RuntimeError("can't start new thread")),
            pytest.raises(RuntimeError, match="can't start new thread"),
        ):
            batching.enter(1, told.append)
        await asyncio.sleep(0.05)
        assert told == []

    run(scenario())
