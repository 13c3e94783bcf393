"""What a connection may take: sizes, counts and times, without a network between."""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.runtime.serving.echo import ASKED, Client, answers_in
from tests.runtime.serving.test_repeats import run

GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


def statuses(client: Client) -> list[int]:
    return [status for status, *_ in answers_in(client.transport.sent)]


# --- heads ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "endless",
    [
        b"GET /" + b"a" * 200_000,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 200_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"a%d: 1\r\n" % n for n in range(20_000)),
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"a" * 200_000,
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"".join(b"a%d: 1\r\n" % n for n in range(20_000)),
        b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 200_000,
    ],
    ids=["url", "header", "headers", "chunk", "trailers", "trailer"],
)
@pytest.mark.parametrize("size", [1000, 50_000, 300_000])
def test_a_head_without_an_end_is_refused_and_read_no_further(endless: bytes, size: int) -> None:
    async def scenario() -> None:
        client = Client()
        for start in range(0, len(endless) + size, size):
            if not client.transport.is_closed:
                await client.says(endless[start : start + size] or b"a" * size)
        assert statuses(client) == [431]
        assert client.transport.is_closed

    run(scenario)


@pytest.mark.parametrize(
    ("num_bytes", "num_fields", "status"), [(65_000, 1, 200), (66_000, 1, 431), (9, 126, 200), (9, 129, 431)]
)
def test_a_head_is_held_to_its_size_and_count_to_the_byte(num_bytes: int, num_fields: int, status: int) -> None:
    async def scenario() -> None:
        client = Client()
        fields = b"".join(b"X: %b\r\n" % (b"a" * num_bytes) for _ in range(num_fields))
        await client.says(b"GET /a HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
        assert statuses(client) == [status]

    run(scenario)


def test_many_requests_with_heads_of_allowed_size_are_no_long_head() -> None:
    async def scenario() -> None:
        client = Client()
        for _ in range(20):
            await client.says(b"GET /a HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n")
        assert statuses(client) == [200] * 20

    run(scenario)


def test_fields_after_a_body_say_nothing_of_its_request() -> None:
    async def scenario() -> None:
        client = Client()
        head = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        await client.says(head + b"3\r\none\r\n0\r\nAuthorization: Bearer x\r\n\r\n")
        assert client.connection.headers == [(b"host", b"x"), (b"transfer-encoding", b"chunked")]

    run(scenario)


# --- one after the other ----------------------------------------------------------------------------------------------


def test_of_requests_that_come_all_at_once_a_few_dozen_are_answered() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(GET * 10_000)
        assert len(client.connection.pipeline) <= 32
        await client.says(b"", turns=200)
        assert statuses(client) == [200] * 33 + [429]
        assert client.transport.is_closed

    run(scenario)


def test_nothing_is_read_while_requests_wait_for_their_turn() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.echo.is_held = True
        await client.says(ASKED + b"two")
        assert not client.transport.is_paused
        await client.says(GET * 3)
        assert client.transport.is_paused
        client.echo.waiting.pop()()
        await client.says(b"")
        assert statuses(client) == [200] * 5
        assert not client.transport.is_paused

    run(scenario)


def test_what_is_no_request_is_told_so_in_its_turn() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(GET * 2 + b"nonsense\r\n\r\n")
        assert statuses(client) == [200, 200, 400]
        assert client.transport.is_closed

    run(scenario)


def test_every_request_of_a_client_that_goes_is_withdrawn() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.echo.is_held = True
        await client.says(ASKED + b"two", GET)
        client.connection.connection_lost(None)
        assert client.echo.num_withdrawn == 1

    run(scenario)


# --- other protocols --------------------------------------------------------------------------------------------------

UPGRADES = [
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\n",
]


@pytest.mark.parametrize("upgrade", UPGRADES, ids=["h2c", "websocket"])
@pytest.mark.parametrize("cut", [0, 10, 150, None])
def test_a_request_that_wants_another_protocol_is_read_with_its_body(upgrade: bytes, cut: int | None) -> None:
    async def scenario() -> None:
        client = Client()
        inner = b"DELETE /b HTTP/1.1\r\nHost: x\r\n\r\n"
        head = b"POST /a HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (upgrade, len(inner))
        whole = head + inner
        pieces = [head, inner] if cut is None else [whole[:cut], whole[cut:]]
        assert await client.says(*pieces) == [(b"POST /a " + inner, "slow")]
        assert await client.says(ASKED + b"two") == [(b"POST /a two", "slow")]

    run(scenario)


def test_a_chunked_body_of_such_a_request_is_read_too() -> None:
    async def scenario() -> None:
        client = Client()
        head = b"POST /a HTTP/1.1\r\nHost: x\r\n" + UPGRADES[0] + b"Transfer-Encoding: chunked\r\n\r\n"
        assert await client.says(head + b"3\r\none\r\n0\r\n\r\n" + GET) == [
            (b"POST /a one", "slow"),
            (b"GET /a ", "slow"),
        ]

    run(scenario)


def test_a_server_is_no_proxy() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n\r\n" + GET)
        assert statuses(client) == [400]
        assert client.transport.is_closed

    run(scenario)


# --- clients that take nothing ----------------------------------------------------------------------------------------


def test_a_client_that_takes_nothing_of_its_answers_is_given_up() -> None:
    async def scenario() -> None:
        client = Client()
        now = time.monotonic()
        client.transport.num_unsent = 50_000
        client.connection.look(now)
        client.connection.look(now + 29)
        assert not client.transport.is_aborted
        client.connection.look(now + 31)
        assert client.transport.is_aborted

    run(scenario)


def test_a_client_that_takes_its_answers_slowly_is_waited_for() -> None:
    async def scenario() -> None:
        client = Client()
        now = time.monotonic()
        for seconds in range(0, 300, 25):
            client.transport.num_unsent = 1_000_000 - 1000 * seconds
            client.connection.look(now + seconds)
        client.transport.num_unsent = 0
        client.connection.look(now + 310)
        client.connection.look(now + 400)
        assert not client.transport.is_aborted

    run(scenario)


def test_a_closed_connection_that_cannot_be_flushed_is_given_up_too() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(GET)
        client.transport.num_unsent = 10
        client.connection.shutdown()
        now = time.monotonic()
        client.connection.look(now)
        client.connection.look(now + 31)
        assert client.transport.is_aborted

    run(scenario)


# --- idle clients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stray", [b"", b"\r\n"], ids=["silent", "line end"])
@pytest.mark.parametrize("repeats", [0, 1], ids=["parsed", "repeated"])
def test_a_connection_is_closed_when_it_was_idle_for_long(stray: bytes, repeats: int) -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(*[ASKED + b"one"] * (1 + repeats), stray)
        now = time.monotonic()
        client.connection.look(now + 74)
        assert not client.transport.is_closed
        client.connection.look(now + 76)
        assert client.transport.is_closed

    run(scenario)


def test_a_connection_that_waits_for_an_answer_is_not_idle() -> None:
    async def scenario() -> None:
        client = Client()
        await client.says(ASKED + b"one")
        client.echo.is_held = True
        await client.says(ASKED + b"two")
        client.connection.look(time.monotonic() + 1000)
        assert not client.transport.is_closed

    run(scenario)


# --- too many ---------------------------------------------------------------------------------------------------------

LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def test_beyond_the_last_connection_there_is_room_for_probes() -> None:
    async def scenario() -> None:
        first = Client(max_connections=1)
        assert await first.says(GET) == [(b"GET /a ", "slow")]
        probe, other = first.another(), first.another()
        await probe.says(LIVE)
        assert statuses(probe) == [200]
        assert probe.transport.is_closed
        await other.says(GET)
        assert statuses(other) == [503]

    run(scenario)


def test_silent_connections_give_way_to_probes() -> None:
    async def scenario() -> None:
        first = Client(max_connections=1)
        silent = [first.another() for _ in range(100)]
        probe = first.another()
        await probe.says(LIVE)
        assert statuses(probe) == [200]
        assert sum(client.transport.is_closed for client in silent) >= 36
        await asyncio.sleep(0)

    run(scenario)
