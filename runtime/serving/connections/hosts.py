"""Host names in the headers `Host` and `Origin`.

A page of another site can make its own name resolve to this machine's address (DNS rebinding), so that the browser
treats this server as part of that site. So a server that only this machine can reach accepts only this machine's names.
"""

from __future__ import annotations

import ipaddress


def host_name(authority: str) -> str:
    """The name without its port, in lower case: `LocalHost:8000` -> `localhost`, `[::1]:8000` -> `::1`."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.rpartition(":")[0].lower() if authority.count(":") == 1 else authority.lower()


def is_loopback(name: str) -> bool:
    """Whether a host name or address is that of this machine alone."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
