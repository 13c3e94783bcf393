import json
import os
import socket
import struct
import time
from contextlib import ExitStack

import numpy as np
import pytest

from runtime.benchmarking.benchmark import Contestant, Plan, measure
from runtime.benchmarking.clients import ClientError, RemoteTarget, Server, outputs_of
from runtime.benchmarking.scenarios import SCENARIOS, Load
from runtime.models.inputs import TensorSpec
from tests.runtime.oip_server import Double, Reply, serving, stalling
from tests.runtime.quiet import in_a_quiet_moment

FEED = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}
PLAN = Plan(duration_s=0.3, min_samples=1, sittings=1, warmup_s=0)


class _WithoutBytes(Double):
    extensions = ()


@pytest.mark.parametrize("handler", [Double, _WithoutBytes])
def test_a_call_brings_the_inputs_and_fetches_the_outputs(handler: type[Double]) -> None:
    with serving(handler) as url, ExitStack() as stack:
        target = RemoteTarget.find("double", url=url)
        assert target.inputs == (TensorSpec("x", np.dtype(np.float32), ("x.0", 4)),)
        assert target.is_binary == (handler is Double)
        call = stack.enter_context(target.open(FEED, None)).connect()
        for _ in range(3):
            answer = call()
            assert isinstance(answer, tuple)
            (y,) = outputs_of(*answer)
            assert np.array_equal(y, 2 * FEED["x"])
        assert target.examine(answer) is None


class _Closing(Double):
    """Closes a kept connection while its client does not ask, as servers do after a while."""

    def infer(self, body: bytes, header_length: str | None) -> Reply:
        # Nothing says so in the answer.
        self.close_connection = True
        return super().infer(body, header_length)


def test_a_kept_connection_that_was_closed_while_idle_is_made_anew() -> None:
    with serving(_Closing) as url:
        target = RemoteTarget.find("double", url=url)
        contestant = Contestant("double", lambda: target.open(FEED, None), target.examine)
        (series,) = measure([contestant], plan=PLAN).series
    assert series.failure is None


class _Gone(Double):
    def infer(self, body: bytes, header_length: str | None) -> Reply:
        self.connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionAbortedError


def test_a_server_that_answers_nothing_is_asked_once_more_and_no_more() -> None:
    with serving(_Gone) as url:
        target = RemoteTarget.find("double", url=url)
        with target.open(FEED, None) as opened, pytest.raises(ClientError):
            opened.connect()()


class _CutShort(Double):
    """Resets the connection within its second answer."""

    calls = 0

    def infer(self, body: bytes, header_length: str | None) -> Reply:
        type(self).calls += 1
        if self.calls > 1:
            self.connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
            # Closed with nothing lingering: a reset.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            os.close(self.connection.detach())
            raise ConnectionAbortedError
        return super().infer(body, header_length)


def test_an_answer_that_is_cut_short_is_told_and_not_asked_for_again() -> None:
    with serving(_CutShort) as url:
        target = RemoteTarget.find("double", url=url)
        with target.open(FEED, None) as opened:
            call = opened.connect()
            call()
            with pytest.raises(ClientError, match="its answer was cut short: "):
                call()
            assert _CutShort.calls == 2


class _Guarded(Double):
    def about(self, path: str) -> Reply:
        return super().about(path) if self.headers["Authorization"] == "Bearer secret" else (401, {}, b"{}")

    def infer(self, body: bytes, header_length: str | None) -> Reply:
        return super().infer(body, header_length) if self.headers["X-Team"] == "a" else (403, {}, b"{}")


def test_headers_go_with_every_request() -> None:
    with serving(_Guarded) as url:
        target = RemoteTarget.find("double", url=url, headers={"Authorization": "Bearer secret", "X-Team": "a"})
        with target.open(FEED, None) as opened:
            assert isinstance(opened.connect()(), tuple)
        with pytest.raises(ClientError, match="401"):
            RemoteTarget.find("double", url=url)


