"""Imports that are killed, stopped, or begun twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets import store_writer
from datasets.claims import claimed
from datasets.store import StoreError, StoreInUseError, open_store
from foundation.files import whole_file
from tests.datasets.conftest import write_small_store
from tests.datasets.test_cli import Run
from tests.datasets.test_own_pictures import make_folder

_SLOW_IMPORT = """
import sys, time
from datasets.sources import own_pictures
read_picture = own_pictures.read_picture
def slowly(*arguments, **options):
    time.sleep(0.2)
    return read_picture(*arguments, **options)
own_pictures.read_picture = slowly
import enas
sys.argv = ["enas", "data", "import", *sys.argv[1:]]
enas.main()
"""


def begin(folder: Path, *, name: str = "pets") -> subprocess.Popen[str]:
    """An import that takes seconds, while it reads pictures for its temporary file."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW_IMPORT, str(folder), "--name", name],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list(Path(os.environ["ENAS_DATA"]).glob(f".{name}.h5.*.tmp")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_import_leaves_nothing(data_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = begin(make_folder(tmp_path / "pets", count=60))
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Traceback" not in said
    assert names(data_folder) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("method", ["seek", "tell", "write", "flush"])
def test_a_signal_that_comes_while_hdf5_calls_back_is_not_lost(
    data_folder: Path, monkeypatch: pytest.MonkeyPatch, method: str, number: signal.Signals
) -> None:
    called = getattr(store_writer._Sink, method)
    calls = 0

    def interrupted(self: object, *arguments: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 1:
            signal.raise_signal(number)
        return called(self, *arguments)

    monkeypatch.setattr(store_writer._Sink, method, interrupted)
    path = data_folder / "pets.h5"
    with pytest.raises((SystemExit, KeyboardInterrupt)), claimed(path, force=False):
        write_small_store(path)
    assert calls
    assert names(data_folder) == []


def test_what_a_killed_import_leaves_is_swept_by_the_next(run: Run, data_folder: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", count=60)
    process = begin(folder, name="killed")
    process.kill()
    process.communicate(timeout=60)
    assert any(name.endswith(".tmp") for name in names(data_folder))
    assert run("import", folder, "--name", "other").status == 0
    assert names(data_folder) == ["other.h5"]


def test_two_imports_of_one_name_do_not_both_succeed(run: Run, data_folder: Path, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "pets", count=60)
    process = begin(folder)
    for options in ((), ("--force",)):
        second = run("import", folder, "--name", "pets", *options)
        assert second.status == 2
        assert second.stderr == (
            f"error: {data_folder}/pets.h5: another import or fetch is writing it; wait for its end\n"
        )
    # Imports of other names go on meanwhile, and leave the one that runs alone.
    assert run("import", folder, "--name", "others").status == 0
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert names(data_folder) == ["others.h5", "pets.h5"]


@pytest.mark.skipif(sys.platform == "win32", reason="links of Unix")
def test_a_store_that_is_written_through_a_link_is_claimed_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    link, store = tmp_path / "a.h5", tmp_path / "large" / "a.h5"
    link.symlink_to(store)
    with claimed(link, force=False), whole_file(link) as temporary:
        temporary.write_text("whole")
        with claimed(store.with_name("b.h5"), force=False):  # which sweeps what killed imports have left
            pass
        with pytest.raises(StoreError, match="another import"), claimed(store, force=True):
            pass
    assert store.read_text() == "whole"
    assert names(tmp_path / "large") == ["a.h5"]


def test_who_comes_late_finds_what_the_first_has_written(data_folder: Path) -> None:
    path = data_folder / "pets.h5"
    with claimed(path, force=False), whole_file(path) as temporary:
        temporary.write_bytes(b"whole")
    with pytest.raises(StoreError, match="is there already; --force replaces it"), claimed(path, force=False):
        pass
    with claimed(path, force=True):
        pass
    assert names(data_folder) == ["pets.h5"]


def test_a_store_that_another_program_writes_is_in_use_and_not_damaged(run: Run, data_folder: Path) -> None:
    path = write_small_store(data_folder / "pets.h5").path
    program = f"import h5py; file = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(StoreInUseError, match="another program has it open to write; close it there first"):
            open_store(path)
        row = json.loads(run("list", "--json").stdout)[-1]
        assert (row["name"], row["state"]) == ("pets", "in use")
        other.communicate("\n")
    assert open_store(path).name == "small"
