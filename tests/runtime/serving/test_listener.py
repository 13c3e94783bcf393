"""How a listening socket stops taking connections."""

from __future__ import annotations

import socket
import sys

import pytest

from runtime.serving.listener import begin_no_more


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
