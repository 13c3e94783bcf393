"""Options that commands of several packages share, declared once."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import click

from foundation.limits import MAX_SEED

Command = TypeVar("Command", bound=Callable[..., Any])

DEVICES = ("auto", "cpu", "cuda")


class FiniteRange(click.FloatRange):
    """A range that also refuses infinity, and NaN, which is neither below the minimum nor above the maximum."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON, for programs.")
device_option = click.option("--device", type=click.Choice(DEVICES), default="auto", help="Where to compute.")


def seed_option(fixes: str, *, default: str | int) -> Callable[[Command], Command]:
    """Adds --seed, as the parameter `seed`: a number; if `default` is a text that describes the default, also None."""
    in_words = {"show_default": default} if isinstance(default, str) else {"default": default}
    return click.option("--seed", type=click.IntRange(0, MAX_SEED), help=fixes, **in_words)


def force_option(replaces: str) -> Callable[[Command], Command]:
    """Adds --force, as the parameter `force`. replaces: its help, a sentence on what is replaced or deleted."""
    return click.option("--force", is_flag=True, help=replaces)
