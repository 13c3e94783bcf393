from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from datasets.sources.download import RemoteFile, download
from datasets.store import StoreError
from tests.datasets.conftest import Server

CONTENT = bytes(range(256)) * 4000


@pytest.fixture
def file(server: Server) -> RemoteFile:
    """A published file of a megabyte."""
    return server.publish("file", CONTENT)


def test_a_file_arrives_whole(file: RemoteFile, tmp_path: Path) -> None:
    path = download(file, tmp_path / "new")
    assert path.read_bytes() == CONTENT
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_a_file_that_is_here_is_not_asked_for_again(server: Server, file: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    assert download(file, tmp_path) == tmp_path / "file"
    assert server.requested_ranges == []


def test_a_broken_off_download_goes_on_where_it_stopped(server: Server, file: RemoteFile, tmp_path: Path) -> None:
    server.hang_up_after = 300_000
    with pytest.raises(StoreError, match="broke off"):
        download(file, tmp_path)
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:300_000]
    server.hang_up_after = None
    assert download(file, tmp_path).read_bytes() == CONTENT
    assert server.requested_ranges == [None, "bytes=300000-"]


def test_a_server_that_knows_no_ranges_sends_all_anew(server: Server, file: RemoteFile, tmp_path: Path) -> None:
    server.knows_ranges = False
    (tmp_path / "file.part").write_bytes(CONTENT[:1000])
    assert download(file, tmp_path).read_bytes() == CONTENT


def test_a_wrong_digest_is_refused_and_the_bytes_removed(file: RemoteFile, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"what came is not the published file \(sha256 \w+, expected \w+\)"):
        download(replace(file, sha256="0" * 64), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_is_too_long_is_refused_without_asking(server: Server, file: RemoteFile, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT + b"x")
    with pytest.raises(StoreError, match="what came is not the published file"):
        download(file, tmp_path)
    assert server.requested_ranges == []


def test_a_missing_page_is_named_with_the_servers_answer(file: RemoteFile, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"/gone: the server answered 404 Not Found"):
        download(replace(file, url=f"{file.url}/gone"), tmp_path)


def test_a_part_past_the_servers_file_is_dropped_so_that_the_next_try_begins_anew(
    file: RemoteFile, tmp_path: Path
) -> None:
    (tmp_path / "file.part").write_bytes(CONTENT)
    longer = replace(file, num_bytes=file.num_bytes + 1)
    with pytest.raises(StoreError, match="the server answered 416"):
        download(longer, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_network_the_error_says_what_to_do(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]  # nobody listens there once it is closed
    file = RemoteFile(f"http://127.0.0.1:{port}/file", sha256="", num_bytes=1)
    with pytest.raises(StoreError, match=r"cannot be reached or broke off .*refused.*; run the same command again"):
        download(file, tmp_path)
