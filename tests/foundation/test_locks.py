"""Locks on files, and file systems that have none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from foundation.locks import share_lock, try_lock

fcntl = pytest.importorskip("fcntl")


def test_a_lock_is_held_until_its_file_is_closed(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "ab") as first, open(tmp_path / "lock", "ab") as second:
        assert (try_lock(first), try_lock(second)) == ("held", "in use")
        first.close()
        assert try_lock(second) == "held"


def test_who_shares_a_lock_keeps_others_from_having_it_alone(tmp_path: Path) -> None:
    with open(tmp_path / "lock", "ab") as first, open(tmp_path / "lock", "ab") as second:
        assert (share_lock(first), share_lock(second), try_lock(second)) == ("held", "held", "in use")


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_not_one_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with open(tmp_path / "lock", "ab") as file:
        assert (try_lock(file), share_lock(file)) == ("unavailable", "unavailable")
