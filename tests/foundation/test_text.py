from __future__ import annotations

import os

import pytest

from foundation.text import is_utf8, listed, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name.png", "plain name.png"),
        ("été 猫 \u00a0 हिन्दी", "été 猫 \u00a0 हिन्दी"),
        ("two\nlines\r", r"two\nlines\r"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
    ],
)
def test_nothing_that_a_terminal_would_obey_is_shown(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_a_name_that_is_not_utf_8_is_known() -> None:
    assert [is_utf8(name) for name in ("café", os.fsdecode(b"caf\xe9"))] == [True, False]


def test_long_lists_are_cut() -> None:
    assert listed(list("abcdefg")) == "'a', 'b', 'c', 'd', 'e' and 2 more"
    assert listed(["a\n"]) == r"'a\n'"
