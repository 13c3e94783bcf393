"""A benchmark target: a model on a server that speaks the Open Inference Protocol, version 2 over REST.

Works with any such server; tensors travel as bytes where the server offers it (`binary_tensor_data`), else as JSON.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote, urlsplit

import numpy as np

from runtime.benchmarking.benchmark import Call, Opened
from runtime.benchmarking.targets import Facts, Feed, remark_of
from runtime.models.inputs import TensorSpec, tensor_spec
from runtime.models.protocol_names import DATATYPES, DTYPES, HEADER_LENGTH

_TIMEOUT_S = 60.0
# Raised if the server has closed the connection. All are OSErrors too.
_CLOSED = (http.client.RemoteDisconnected, ConnectionResetError, BrokenPipeError, ConnectionAbortedError)


class ClientError(ValueError):
    """A server cannot be reached, or does not answer as the protocol says."""


@dataclass(frozen=True)
class Server:
    """The address of a server."""

    scheme: str
    host: str
    port: int
    base: str
    """The part of paths before `/v2`."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every request, for example with a token."""

    @classmethod
    def of_url(cls, url: str, *, headers: Mapping[str, str] | None = None) -> Server:
        """Raises: ClientError: not an address such as http://localhost:8000."""
        try:
            parts = urlsplit(url if "//" in url else f"http://{url}")
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError
            parts.hostname.encode("idna")  # as connecting does
            port = parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError:
            raise ClientError(f"{url}: not an address of a server; expected one as http://localhost:8000") from None
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"), dict(headers or {}))

    def connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.scheme == "https" else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=_TIMEOUT_S)

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}{self.base}"


@dataclass(frozen=True)
class RemoteTarget:
    """A model on a server; a call is a request on a persistent connection."""

    name: str
    server: Server
    inputs: Sequence[TensorSpec]
    limits: Mapping[str, int]
    facts: Facts
    is_binary: bool
    """Whether tensors travel as bytes."""

    @classmethod
    def find(cls, name: str, *, url: str, headers: Mapping[str, str] | None = None) -> RemoteTarget:
        """Returns the model `name` of the server at `url`.

        Raises: ClientError: no server answers, it does not speak the protocol, or it has no such model.
        """
        server = Server.of_url(url, headers=headers)
        about = _get(server, "/v2")
        model = _get(server, f"/v2/models/{quote(name, safe='')}")
        extensions = about.get("extensions")
        is_binary = isinstance(extensions, list) and "binary_tensor_data" in extensions
        versions = f"{about.get('name', 'a server')} {about.get('version', '')}".strip()
        return cls(
            name=name,
            server=server,
            inputs=_inputs(model, at=f"{server}: model {name}"),
            limits={},
            facts=Facts(
                file=f"{server}/v2/models/{name}",
                runs_on=f"{versions} at {server}",
                note=f"tensors as {'bytes' if is_binary else 'JSON: the server offers no binary tensors'}",
            ),
            is_binary=is_binary,
        )

    @contextmanager
    def open(self, feed: Feed, other: Feed | None) -> Iterator[Opened]:
        connections: list[http.client.HTTPConnection] = []

        def connect(feed: Feed) -> Call:
            connections.append(self.server.connect())
            return partial(self._infer, connections[-1], *self._request(feed))

        try:
            yield Opened(connect=lambda: connect(feed), other_shape=None if other is None else lambda: connect(other)())
        finally:
            for connection in connections:
                connection.close()

    def examine(self, result: object) -> str | None:
        """Returns a remark on an answer, or None. Raises: ClientError: the answer does not follow the protocol."""
        assert isinstance(result, tuple)
        try:
            return remark_of(list(outputs_of(*result)))
        except (ValueError, KeyError, TypeError) as error:
            raise ClientError(f"{self.server} answers something else than the protocol's outputs: {error}") from error

    def _request(self, feed: Feed) -> tuple[bytes, dict[str, str]]:
        """Returns the body and the headers of a request with a feed."""
        inputs = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": DATATYPES[array.dtype],
                **self._payload(array),
            }
            for name, array in feed.items()
        ]
        document: dict[str, Any] = {"inputs": inputs}
        if not self.is_binary:
            return json.dumps(document).encode(), {"Content-Type": "application/json"}
        document["parameters"] = {"binary_data_output": True}
        header = json.dumps(document).encode()
        body = b"".join([header, *(array.tobytes() for array in feed.values())])
        return body, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(header))}

    def _payload(self, array: np.ndarray) -> dict[str, Any]:
        if self.is_binary:
            return {"parameters": {"binary_data_size": array.nbytes}}
        return {"data": array.ravel().tolist()}

    def _infer(
        self, connection: http.client.HTTPConnection, body: bytes, headers: dict[str, str]
    ) -> tuple[bytes, int | None]:
        """Sends one request; returns the answer's bytes, and how many of them are JSON (None: all)."""
        path = f"{self.server.base}/v2/models/{quote(self.name, safe='')}/infer"
        headers = {**self.server.headers, **headers}
        try:
            try:
                response, answer = _ask(connection, path, body, headers)
            except _CLOSED:
                # A server may close a connection while it is idle; then the next request fails.
                response, answer = _ask(connection, path, body, headers)
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise ClientError(f"{self.server}: {error or type(error).__name__}") from error
        if response.status != 200:
            raise ClientError(f"{self.server}: {response.status}: {_error_in(answer)}")
        length = response.headers.get(HEADER_LENGTH)
        return answer, None if length is None else int(length)


