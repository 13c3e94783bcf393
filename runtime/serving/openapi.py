"""The server's interface as an OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from runtime.models.protocol_names import HEADER_LENGTH

_JSON = "application/json"
_ERRORS = {
    "400": "not what the protocol or the model takes",
    "401": "the server needs a token",
    "403": "not allowed from here",
    "404": "no such model, version or path",
    "405": "another method is needed",
    "408": "the request did not arrive in time",
    "413": "too large a body",
    "429": "too many requests; Retry-After says when to come again",
    "501": "a part of the protocol that this server does not have",
    "503": "not now: loading, shutting down, or the request's own timeout passed",
}


def document(*, version: str, max_request_bytes: int, models: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document of a server. Args: models: names of the models it serves now."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "enas serve",
            "version": version,
            "description": (
                "The Open Inference Protocol, version 2, with binary tensors, and pictures as they are. "
                f"A request may have {max_request_bytes:,} bytes. Every error is an object with the key `error`."
            ),
        },
        "paths": _paths(models),
        "components": {
            "schemas": _schemas(),
            "responses": {name: _answer(text, _ref("Error")) for name, text in _ERRORS.items()},
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def _paths(models: Sequence[str]) -> dict[str, Any]:
    named: dict[str, Any] = {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "Its name",
        "schema": {"type": "string", **({"enum": list(models)} if models else {})},
    }
    model, of_version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
    statistics = _object("model_stats", model_stats={"type": "array"})
    classify = partial(_operation, "Classify a picture", _ref("Classes"), parameters=_CLASSIFY, body=_PICTURE)
    paths: dict[str, Any] = {
        "/v1/classify": {method: classify(operation=method) for method in ("post", "put")},
        "/v1/models": _get("The models and what they are", _OBJECT),
        "/v1/models/{model}/drawing.svg": _get(
            "The architecture's drawing", None, parameters=[named], media_type="image/svg+xml"
        ),
        "/v2": _get("The server: name, version, extensions", _OBJECT),
        "/v2/health/live": _get("Whether the server answers", _OBJECT),
        "/v2/health/ready": _get("Whether every model is loaded and proven", _OBJECT),
        "/v2/models/stats": _get("Statistics of all models", statistics),
        "/v2/repository/index": {"post": _operation("All models, served or not", _list(_OBJECT), body=_CONTROL)},
        "/metrics": _get("Figures for Prometheus", None, media_type="text/plain"),
    }
    for action in ("load", "unload"):
        change = _operation(f"{action.capitalize()} a model", _OBJECT, parameters=[named], body=_CONTROL)
        paths[f"/v2/repository/models/{{model}}/{action}"] = {"post": change}
    for path, parameters in ((model, [named]), (of_version, [named, _VERSION])):
        headed = [*parameters, _HEADER_LENGTH]
        paths |= {
            path: _get("What a model takes and gives", _OBJECT, parameters=parameters),
            f"{path}/ready": _get("Whether a model serves", _OBJECT, parameters=parameters),
            f"{path}/config": _get("A model's configuration", _OBJECT, parameters=parameters),
            f"{path}/stats": _get("A model's statistics", statistics, parameters=parameters),
            f"{path}/infer": {"post": _operation("Run a model", _ref("InferResponse"), parameters=headed, body=_INFER)},
        }
    return paths


def _get(summary: str, schema: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    return {"get": _operation(summary, schema, **more)}


def _operation(
    summary: str,
    schema: dict[str, Any] | None,
    *,
    parameters: list[dict[str, Any]] | None = None,
    body: dict[str, Any] | None = None,
    media_type: str = _JSON,
    operation: str = "",
) -> dict[str, Any]:
    return {
        "summary": summary,
        **({"operationId": f"{operation} picture"} if operation else {}),
        **({"parameters": parameters} if parameters else {}),
        **({"requestBody": body} if body else {}),
        "responses": {
            "200": _answer("as asked", schema, media_type=media_type),
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS},
        },
    }


def _answer(text: str, schema: dict[str, Any] | None, *, media_type: str = _JSON) -> dict[str, Any]:
    content = {media_type: {"schema": schema} if schema is not None else {}}
    if schema == _ref("InferResponse"):
        content["application/octet-stream"] = {}
    return {"description": text, "content": content}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}


_OBJECT = {"type": "object"}
_TEXT = {"type": "string"}
_VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "description": "A number; without one the highest version answers",
    "schema": {"type": "string", "pattern": "^[1-9][0-9]*$"},
}
_HEADER_LENGTH = {
    "name": HEADER_LENGTH,
    "in": "header",
    "description": "Bytes of JSON in the body, where tensors follow it as bytes",
    "schema": {"type": "string", "pattern": "^[0-9]+$"},
}
_CLASSIFY = [
    {"name": "model", "in": "query", "description": "Needed if there are several", "schema": {"type": "string"}},
    {"name": "version", "in": "query", "schema": {"type": "string"}},
    {"name": "top", "in": "query", "description": "Classes to name", "schema": {"type": "integer", "minimum": 1}},
]
_PICTURE = {
    "required": True,
    "content": {media_type: {} for media_type in ("image/*", "application/octet-stream")},
}
_CONTROL = {"required": False, "content": {_JSON: {"schema": _OBJECT}}}
_INFER = {
    "required": True,
    "content": {_JSON: {"schema": _ref("InferRequest")}, "application/octet-stream": {}},
}


def _schemas() -> dict[str, Any]:
    tensor: dict[str, Any] = {
        "name": _TEXT,
        "datatype": _TEXT,
        "shape": _list({"type": "integer", "minimum": 0}),
        "data": {"type": "array"},
        "parameters": _OBJECT,
    }
    tensors = _list(_object("name", "datatype", "shape", **tensor))
    wishes = _list(_object("name", name=_TEXT, parameters=_OBJECT))
    classes = _list(_object("class", "probability", **{"class": _TEXT, "probability": {"type": "number"}}))
    remark = {**_TEXT, "description": "What of the picture is shown otherwise than it is stored"}
    version = {"model_name": _TEXT, "model_version": _TEXT}
    return {
        "Error": _object("error", error=_TEXT),
        "InferRequest": _object("inputs", id=_TEXT, parameters=_OBJECT, inputs=tensors, outputs=wishes),
        "InferResponse": _object(*version, "outputs", id=_TEXT, **version, outputs=tensors),
        "Classes": _object(
            *("model", "version", "classes", "ms"),
            model=_TEXT,
            version=_TEXT,
            classes=classes,
            ms=_OBJECT,
            remark=remark,
        ),
    }


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(required), "properties": properties}


def _list(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}
