"""The insides of uvicorn that ours lean on are those that ours were written for."""

from __future__ import annotations

import hashlib
import inspect
from types import FunctionType

import pytest
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import Server

# What `guarded.py`, `connection.py` and `server.py` override or look into. Where one differs, read what has changed in
# uvicorn, see that ours still holds, and write its new hash here and the new version into pyproject.toml.
_KNOWN = {
    FlowControl: "126debcdaa894c83",
    HttpToolsProtocol: "18fdf324b11bf160",
    RequestResponseCycle: "e67d470d435dcc1c",
    Server.shutdown: "9b33c50562992b1e",
    Server.main_loop: "afccb353a119333f",
    Server.on_tick: "60ea49b06ccf68c1",
    Server.startup: "2aa1d70a244bfcf2",
}


@pytest.mark.parametrize("inside", _KNOWN, ids=lambda inside: inside.__qualname__)
def test_an_inside_of_uvicorn_is_the_known_one(inside: type | FunctionType) -> None:
    assert hashlib.sha256(inspect.getsource(inside).encode()).hexdigest()[:16] == _KNOWN[inside]
