"""`enas serve`.

numpy and onnxruntime take longer to import than `--help` may take to appear: the command imports what it runs with.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from foundation.command_options import FiniteRange
from foundation.limits import MAX_PIXELS, MAX_THREADS
from runtime.commands.environment import EnvironmentCommand
from runtime.commands.options import PATH, provider_option

if TYPE_CHECKING:
    from runtime.models.providers import Provider
    from runtime.serving.settings import LogFormat, Settings

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)
_COUNT = click.IntRange(min=1)
_THREADS = click.IntRange(1, MAX_THREADS)
_SECONDS = FiniteRange(min=0)
_TOKEN = "ENAS_TOKEN"


# Options from the environment, as ENAS_SERVE_MAX_BATCH_SIZE, by which containers are told.
@click.command(cls=EnvironmentCommand, prefix="ENAS_SERVE")
@click.argument("models", type=PATH)
@click.option("--host", default="127.0.0.1", help="Address to listen at; 0.0.0.0 is every one of this machine.")
@click.option("--port", "--http-port", type=click.IntRange(0, 65535), default=8000, help="0 takes a free one.")
@click.option("--workers", type=_COUNT, default=1, help="Processes that share the port.")
@click.option("--threads", type=_THREADS, default=1, help="Of onnxruntime, for one batch.")
@click.option("--runners", type=_THREADS, show_default="the cores", help="Batches of a model side by side, at most.")
@click.option("--max-batch-size", type=_COUNT, default=32, help="Rows of a batch, and of a request.")
@click.option("--max-queue-delay-ms", type=_SECONDS, default=0.0, help="How long a request waits for company.")
@click.option("--max-queue-size", type=_COUNT, default=256, help="Requests that wait for a model; more are refused.")
@click.option("--max-request-bytes", "--http-max-input-size", type=_COUNT, default=64 * 2**20, help="Of a body.")
@click.option(
    "--max-picture-pixels",
    type=click.IntRange(1, MAX_PIXELS),
    default=MAX_PIXELS,
    help="Each takes up to 17 bytes of memory.",
)
@click.option("--poll-s", type=_SECONDS, default=0.0, help="How often to look for changed models; 0 is never.")
@click.option("--lame-duck-s", type=_SECONDS, default=5.0, help="After SIGTERM: not ready, but still serving.")
@click.option("--exit-timeout-s", type=_SECONDS, default=30.0, help="For what is left to finish after that.")
@click.option("--allowed-host", multiple=True, metavar="NAME", help="Of a proxy before it; repeat.")
@click.option("--packet-filter", is_flag=True, help="At stopping, have the kernel drop attempts to connect (Linux).")
@click.option("--token-file", type=_FILE, help=f"Clients must show the token in it, or in ${_TOKEN}.")
@click.option("--tls-certificate", type=_FILE, help="Serve HTTPS.")
@click.option("--tls-key", type=_FILE, help="The certificate's key.")
@click.option("--access-log", is_flag=True, help="Log every request.")
@click.option("--log-format", type=click.Choice(["text", "json"]), default="text", help="Of the lines on stderr.")
@provider_option
def serve(
    *,
    models: Path,
    host: str,
    port: int,
    workers: int,
    threads: int,
    runners: int | None,
    max_batch_size: int,
    max_queue_delay_ms: float,
    max_queue_size: int,
    max_request_bytes: int,
    max_picture_pixels: int,
    poll_s: float,
    lame_duck_s: float,
    exit_timeout_s: float,
    packet_filter: bool,
    allowed_host: tuple[str, ...],
    token_file: Path | None,
    tls_certificate: Path | None,
    tls_key: Path | None,
    access_log: bool,
    log_format: LogFormat,
    provider: Provider,
) -> None:
    """Serve exported models over HTTP, with the Open Inference Protocol.

    MODELS is a run, a model file, or a folder of models (NAME/VERSION/model.onnx, runs, or NAME.onnx). A picture is
    classified by `curl -T photo.jpg http://localhost:8000/v1/classify`, or on the page at /. Every option can come from
    the environment: ENAS_SERVE_MAX_BATCH_SIZE is --max-batch-size, ENAS_SERVE_MODELS is MODELS.
    """
    from foundation.allowance import usable_cores
    from runtime.serving.batching.batcher import BatchLimits
    from runtime.serving.logs import configure
    from runtime.serving.settings import Settings, read_token

    settings = Settings(
        models=models,
        host=host,
        port=port,
        workers=workers,
        provider=provider,
        threads=threads,
        limits=BatchLimits(
            max_batch_size=max_batch_size,
            max_queue_delay_s=max_queue_delay_ms / 1e3,
            max_queue_size=max_queue_size,
            runners=runners or max(1, usable_cores() // (workers * threads)),
        ),
        max_request_bytes=max_request_bytes,
        max_picture_pixels=max_picture_pixels,
        poll_s=poll_s,
        lame_duck_s=lame_duck_s,
        exit_timeout_s=exit_timeout_s,
        packet_filter=packet_filter,
        allowed_hosts=allowed_host,
        token=read_token(token_file),
        token_file=token_file,
        tls_certificate=tls_certificate,
        tls_key=tls_key,
        access_log=access_log,
        log_format=log_format,
    )
    configure(log_format)
    _serve(settings)


def _serve(settings: Settings) -> None:
    """Raises: ArtifactError: there are no models."""
    if sys.platform != "win32":
        # It would end the process until there is a handler, whose setter lets it through.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from runtime.serving.connections.listener import listen
    from runtime.serving.connections.tls import check_certificate
    from runtime.serving.models.layout import find_models

    find_models(settings.models)  # before a line says that they are served
    if settings.tls_certificate is not None:
        check_certificate(settings)
    listener = listen(settings)
    settings = replace(settings, port=listener.getsockname()[1])
    click.echo(f"serving {settings.models} at {settings.url}, {_reach(settings)}", err=True)
    if settings.workers == 1:
        from runtime.serving.server import run

        run(settings, listener=listener)
    else:
        from runtime.serving.processes.supervisor import supervise

        supervise(settings, listener=listener)


def _reach(settings: Settings) -> str:
    """Who can use the server, for people."""
    if settings.is_loopback:
        return "to this machine only (--host)"
    if settings.token is None:
        return "to everybody who reaches this address: there is no token (--token-file)"
    return "to everybody who has the token"