def test_where_it_runs_is_what_the_server_says() -> None:
    with serving() as url:
        facts = RemoteTarget.find("double", url=url).facts
    assert facts.runs_on == f"stub 1.0 at {url}"
    assert facts.file == f"{url}/v2/models/double"


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_runs_against_a_server(scenario: str) -> None:
    with serving() as url:
        target = RemoteTarget.find("double", url=url)
        contestant = Contestant("double", lambda: target.open(FEED, FEED), target.examine)
        load = Load(scenario, streams=4, concurrency=4, rate_per_s=100)  # type: ignore[arg-type]
        (series,) = measure([contestant], plan=PLAN, play=load.play()).series
    assert series.failure is None
    assert series.samples_ms.size >= 10
    assert np.isfinite(series.samples_ms).all()


@in_a_quiet_moment
def test_requests_that_came_while_a_server_stalled_are_late_too() -> None:
    with serving(stalling(at_call=60, seconds=0.3)) as url:
        target = RemoteTarget.find("double", url=url)
        contestant = Contestant("double", lambda: target.open(FEED, None))
        load = Load("server", concurrency=16, rate_per_s=100, arrivals="constant")
        plan = Plan(duration_s=1, min_samples=1, sittings=1, warmup_s=0)
        (series,) = measure([contestant], plan=plan, play=load.play()).series
    late = series.samples_ms[series.samples_ms > 20]
    # 30 requests were due in 300 ms of standing still.
    assert 22 <= late.size <= 36
    assert np.median(late) == pytest.approx(155, abs=40)


def test_nan_in_an_answer_is_told() -> None:
    with serving() as url, RemoteTarget.find("double", url=url).open({"x": FEED["x"] * np.nan}, None) as opened:
        target = RemoteTarget.find("double", url=url)
        assert target.examine(opened.connect()()) == "returns NaN for random inputs"


# --- bad answers ------------------------------------------------------------------------------------------------------


class _Page(Double):
    def about(self, path: str) -> Reply:
        return 200, {"Content-Type": "text/html"}, b"<h1>Welcome to some other server</h1>"


class _Odd(Double):
    def about(self, path: str) -> Reply:
        return 200, {}, json.dumps({"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1]}]}).encode()


class _Busy(Double):
    def infer(self, body: bytes, header_length: str | None) -> Reply:
        return 503, {}, b'{"error": "the queue is full"}'


class _OddAnswer(Double):
    def infer(self, body: bytes, header_length: str | None) -> Reply:
        return 200, {}, b'{"predictions": [1, 2]}'


def test_a_url_that_answers_something_else_is_told() -> None:
    with serving(_Page) as url, pytest.raises(ClientError) as caught:
        RemoteTarget.find("double", url=url)
    assert str(caught.value) == (f"{url}/v2: not a server of the Open Inference Protocol: it answers 200, text/html")


def test_a_url_where_nobody_answers_is_told() -> None:
    with serving() as url:
        pass
    with pytest.raises(ClientError, match=f"^{url}: nobody answers there: "):
        RemoteTarget.find("double", url=url)


def test_a_model_that_the_server_does_not_have_is_told() -> None:
    with serving() as url, pytest.raises(ClientError) as caught:
        RemoteTarget.find("triple", url=url)
    assert str(caught.value) == f"{url}/v2/models/triple: 404: unknown model"


def test_inputs_that_are_no_numbers_are_told() -> None:
    with serving(_Odd) as url, pytest.raises(ClientError, match=r"its inputs cannot be read: KeyError\('BYTES'\)"):
        RemoteTarget.find("double", url=url)


@pytest.mark.parametrize(
    ("handler", "failure"),
    [(_Busy, "503: the queue is full"), (_OddAnswer, "answers something else than the protocol's outputs: 'outputs'")],
)
def test_a_server_that_refuses_or_answers_something_else_is_a_failure(handler: type[Double], failure: str) -> None:
    with serving(handler) as url:
        target = RemoteTarget.find("double", url=url)
        contestant = Contestant("double", lambda: target.open(FEED, None), target.examine)
        (series,) = measure([contestant], plan=PLAN).series
    assert series.failure is not None
    assert series.failure.endswith(failure)


@pytest.mark.parametrize("url", ["", "ftp://host", "http://", "http://host:port", "http://host:99999", "host..:80"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ClientError, match="not an address of a server"):
        Server.of_url(url)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("http://host", "http://host:80"),
        ("https://host/base/", "https://host:443/base"),
    ],
)
def test_an_address_may_be_short_and_have_a_base(url: str, server: str) -> None:
    assert str(Server.of_url(url)) == server