def _ask(
    connection: http.client.HTTPConnection, path: str, body: bytes, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, bytes]:
    """Send a request and read its answer.

    Raises: one of _CLOSED: the server had closed the persistent connection. OSError, HTTPException: any other failure,
    such as an answer that is cut short.
    """
    is_kept = connection.sock is not None
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
    except _CLOSED as error:
        connection.close()
        if not is_kept:
            raise http.client.HTTPException(str(error) or type(error).__name__) from error
        raise
    try:
        return response, response.read()
    except (OSError, http.client.IncompleteRead) as error:
        raise http.client.HTTPException(f"its answer was cut short: {error}") from error


def outputs_of(answer: bytes, header_length: int | None) -> Iterator[np.ndarray]:
    """Yields the output tensors of an inference answer.

    Raises: ValueError, KeyError, TypeError: it is not an inference answer.
    """
    outputs = json.loads(answer[:header_length])["outputs"]
    offset = header_length or 0
    for output in outputs:
        dtype = DTYPES[output["datatype"]]
        size = output.get("parameters", {}).get("binary_data_size")
        if size is None:
            yield np.array(output["data"], dtype=dtype).reshape(output["shape"])
            continue
        count = size // dtype.itemsize
        yield np.frombuffer(answer, dtype=dtype, count=count, offset=offset).reshape(output["shape"])
        offset += size


def _get(server: Server, path: str) -> dict[str, Any]:
    connection = server.connect()
    try:
        connection.request("GET", f"{server.base}{path}", headers=dict(server.headers))
        response = connection.getresponse()
        answer = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise ClientError(f"{server}: nobody answers there: {error or type(error).__name__}") from error
    finally:
        connection.close()
    try:
        document = json.loads(answer)
        if not isinstance(document, dict):
            raise ValueError
    except ValueError:
        kind = response.headers.get("Content-Type", "nothing said of its kind")
        raise ClientError(
            f"{server}{path}: not a server of the Open Inference Protocol: it answers {response.status}, {kind}"
        ) from None
    if response.status != 200:
        raise ClientError(f"{server}{path}: {response.status}: {_error_in(answer)}")
    return document


def _inputs(model: Mapping[str, Any], *, at: str) -> tuple[TensorSpec, ...]:
    try:
        return tuple(tensor_spec(value["name"], DTYPES[value["datatype"]], value["shape"]) for value in model["inputs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ClientError(f"{at}: its inputs cannot be read: {error!r}") from error


def _error_in(answer: bytes) -> str:
    """Returns the error message in a server's answer, as one line."""
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return answer[:200].decode(errors="replace").partition("\n")[0] or "no reason given"
