"""Requests that repeat the head of one before them: answered as any others are, but on the fast path."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import Callable, Coroutine
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.runtime.serving.clients import REQUEST, until
from tests.runtime.serving.conftest import (
    HEADER_LENGTH,
    INFER,
    Server,
    ask,
    binary_request,
    outputs_of,
    pixels,
    serving,
)
from tests.runtime.serving.echo import ASKED, Client, answers_in


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), timeout=20))


# --- which way --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cuts", [[], [len(ASKED)], [5], [len(ASKED) + 1], [len(ASKED), len(ASKED) + 2], range(1, len(ASKED) + 3)]
)
def test_the_same_head_again_takes_the_fast_path_in_whatever_pieces_it_comes(cuts: list[int]) -> None:
    async def scenario() -> None:
        client = Client()
        assert await client.says(ASKED + b"one") == [(b"POST /a one", "slow")]
        again = ASKED + b"two"
        pieces = [again[start:end] for start, end in zip([0, *cuts], [*cuts, len(again)], strict=True)]
        whole = len(pieces[0]) >= len(ASKED)
        assert await client.says(*pieces) == [(b"POST /a two", "fast" if whole else "slow")]
        assert await client.says(ASKED + b"six") == [(b"POST /a six", "fast")]

    run(scenario)


def test_a_head_that_came_before_its_body_is_known_too() -> None:
    async def scenario() -> None:
        client = Client()
        assert await client.says(ASKED, b"one") == [(b"POST /a one", "slow")]
        assert await client.says(ASKED, b"two") == [(b"POST /a two", "fast")]

    run(scenario)


def test_another_head_takes_the_slow_path_and_is_the_one_that_is_known_then() -> None:
    async def scenario() -> None:
        client = Client()
        other = ASKED.replace(b"/a", b"/b")
        assert await client.says(ASKED + b"one") == [(b"POST /a one", "slow")]
        assert await client.says(other + b"two") == [(b"POST /b two", "slow")]
        assert await client.says(other + b"six") == [(b"POST /b six", "fast")]
        assert await client.says(ASKED + b"ten") == [(b"POST /a ten", "slow")]

    run(scenario)


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\none",
        b"POST /a HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 5000 + b"\r\nContent-Length: 3\r\n\r\none",
        b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000,
        b"\r\n" + ASKED + b"one",
    ],
    ids=["get", "chunked", "upgrade", "long head", "long body", "line end before"],
)
def test_what_is_not_plain_takes_the_slow_path_every_time(request_: bytes) -> None:
    async def scenario() -> None:
        client = Client()
        first, second = await client.says(request_, request_)
        assert first == second
        assert first[1] == "slow"

    run(scenario)


def test_a_client_that_does_not_take_its_answers_takes_the_slow_path() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.connection.pause_writing()
        assert await client.says(ASKED + b"two") == []
        client.connection.resume_writing()
        assert await client.says(b"") == [(b"POST /a two", "slow")]

    run(scenario)


def test_two_repeated_requests_in_one_piece_are_answered_one_after_the_other() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        pair = await client.says(ASKED + b"two" + ASKED + b"six")
        assert [body for body, _ in pair] == [b"POST /a two", b"POST /a six"]

    run(scenario)


def test_a_request_waits_until_the_repeated_one_before_it_is_answered() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.echo.is_held = True
        assert await client.says(ASKED + b"two", ASKED + b"six") == []
        client.echo.waiting.pop()()
        assert await client.says(b"") == [(b"POST /a two", "fast"), (b"POST /a six", "slow")]

    run(scenario)


def test_a_body_that_looks_like_a_head_is_a_body() -> None:
    async def scenario() -> None:
        client = Client()
        body = ASKED + b"two"
        head = b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
        # A piece that begins with such a body, and goes on with a request of another head.
        pair = await client.says(head, body + head.replace(b"/b", b"/c") + body)
        assert pair == [(b"POST /b " + body, "slow"), (b"POST /c " + body, "slow")]
        assert await client.says(ASKED + b"six") == [(b"POST /a six", "slow")]

    run(scenario)


def test_only_the_last_requests_head_is_known() -> None:
    async def scenario() -> None:
        client = Client()
        client.connection.data_received(ASKED + b"one")
        # Too long a head to be known itself.
        last = b"POST /b HTTP/1.1\r\nX: " + b"x" * 5000 + b"\r\nContent-Length: 5\r\n\r\nseven"
        assert await client.says(last) == [(b"POST /a one", "slow"), (b"POST /b seven", "slow")]
        assert await client.says(ASKED + b"two") == [(b"POST /a two", "slow")]

    run(scenario)


def test_the_rest_of_a_request_that_was_answered_early_is_no_request() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.echo.is_hasty = True
        assert await client.says(b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n") == [
            (b"POST /b ", "slow")
        ]
        assert await client.says(ASKED + b"two") == []

    run(scenario)


_POSTS = st.builds(
    lambda path, body: (
        b"POST /%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (path, len(body), body),
        b"POST /%b %b" % (path, body),
    ),
    st.sampled_from([b"a", b"a", b"b"]),
    st.sampled_from([b"one", b"two", b"six", b"", b"\r\n\r\n", ASKED, ASKED + b"x"]),
)
_OTHERS = st.sampled_from(
    [
        (b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /a "),
        (b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n", b"POST /a one"),
        (b"\r\n" + ASKED + b"ten", b"POST /a ten"),
    ]
)


@settings(max_examples=200)
@given(requests=st.lists(_POSTS | _POSTS | _OTHERS, min_size=2, max_size=8), data=st.data())
def test_every_request_gets_its_own_answer_in_its_turn_however_the_bytes_come(
    requests: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(request for request, _ in requests)
    ends = [sum(len(r) for r, _ in requests[:n]) for n in range(1, len(requests))]
    cuts = data.draw(st.lists(st.integers(0, len(stream)) | st.sampled_from(ends), max_size=8))
    turns = data.draw(st.sampled_from([0, 1, 9]))

    async def scenario() -> None:
        client = Client()
        # The first request comes alone, so that there is a head to repeat.
        places = sorted({0, ends[0], *cuts, len(stream)})
        pieces = [stream[start:end] for start, end in pairwise(places)]
        heard = []
        for piece in pieces:
            heard += await client.says(piece, turns=turns)
        for _ in requests:
            heard += await client.says(b"")
        assert [body for body, _ in heard] == [answer for _, answer in requests]

    run(scenario)


# --- when it does not go well -----------------------------------------------------------------------------------------


def test_a_client_that_goes_withdraws_its_request() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.echo.is_held = True
        assert await client.says(ASKED + b"two") == []
        client.transport.close()
        client.connection.connection_lost(None)
        assert client.echo.num_withdrawn == 1
        client.echo.waiting.pop()()

    run(scenario)


def test_much_of_a_request_that_is_not_whole_is_not_kept_beside_the_accounts() -> None:
    async def scenario() -> None:
        client = Client()
        long = ASKED.replace(b"3", b"99000")
        for way in ("slow", "fast"):
            ((_, found),) = await client.says(long + bytes(99_000))
            assert found == way
        assert await client.says(long + bytes(50_000), bytes(49_000)) == [(b"POST /a " + bytes(99_000), "slow")]

    run(scenario)


def test_a_connection_that_is_lost_leaves_nothing_for_the_garbage_collector() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one", ASKED + b"two", ASKED + b"t")
        connection = weakref.ref(client.connection)
        client.connection.connection_lost(None)
        del client
        assert connection() is None

    gc.collect()
    gc.disable()
    try:
        run(scenario)
    finally:
        gc.enable()


def test_who_was_answered_withdraws_nothing() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one", ASKED + b"two")
        client.connection.connection_lost(None)
        assert client.echo.num_withdrawn == 0

    run(scenario)


def test_the_rest_of_a_repeated_request_is_waited_for_only_so_long() -> None:
    async def scenario() -> None:
        client = Client(receive_timeout_s=0.05)
        await client.says(ASKED + b"one", ASKED + b"t")
        await asyncio.sleep(0.2)
        *_, (status, body, _, closes) = answers_in(client.transport.sent)
        assert (status, closes) == (408, True)
        assert body == b'{"error":"the request did not arrive within 0.05 s"}'

    run(scenario)


def test_a_stopping_server_still_answers_what_has_begun_to_arrive() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one", ASKED + b"t")
        client.connection.shutdown()
        assert not client.transport.is_closed
        await client.says(b"wo")
        *_, (status, body, way, closes) = answers_in(client.transport.sent)
        assert (status, body, way, closes) == (200, b"POST /a two", "slow", True)
        assert client.transport.is_closed

    run(scenario)


def test_a_stopping_server_answers_what_it_has_in_hand_and_closes() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.echo.is_held = True
        await client.says(ASKED + b"two")
        client.connection.shutdown()
        assert not client.transport.is_closed
        client.echo.waiting.pop()()
        *_, (status, body, way, closes) = answers_in(client.transport.sent)
        assert (status, body, way, closes) == (200, b"POST /a two", "fast", True)
        assert client.transport.is_closed

    run(scenario)


# --- the server -------------------------------------------------------------------------------------------------------


def test_repeated_requests_have_their_own_tensors_and_ids(server: Server) -> None:
    connection = server.connect()
    ids = set()
    for value in (0, 128, 255, 128):
        reply = ask(connection, "POST", INFER, *binary_request(pixels(value)))
        alone = server.ask("POST", INFER, *binary_request(pixels(value)))
        assert (outputs_of(reply)["logits"] == outputs_of(alone)["logits"]).all()
        ids.add(reply.headers["x-request-id"])
    assert len(ids) == 4
    connection.close()


def test_a_mistake_in_a_repeated_request_is_told_and_the_next_one_is_right(server: Server) -> None:
    body, headers = binary_request(pixels(7))
    connection = server.connect()
    good = ask(connection, "POST", INFER, body, headers)
    bad = ask(connection, "POST", INFER, body.replace(b"UINT8", b"UINT9"), headers)
    assert bad.status == 400
    assert bad.error == "input 'images': datatype is UINT9, but the model takes UINT8"
    again = ask(connection, "POST", INFER, body, headers)
    assert again.body == good.body
    not_json = ask(connection, "POST", INFER, b"!" * len(body), headers)
    assert not_json.status == 400
    connection.close()


def test_json_is_read_anew_for_every_repeated_request(server: Server) -> None:
    connection = server.connect()
    for name in ("aa", "bb", "aa"):
        reply = ask(connection, "POST", INFER, *binary_request(pixels(7), id=name))
        assert reply.body[: int(reply.headers[HEADER_LENGTH.lower()])].endswith(b'"id":"%b"}' % name.encode())
    connection.close()


def test_repeated_requests_are_counted_and_logged_like_any_other(model_path: Path) -> None:
    with serving(model_path, "--access-log", "--log-format", "json") as server:
        connection = server.connect()
        body, headers = binary_request(pixels(1))
        for sent in (body, body, body.replace(b"UINT8", b"UINT9")):
            ask(connection, "POST", INFER, sent, headers)
        connection.close()
        (entry,) = server.get("/v2/models/tiny/stats").json()["model_stats"]
        assert entry["inference_stats"]["success"]["count"] == 2
        assert entry["inference_stats"]["fail"]["count"] == 1
        metrics = server.get("/metrics").body.decode()
        assert 'enas_http_requests{status="400"} 1.0' in metrics
        assert 'nv_inference_pending_request_count{model="tiny",version="1"} 0.0' in metrics
        server.stop()
        lines = [json.loads(line) for line in server.rest_of_log().splitlines()]
    assert [line["status"] for line in lines if line.get("path") == INFER] == [200, 200, 400]


def test_a_client_that_goes_while_its_repeated_request_waits_leaves_the_queue(model_path: Path) -> None:
    with serving(model_path, "--max-queue-delay-ms", "500") as server:
        connection = server.connect()
        assert ask(connection, "POST", INFER, *REQUEST).status == 200
        connection.request("POST", INFER, *REQUEST)
        until(lambda: 'pending_request_count{model="tiny",version="1"} 1.0' in server.get("/metrics").body.decode())
        connection.close()
        until(lambda: 'reason="CANCELED"} 1.0' in server.get("/metrics").body.decode())
        time.sleep(0.6)
        metrics = server.get("/metrics").body.decode()
        assert 'pending_request_count{model="tiny",version="1"} 0.0' in metrics
        assert 'nv_inference_exec_count{model="tiny",version="1"} 1.0' in metrics
        assert 'enas_http_requests{status="499"} 1.0' in metrics


def test_a_model_that_is_unloaded_answers_no_repeated_request(model_path: Path) -> None:
    with serving(model_path) as server:
        connection = server.connect()
        assert ask(connection, "POST", INFER, *binary_request(pixels(1))).status == 200
        assert server.post("/v2/repository/models/tiny/unload").status == 200
        assert ask(connection, "POST", INFER, *binary_request(pixels(1))).error == "model 'tiny' is not ready"
        assert server.post("/v2/repository/models/tiny/load").status == 200
        assert ask(connection, "POST", INFER, *binary_request(pixels(1))).status == 200
        connection.close()
