"""Clients that load a server from threads."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tests.runtime.serving.conftest import INFER, Server, ask, binary_request, pixels

REQUEST = binary_request(pixels(0))


class Load:
    """Clients that ask again and again, each on a connection that it keeps as long as the server does."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.outcomes: Counter[str] = Counter()
        """Status, or the failure's name, -> count."""
        self.is_over = threading.Event()
        self._lock = threading.Lock()

    def note(self, outcome: str) -> None:
        with self._lock:
            self.outcomes[outcome] += 1

    def client(self) -> None:
        connection = self.server.connect()
        while not self.is_over.is_set():
            try:
                connection.connect()
            except OSError:
                # Nobody accepts any more: such a request was never accepted.
                time.sleep(0.01)
                continue
            try:
                is_kept = True
                while is_kept and not self.is_over.is_set():
                    reply = ask(connection, "POST", INFER, *REQUEST)
                    self.note(str(reply.status))
                    is_kept = reply.headers.get("connection") != "close"
            except (OSError, HTTPException) as error:
                self.note(type(error).__name__)
            connection.close()

    @contextmanager
    def of(self, clients: int) -> Iterator[Load]:
        threads = [threading.Thread(target=self.client) for _ in range(clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self.is_over.set()
            for thread in threads:
                thread.join()


def until(condition: Callable[[], bool], *, seconds: float = 20) -> None:
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        time.sleep(0.02)
    raise AssertionError("it does not come true")
