"""How a server serves: one frozen document, handed whole to every worker."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from foundation.bearer_token import is_token, token_in
from foundation.limits import MAX_PIXELS
from runtime.models.providers import Provider
from runtime.serving.batching.batcher import BatchLimits
from runtime.serving.connections.hosts import host_name, is_loopback

LogFormat = Literal["text", "json"]
TOKEN = "ENAS_TOKEN"
"""The environment variable that may hold the token."""


class SettingsError(ValueError):
    """Settings that cannot be served with."""


@dataclass(frozen=True)
class Settings:
    """All settings of a server."""

    models: Path
    """A run, a model file, or a folder of models."""
    host: str = "127.0.0.1"
    """The address to listen at; by default only this machine reaches it."""
    port: int = 8000
    """0 takes a free one."""
    workers: int = 1
    """Processes that share the port."""
    provider: Provider = "auto"
    threads: int = 1
    """Of onnxruntime, for one batch. Batches run side by side instead: two threads on one batch of a small network cost
    up to twice the CPU time of one, most of it spent waiting for each other."""
    limits: BatchLimits = field(default_factory=BatchLimits)
    max_request_bytes: int = 64 * 2**20
    """Of a body, as sent and as decompressed (Triton's default)."""
    max_pending_bytes: int = 256 * 2**20
    """Of all bodies that are held at one time; what does not fit is refused."""
    max_connections: int = 2048
    """The next one is turned away."""
    receive_timeout_s: float = 30.0
    """For a whole request to arrive."""
    send_timeout_s: float = 30.0
    """For a client to take something of its answers."""
    max_picture_pixels: int = MAX_PIXELS
    """A picture of more is refused. The default is what import and `predict` take, and nothing can raise it; where 1.4
    GB for the largest one are too much, a lower number bounds what pictures take (see `endpoints/pictures.py`)."""
    decode_timeout_s: float = 10.0
    """For a picture to be decoded, its wait included."""
    keep_alive_s: int = 75
    """How long an idle connection is kept. Long, since clients lose requests on connections that close under them."""
    poll_s: float = 0.0
    """How often the models' files are looked at for changes; 0 is never."""
    lame_duck_s: float = 5.0
    """After SIGTERM: not ready any more, but still serving, until load balancers have noticed."""
    exit_timeout_s: float = 30.0
    """For what is left to finish after that."""
    packet_filter: bool = False
    """At stopping, have the kernel drop attempts to connect, so that closing the socket resets none (Linux)."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the server goes by beside this machine's own, as those of a proxy before it; without any, a server
    that others reach goes by every name."""
    token: str | None = None
    """Clients must send it as `Authorization: Bearer …`; None lets everybody in."""
    token_file: Path | None = None
    """Where it is read from anew on SIGHUP."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    access_log: bool = False
    """Log every request, not only those that failed by our fault."""
    log_format: LogFormat = "text"

    def __post_init__(self) -> None:
        if not self.host.strip():
            # A socket takes it for every address of this machine.
            raise SettingsError("--host is empty, but must be an address, as 127.0.0.1, or 0.0.0.0 for every one")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise SettingsError("TLS takes both a certificate and its key: --tls-certificate and --tls-key")
        if self.token is not None:
            check_token(self.token)
        for host in self.allowed_hosts:
            if not host or "/" in host or host_name(host) != host:
                raise SettingsError(f"--allowed-host is {host!r}, but must be a name alone, as models.example.com")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches the server."""
        return is_loopback(self.host)

    @property
    def allows_control(self) -> bool:
        """Whether clients may load and unload models: those on this machine, or those that show the token."""
        return self.is_loopback or self.token is not None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_certificate else 'http'}://{host}:{self.port}"


def check_token(token: str) -> None:
    """Raises: SettingsError: it is too short, or no header can carry it."""
    if not (is_token(token) and len(token) >= 16):
        raise SettingsError("the token must be at least 16 printable ASCII characters")


def read_token(path: Path | None) -> str | None:
    """The token in a file, or in `$ENAS_TOKEN` if there is no file. Raises: SettingsError: it is none. OSError."""
    token = os.environ.get(TOKEN) if path is None else token_in(path)
    if token == "":
        raise SettingsError(f"the token in {path or f'${TOKEN}'} is empty")
    if token is not None:
        check_token(token)
    return token
