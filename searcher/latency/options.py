"""The command-line options for latency. Loads no torch."""

from __future__ import annotations

import click

from foundation.command_options import Command


def latency_options(command: Command) -> Command:
    """Adds --latency, and the options of `latency_setting`, which are None if they are not given."""
    command = _setting_options(command, default=None, show_default="the config's, or 1")
    return click.option(
        "--latency",
        metavar="TIME",
        show_default="the space's, or any",
        help="What the deployed network is to take in onnxruntime, such as 0.25ms, or a known network's, resnet-20, or "
        "'0.9x resnet-20'; none for any. The first search on a machine measures its blocks, in about a minute.",
    )(command)


def latency_setting(command: Command) -> Command:
    """Adds --latency-batch and --latency-threads."""
    return _setting_options(command, default=1, show_default=True)


def _setting_options(command: Command, *, default: int | None, show_default: str | bool) -> Command:
    for name, words in (("threads", "onnxruntime's"), ("batch", "Images a call")):
        command = click.option(
            f"--latency-{name}",
            type=click.IntRange(min=1),
            default=default,
            show_default=show_default,
            help=f"{words}, where latency is measured.",
        )(command)
    return command
