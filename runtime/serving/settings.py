"""The settings of a server: one frozen object that every worker gets."""

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
    """Invalid settings."""


@dataclass(frozen=True)
class Settings:
    """All settings of a server."""

    models: Path
    """A run, a model file, or a folder of models."""
    host: str = "127.0.0.1"
    """The address to listen at; by default only this machine can reach it."""
    port: int = 8000
    """0 chooses a free port."""
    workers: int = 1
    """Processes that share the port."""
    provider: Provider = "auto"
    threads: int = 1
    """onnxruntime's threads per batch. Running batches in parallel is better: with two threads, a batch of a small
    network costs up to twice the CPU time, most of it spent by the threads waiting for each other."""
    limits: BatchLimits = field(default_factory=BatchLimits)
    max_request_bytes: int = 64 * 2**20
    """Limit of a body, both as sent and as decompressed (Triton's default)."""
    max_pending_bytes: int = 256 * 2**20
    """Limit of all bodies held at the same time; a request that exceeds it is refused."""
    max_connections: int = 2048
    """Further connections are refused."""
    receive_timeout_s: float = 30.0
    """Limit for a complete request to arrive."""
    send_timeout_s: float = 30.0
    """Limit for a client that reads nothing of its answers."""
    max_picture_pixels: int = MAX_PIXELS
    """A larger picture is refused. The default is the limit of import and `predict`, and cannot be raised; if 1.4 GB
    for the largest picture is too much, a lower limit reduces the memory for pictures (see `endpoints/pictures.py`)."""
    decode_timeout_s: float = 10.0
    """Limit for a picture to be decoded, including its wait."""
    keep_alive_s: int = 75
    """How long an idle connection is kept. Long, since a client loses a request if the connection closes under it."""
    poll_s: float = 0.0
    """Interval of checks for changed model files; 0 means never."""
    lame_duck_s: float = 5.0
    """After SIGTERM: how long it reports not ready but still serves, so that load balancers notice."""
    exit_timeout_s: float = 30.0
    """Limit for finishing the remaining requests after that."""
    packet_filter: bool = False
    """When stopping, have the kernel drop new connection attempts, so that closing the socket resets none (Linux)."""
    allowed_hosts: tuple[str, ...] = ()
    """Accepted host names besides this machine's own, such as those of a proxy in front of it; if empty, a server that
    other machines can reach accepts every name."""
    token: str | None = None
    """Clients must send it as `Authorization: Bearer …`; None means that no token is needed."""
    token_file: Path | None = None
    """The file from which the token is reloaded on SIGHUP."""
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    access_log: bool = False
    """Log every request, not only those that failed by the server's fault."""
    log_format: LogFormat = "text"

    def __post_init__(self) -> None:
        if not self.host.strip():
            # A socket would interpret it as every address of this machine.
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
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def allows_control(self) -> bool:
        """Whether clients may load and unload models: only this machine can reach the server, or it needs a token."""
        return self.is_loopback or self.token is not None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_certificate else 'http'}://{host}:{self.port}"


def check_token(token: str) -> None:
    """Raises: SettingsError: the token is too short, or contains characters that a header cannot carry."""
    if not (is_token(token) and len(token) >= 16):
        raise SettingsError("the token must be at least 16 printable ASCII characters")


def read_token(path: Path | None) -> str | None:
    """The token in a file, or in `$ENAS_TOKEN` if `path` is None. Raises: SettingsError: it is invalid. OSError."""
    token = os.environ.get(TOKEN) if path is None else token_in(path)
    if token == "":
        raise SettingsError(f"the token in {path or f'${TOKEN}'} is empty")
    if token is not None:
        check_token(token)
    return token
