"""Names of hosts, as `Host` and `Origin` tell them.

A page of another site can have a browser believe that its own name is this machine's address (DNS rebinding), and then
asks as if it were ours. A server that only this machine reaches therefore goes by this machine's names alone.
"""

from __future__ import annotations

import ipaddress


def host_name(authority: str) -> str:
    """`localhost` of `LocalHost:8000`, `::1` of `[::1]:8000`; a name without its port, in lower case."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0].lower()
    return authority.rpartition(":")[0].lower() if authority.count(":") == 1 else authority.lower()


def is_loopback(name: str) -> bool:
    """Whether a host is this machine alone, by name or address."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")
