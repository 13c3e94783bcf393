"""How a listening socket stops taking connections."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from runtime.serving.connections.listener import begin_no_more, listen
from runtime.serving.settings import Settings, SettingsError


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")
def test_no_more_connections_begin_and_those_that_have_begun_are_served() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        begin_no_more(listener)
        client.sendall(b"asked")
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(9) == b"asked"
            accepted.sendall(b"answered")
            assert client.recv(9) == b"answered"
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.2)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_every_address_of_ipv6_has_ipv4s_among_them() -> None:
    with listen(Settings(Path("models"), host="::", port=0)) as listener:
        socket.create_connection(("127.0.0.1", listener.getsockname()[1]), timeout=2).close()
        socket.create_connection(("::1", listener.getsockname()[1]), timeout=2).close()


@pytest.mark.parametrize("host", ["", " "])
def test_a_host_that_is_empty_is_not_every_address(host: str) -> None:
    with pytest.raises(SettingsError, match="--host is empty, but must be an address"):
        Settings(Path("models"), host=host)


@pytest.mark.parametrize(
    ("host", "message"),
    [
        # What it says depends on the system, and on whether there is a network.
        ("nonsense.invalid", r"^cannot listen at nonsense\.invalid, port 0: (?!Unknown error)\w"),
        ("ü..b", r"^cannot listen at ü\.\.b, port 0: not the name of a host$"),
        ("192.0.2.1", r"^cannot listen at 192\.0\.2\.1, port 0: Cannot assign requested address$"),
    ],
)
def test_an_address_that_cannot_be_had_is_told(host: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        listen(Settings(Path("models"), host=host, port=0))
