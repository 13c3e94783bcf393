"""Stopping: a request is looked at between steps; where nothing can be kept it ends the work there and then."""

from __future__ import annotations

import os
import signal

import pytest

from searcher.running.interrupt import Stopped, catch_signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_a_request(number: int) -> None:
    with catch_signals() as interrupt:
        assert not interrupt.requested
        os.kill(os.getpid(), number)
        assert interrupt.requested


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_where_nothing_can_be_kept_a_signal_ends_the_work_there_and_then(number: int) -> None:
    with catch_signals() as interrupt:
        went_on = False
        with pytest.raises(Stopped), interrupt.at_once():
            went_on = os.kill(os.getpid(), number) is None
        assert interrupt.requested
        assert not went_on


def test_such_work_does_not_begin_after_a_request() -> None:
    with catch_signals() as interrupt:
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopped), interrupt.at_once():
            pytest.fail("began")


def test_behind_such_work_a_signal_is_a_request_again() -> None:
    with catch_signals() as interrupt:
        with interrupt.at_once():
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested
