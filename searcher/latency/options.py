"""The options with which a latency is asked for. Loads no torch."""

from __future__ import annotations

import click

from foundation.command_options import Command


def latency_options(command: Command) -> Command:
    """--latency, and the options of `latency_setting`."""
    command = latency_setting(command)
    return click.option(
        "--latency",
        metavar="TIME",
        show_default="the space's, or any",
        help="What the deployed network is to take in onnxruntime, such as 0.25ms, or a known network's, resnet-20, or "
        "'0.9x resnet-20'; none for any. The first search on a machine measures its blocks, in about a minute.",
    )(command)


def latency_setting(command: Command) -> Command:
    """--latency-batch and --latency-threads."""
    for option in (
        click.option(
            "--latency-threads", type=click.IntRange(min=1), default=1, help="onnxruntime's, where latency is measured."
        ),
        click.option(
            "--latency-batch", type=click.IntRange(min=1), default=1, help="Images a call, where latency is measured."
        ),
    ):
        command = option(command)
    return command
