from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets.sources.download import RemoteFile, download
from datasets.store import StoreError

CONTENT = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /file; knows ranges unless told otherwise, and can hang up early."""

    knows_ranges = True
    hang_up_after: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requested_ranges: list[str | None] = []

    def file(self, content: bytes = CONTENT, name: str = "file") -> RemoteFile:
        digest = hashlib.sha256(content).hexdigest()
        return RemoteFile(f"http://127.0.0.1:{self.server_port}/{name}", sha256=digest, num_bytes=len(content))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requested_ranges.append(wanted)
        if self.path != "/file":
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.knows_ranges else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start : self.server.hang_up_after])

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_file_arrives_whole(server: Server, tmp_path: Path) -> None:
    path = download(server.file(), tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_file_that_is_here_is_not_asked_for_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert download(server.file(), tmp_path) == tmp_path / "file"
    assert server.requested_ranges == []


def test_a_broken_off_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.hang_up_after = 300_000
    with pytest.raises(StoreError, match="broke off"):
        download(server.file(), tmp_path)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:300_000]
    server.hang_up_after = None
    assert download(server.file(), tmp_path).read_bytes() == CONTENT
    assert server.requested_ranges == [None, "bytes=300000-"]


def test_a_server_that_knows_no_ranges_sends_all_anew(server: Server, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    assert download(server.file(), tmp_path).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_the_bytes_removed(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"what came is not the published file \(sha256 \w+, expected \w+\)"):
        download(server.file(CONTENT[:-1] + b"x"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_too_long_is_refused_without_asking(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"x")
    with pytest.raises(StoreError, match="what came is not the published file"):
        download(server.file(), tmp_path)
    assert server.requested_ranges == []


def test_a_missing_page_is_named_with_the_servers_answer(server: Server, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"/gone: the server answered 404 Not Found"):
        download(server.file(name="gone"), tmp_path)


def test_a_part_past_the_servers_file_is_dropped_so_that_the_next_try_begins_anew(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    longer = server.file(CONTENT + b"x")
    with pytest.raises(StoreError, match="the server answered 416"):
        download(longer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # nobody listens there once it is closed
    file = RemoteFile(f"http://127.0.0.1:{port}/file", sha256="", num_bytes=1)
    with pytest.raises(StoreError, match=r"cannot be reached or broke off .*refused.*; run the same command again"):
        download(file, tmp_path)
