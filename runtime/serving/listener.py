"""The socket that a server listens at."""

from __future__ import annotations

import os
import socket

from runtime.serving.settings import Settings, SettingsError

BACKLOG = 2048
"""Connections that may wait to be accepted."""


def listen(settings: Settings) -> socket.socket:
    """The socket to serve at. Raises: SettingsError: the address cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"cannot listen at {settings.host}, port {settings.port}: {os.strerror(error.errno or 0)}"
        ) from None
