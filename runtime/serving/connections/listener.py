"""The socket that a server listens at."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import sys

from runtime.serving.settings import Settings, SettingsError

BACKLOG = 2048
"""Connections that may wait to be accepted."""
_SO_ATTACH_FILTER = 26
# A filter for packets, which begin with TCP's header: requests for a connection (SYN) are dropped.
_INSTRUCTION = struct.Struct("HBBI")
_NO_MORE_SYN = (
    (0x30, 0, 0, 13),  # load the flags
    (0x45, 0, 1, 0x02),  # is it a SYN?
    (0x06, 0, 0, 0),  # drop it
    (0x06, 0, 0, 0xFFFFFFFF),  # accept all of it
)


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises: SettingsError: the address is unavailable."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    # `::` means every address of this machine, including those of IPv4.
    takes_both = settings.host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            (settings.host, settings.port), family=family, backlog=BACKLOG, dualstack_ipv6=takes_both
        )
    except OSError as error:
        # Python adds the address to the system's message. The errno of an unknown host name is not the system's.
        reason = str(error.strerror).partition(" (while")[0]
    except TypeError:
        reason = "not the name of a host"
    raise SettingsError(f"cannot listen at {settings.host}, port {settings.port}: {reason}")


def begin_no_more(listener: socket.socket) -> None:
    """Have the kernel drop requests for new connections; handshakes that have begun are completed and wait for accept.

    Closing a listening socket resets the connections that arrived since the last accept, so no more may arrive. New
    clients get no answer, and are refused once the socket is closed in all processes that share it. Does nothing on
    systems without such a filter.
    Source: linux/filter.h, struct sock_filter; socket(7), SO_ATTACH_FILTER.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*instruction) for instruction in _NO_MORE_SYN))
    described = struct.pack("HP", len(_NO_MORE_SYN), ctypes.addressof(program))
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
