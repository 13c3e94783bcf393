"""Files as others read them: JSON without numbers that JSON does not have, and folders that are whole or absent."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from foundation.files import strict_json, whole_file, whole_folder, write_text
from tests.killed import kill_at_every_change


def test_what_json_has_no_number_for_becomes_null() -> None:
    document = {"perplexity": math.inf, "rewards": [0.5, math.nan, (-math.inf, 2)], "name": "é", "count": 3}
    expected = {"perplexity": None, "rewards": [0.5, None, [None, 2]], "name": "é", "count": 3}

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(strict_json(document), parse_constant=refuse) == expected
    assert "\n" not in strict_json(document, indent=None)


def write(folder: Path, text: str) -> None:
    with whole_folder(folder) as unfinished:
        (unfinished / "text").write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


needs_locks = pytest.mark.skipif(sys.platform == "win32", reason="fork and locks of Unix")


def test_a_full_disk_is_told_with_the_file_that_it_has_no_room_for(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("before")
    with pytest.raises(OSError, match="No space left on device") as told, whole_file(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert told.value.filename == str(path)
    with pytest.raises(OSError, match=r"^10 requested and 5 written$"), whole_file(path):
        raise OSError("10 requested and 5 written")
    assert path.read_text() == "before"


@pytest.mark.skipif(sys.platform == "win32", reason="descriptors of Unix")
def test_an_open_file_gets_the_bytes_between_what_else_is_written_to_it(tmp_path: Path) -> None:
    program = "from pathlib import Path; from foundation.files import write_text\n"
    program += "print('before'); write_text(Path('/dev/stdout'), 'document\\n'); print('after')"
    log = tmp_path / "log.txt"
    log.write_text("earlier\n")
    with log.open("a") as stream:
        subprocess.run([sys.executable, "-c", program], stdout=stream, check=True)
    assert log.read_text().split() == ["earlier", "before", "document", "after"]
    assert names(tmp_path) == ["log.txt"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
def test_a_link_to_a_folder_stays_and_what_it_names_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "link").symlink_to("kept")
    write(tmp_path / "link", "after")
    assert names(tmp_path) == ["kept", "link"]
    assert (tmp_path / "link").is_symlink()
    assert [path.read_text() for path in (tmp_path / "kept").iterdir()] == ["after"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
@pytest.mark.parametrize("is_dangling", [False, True])
def test_what_a_link_names_is_written_and_the_link_stays(tmp_path: Path, is_dangling: bool) -> None:
    link, target = tmp_path / "latest.json", tmp_path / "kept" / "first.json"
    link.symlink_to(Path("kept", "first.json"))
    if not is_dangling:
        target.parent.mkdir()
        target.write_text("before")
    write_text(link, "after")
    assert (link.is_symlink(), target.read_text()) == (True, "after")
    assert names(target.parent) == ["first.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
def test_a_pipe_gets_the_bytes_and_stays_a_pipe(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write_text(pipe, "a document")
    found = os.read(reader, 100)
    os.close(reader)
    assert (found, pipe.is_fifo(), names(tmp_path)) == (b"a document", True, ["pipe"])


@needs_locks
def test_what_a_kill_leaves_is_gone_when_the_name_is_written_again(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    write(folder, "before")

    def look() -> None:
        assert not folder.exists() or (folder / "text").read_text() in ("before", "after")

    assert kill_at_every_change(lambda: write(folder, "after"), tmp_path, look) > 3
    assert names(tmp_path) == ["site"]
    assert (folder / "text").read_text() == "after"


@needs_locks
def test_what_was_whole_before_a_kill_between_two_renames_is_back_if_the_next_write_fails(tmp_path: Path) -> None:
    (tmp_path / ".site.0a1b2c3d.old").mkdir()
    (tmp_path / ".site.4e5f6a7b.tmp").mkdir()
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "site"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["site"]


@needs_locks
def test_what_others_write_or_have_named_alike_is_left_alone(tmp_path: Path) -> None:
    others = [".site.old", ".site.0a1b2c3d.tmp.txt", ".sites.0a1b2c3d.tmp", ".my.site.0a1b2c3d.tmp"]
    for name in others:
        (tmp_path / name).mkdir()
    with whole_folder(tmp_path / "site") as unfinished:
        write(tmp_path / "site", "meanwhile")
        assert unfinished.exists()
    assert names(tmp_path) == sorted([*others, "site"])
