"""The application: every path of the server, behind its gate."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, Router

from foundation.machine import toolchain_version
from runtime.models.model import Model
from runtime.serving.connections.bodies import Budget, read_body
from runtime.serving.connections.exchange import Exchange, Receive, Scope, Send
from runtime.serving.connections.gate import Gate
from runtime.serving.endpoints.classification import Classify
from runtime.serving.endpoints.inference import Infer
from runtime.serving.endpoints.pictures import Decoder
from runtime.serving.endpoints.work import Intake
from runtime.serving.errors import ForbiddenError, UnavailableError, UnknownError, UnsupportedError
from runtime.serving.metrics import CONTENT_TYPE, Metrics, statistics
from runtime.serving.models.repository import Repository
from runtime.serving.openapi import document as openapi_document
from runtime.serving.protocol.entries import cut, parameters_of
from runtime.serving.protocol.json_objects import parse_json
from runtime.serving.settings import Settings

log = logging.getLogger(__name__)

NAME = "enas"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)
# Triton's extensions that this server lacks; their paths answer 501.
_ABSENT = ("systemsharedmemory", "cudasharedmemory", "trace", "logging")
_MAX_CONTROL_BYTES = 2**20
# Pages load nothing from elsewhere and run only their own scripts.
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
_PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/web/page.css": ("page.css", "text/css; charset=utf-8"),
    "/web/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/web/pictures.js": ("pictures.js", "text/javascript; charset=utf-8"),
    "/web/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}

Control = Callable[[str, str], Awaitable[None]]
"""Loads or unloads a model by name, in every process that serves: `await control("load", "m")`."""


class App:
    """The application behind the gate."""

    gate: Gate
    """In front of the application; set by `build`."""

    def __init__(
        self, repository: Repository, *, settings: Settings, metrics: Metrics, control: Control | None = None
    ) -> None:
        """Args: control: how models are loaded and unloaded on request; None means in this process alone."""
        self._repository = repository
        self._settings = settings
        self._metrics = metrics
        self._control = control or self.control_here
        self._budget = Budget(settings.max_pending_bytes)

    def build(self, load: Callable[[], Coroutine[Any, Any, None]], *, loads_first: bool) -> Gate:
        """The ASGI application.

        Args: load: loads the models. loads_first: load before accepting connections; otherwise the server answers
            probes while it loads.
        """

        async def follow() -> None:
            if not loads_first:
                await load()
            while self._settings.poll_s > 0:
                await asyncio.sleep(self._settings.poll_s)
                await self.follow_models()

        @asynccontextmanager
        async def lifespan(_: Any) -> AsyncIterator[None]:
            if loads_first:
                await load()
            following = asyncio.create_task(follow())
            yield
            following.cancel()
            await self._repository.close()

        router = Router(self._routes(), redirect_slashes=False, default=_unknown_path, lifespan=lifespan)
        self.gate = Gate(router, settings=self._settings, metrics=self._metrics)
        return self.gate

    async def follow_models(self, *, retry: bool = False) -> list[str]:
        """Update the models to the current files; a scan that fails changes nothing, and the next one tries again.

        Args: retry: also retry refused files that have not changed.
        Returns: why files are not served; empty if all of them are.
        """
        try:
            return await self._repository.poll(retry=retry)
        except Exception as error:
            log.exception("the models' files were not followed")
            return [str(error)]

    @property
    def is_any_model_current(self) -> bool:
        """Whether the last scan succeeded and at least one model serves all of its files."""
        return self._repository.is_any_current

    async def control_here(self, action: str, name: str) -> None:
        """Load or unload a model in this process."""
        await (self._repository.load(name) if action == "load" else self._repository.unload(name))

    def _routes(self) -> list[BaseRoute]:
        intake = Intake(self._settings.max_request_bytes, self._budget)
        infer = Infer(self._repository, intake=intake)
        classify = Classify(self._repository, intake=intake, decoder=Decoder(self._settings))
        model, model_version = "/v2/models/{model}", "/v2/models/{model}/versions/{version}"
        routes: list[BaseRoute] = [
            Route(f"{model}/infer", infer, methods=["POST"]),
            Route(f"{model_version}/infer", infer, methods=["POST"]),
            Route("/v1/classify", classify, methods=["POST", "PUT"]),
            Route("/v2", self._server),
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2/models/stats", self._all_statistics),
            Route("/v2/repository/index", self._index, methods=["POST"]),
            Route("/v2/repository/models/{model}/{action:str}", self._change, methods=["POST"]),
            Route("/v1/models", self._models),
            Route("/v1/models/{model}/drawing.svg", self._drawing),
            Route("/metrics", self._exposition),
            Route("/openapi.json", self._openapi),
        ]
        for place in (model, model_version):
            routes += [
                Route(place, self._model),
                Route(f"{place}/ready", self._model_ready),
                Route(f"{place}/config", self._config),
                Route(f"{place}/stats", self._statistics),
                Route(f"{place}/trace/setting", _absent, methods=["GET", "POST"]),
            ]
        for name in _ABSENT:
            routes.append(Route(f"/v2/{name}", _absent, methods=["GET", "POST"]))
            routes.append(Route(f"/v2/{name}/{{rest:path}}", _absent, methods=["GET", "POST"]))
        return routes + [Route(path, _page(*page)) for path, page in _PAGES.items()]

    # --- the server ---------------------------------------------------------------------------------------------------

    async def _server(self, request: Request) -> Response:
        return _json({"name": NAME, "version": toolchain_version(), "extensions": list(EXTENSIONS)})

    async def _live(self, request: Request) -> Response:
        return _json({"live": True})

    async def _ready(self, request: Request) -> Response:
        if self.gate.is_draining:
            raise UnavailableError("the server is shutting down")
        if not self._repository.is_ready:
            raise UnavailableError("not all models are loaded")
        return _json({"ready": True})

    async def _exposition(self, request: Request) -> Response:
        return Response(await asyncio.to_thread(self._metrics.exposition), media_type=CONTENT_TYPE)

    async def _openapi(self, request: Request) -> Response:
        limit = self._settings.max_request_bytes
        return _json(
            openapi_document(version=toolchain_version(), max_request_bytes=limit, models=self._repository.names)
        )

    # --- models -------------------------------------------------------------------------------------------------------

    async def _model(self, request: Request) -> Response:
        served = self._repository.get(**_place(request))
        asked = request.path_params.get("version")
        return _json(served.metadata([asked] if asked else self._repository.versions(served.name)))

    async def _model_ready(self, request: Request) -> Response:
        served = self._repository.get(**_place(request))
        return _json({"name": served.name, "ready": True})

    async def _config(self, request: Request) -> Response:
        return _json(self._repository.get(**_place(request)).config())

    async def _statistics(self, request: Request) -> Response:
        place = _place(request)
        served = self._repository.get(**place)
        versions = [served.version] if place["version"] else self._repository.versions(served.name)
        return await self._statistics_of([(served.name, version) for version in versions])

    async def _all_statistics(self, request: Request) -> Response:
        return await self._statistics_of([(served.name, served.version) for served in self._repository.served()])

    async def _statistics_of(self, models: list[tuple[str, str]]) -> Response:
        collected = await asyncio.to_thread(self._metrics.collect)
        return _json({"model_stats": [statistics(collected, model=name, version=v) for name, v in models]})

    async def _models(self, request: Request) -> Response:
        """The models that the page shows: all that are served, with their metadata."""
        models = [
            {
                **served.metadata(self._repository.versions(served.name)),
                "version": served.version,
                "is_classifier": isinstance(served.model, Model),
                "has_drawing": isinstance(served.model.metadata.get("drawing"), str),
            }
            for served in map(self._repository.get, self._repository.names)
        ]
        return _json({"models": models})

    async def _drawing(self, request: Request) -> Response:
        drawing = self._repository.get(**_place(request)).model.metadata.get("drawing")
        if not isinstance(drawing, str):
            raise UnknownError("this model carries no drawing of its architecture")
        # As an image in a page an SVG runs no scripts; opened by itself it must not either.
        headers = {**_PAGE_HEADERS, "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
        return Response(drawing, media_type="image/svg+xml", headers=headers)

    # --- the repository -----------------------------------------------------------------------------------------------

    async def _index(self, request: Request) -> Response:
        document = await self._control_document(request)
        rows = self._repository.index()
        if document.get("ready") is True:
            rows = [row for row in rows if row["state"] == "READY"]
        return _json(rows)

    async def _change(self, request: Request) -> Response:
        name, action = request.path_params["model"], request.path_params["action"]
        if action not in ("load", "unload"):
            raise UnknownError(f"no such path: {request.url.path[:200]}")
        document = await self._control_document(request)
        if not self._settings.allows_control:
            raise ForbiddenError(
                "models are loaded and unloaded by clients on this machine, or with a token (enas serve --token-file)"
            )
        parameters = parameters_of(document, at="request")
        if strange := [key for key in parameters if key != "unload_dependents"]:
            raise UnsupportedError(f"{cut(strange[0])!r} is not supported: models come from this server's own folder")
        await self._control(action, name)
        return _json({})

    async def _control_document(self, request: Request) -> Mapping[str, Any]:
        headers = Exchange.of(request.scope).headers
        body = await read_body(request.receive, headers, limit=_MAX_CONTROL_BYTES, budget=self._budget)
        return parse_json(body) if body.strip() else {}


def _json(document: Any) -> Response:
    return Response(orjson.dumps(document), media_type="application/json")


def _place(request: Request) -> dict[str, Any]:
    """The model and the version that a path names."""
    return {"name": request.path_params["model"], "version": request.path_params.get("version")}


def _page(name: str, media_type: str) -> Callable[[Request], Awaitable[Response]]:
    content = files("runtime.serving").joinpath("web", name).read_bytes()

    async def page(request: Request) -> Response:
        return Response(content, media_type=media_type, headers=_PAGE_HEADERS)

    return page


async def _absent(request: Request) -> Response:
    raise UnsupportedError(f"{request.url.path[:200]}: this server does not have that part of Triton's protocol")


async def _unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
    raise UnknownError(f"no such path: {scope['path'][:200]}")
