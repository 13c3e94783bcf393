from __future__ import annotations

import gzip
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import enas
from datasets.sources.download import RemoteFile
from datasets.store import ImageStore, TextStore, open_store
from datasets.store_writer import write_image_store, write_text_store


@dataclass(frozen=True)
class Outcome:
    """What a command line did."""

    status: int
    stdout: str
    stderr: str


@pytest.fixture
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder."""
    folder = tmp_path / "data"
    monkeypatch.setenv("ENAS_DATA", str(folder))
    return folder


@pytest.fixture
def run(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Outcome]:
    """Run `enas data ARGUMENTS` as the console command does."""

    def run_command(*arguments: str | Path) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["enas", "data", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_info:
            enas.main()
        captured = capsys.readouterr()
        assert isinstance(exit_info.value.code, int)
        return Outcome(exit_info.value.code, captured.out, captured.err)

    return run_command


def random_images(count: int, shape: tuple[int, int, int], *, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 [N, H, W, C], all different, and labels int64 [N], every class in turn."""
    generator = np.random.default_rng(count)
    return generator.integers(0, 256, (count, *shape), np.uint8), np.arange(count, dtype=np.int64) % num_classes


def write_small_store(
    path: Path, *, counts: tuple[int, int, int] = (48, 12, 20), shape: tuple[int, int, int] = (8, 6, 3)
) -> ImageStore:
    """A store of three classes."""
    splits = dict(zip(("train", "valid", "test"), counts, strict=True))
    write_image_store(
        path,
        name="small",
        splits={split: random_images(count, shape, num_classes=3) for split, count in splits.items()},
        classes=("red", "green", "blue"),
        source="random numbers",
        licence="none",
    )
    store = open_store(path)
    assert isinstance(store, ImageStore)
    return store


def write_small_text_store(path: Path, *, counts: tuple[int, int, int] = (40, 10, 6)) -> TextStore:
    """A store of five words."""
    splits = dict(zip(("train", "valid", "test"), counts, strict=True))
    write_text_store(
        path,
        name="small",
        splits={split: np.random.default_rng(count).integers(0, 5, count) for split, count in splits.items()},
        vocabulary=("<eos>", "<unk>", "to", "be", "or"),
        source="random numbers",
        licence="none",
    )
    store = open_store(path)
    assert isinstance(store, TextStore)
    return store


def idx(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes."""
    return bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    """Fashion-MNIST's four files in small: 200 train and 20 test images of 4×4, gzipped."""
    folder = tmp_path / "originals"
    folder.mkdir()
    for part, count in (("train", 200), ("t10k", 20)):
        images = np.random.default_rng(count).integers(0, 256, (count, 4, 4))
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.arange(count) % 10)))
    return folder


class Server(ThreadingHTTPServer):
    """Serves published files on the loopback; knows ranges unless told otherwise, and can hang up early."""

    knows_ranges = True
    hang_up_after: int | None = None

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.requested_ranges: list[str | None] = []

    def publish(self, name: str, content: bytes) -> RemoteFile:
        self.files[f"/{name}"] = content
        return RemoteFile(
            f"http://127.0.0.1:{self.server_port}/{name}",
            sha256=hashlib.sha256(content).hexdigest(),
            num_bytes=len(content),
        )


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.requested_ranges.append(wanted)
        content = self.server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.server.knows_ranges else 0
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.server.hang_up_after])

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
