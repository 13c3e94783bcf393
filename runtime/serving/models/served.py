"""A served model: opened, checked on its embedded samples, warmed up, and behind its batcher."""

# B batch

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from foundation.allowance import usable_cores
from runtime.models.artifact import ArtifactError, load
from runtime.models.inputs import batch_size_of
from runtime.models.kinds import AnyModel, model_of
from runtime.models.language_model import LanguageModel
from runtime.models.model import Model
from runtime.models.onnx_file import OnnxFile
from runtime.models.providers import Tuning
from runtime.serving.batching.batcher import Batcher
from runtime.serving.batching.batches import Done
from runtime.serving.batching.pace import ALL_IN_THREADS, loop_share
from runtime.serving.errors import RequestError
from runtime.serving.metrics import Metrics, ModelMetrics
from runtime.serving.protocol.signature import Signature, configured, described
from runtime.serving.settings import Settings

Feed = Mapping[str, np.ndarray]
PLATFORM = "onnxruntime_onnx"
# Spinning threads would take cores from the server's own threads; exhaustive search costs a second per batch size.
_TUNING = Tuning(spinning=False, conv_search="heuristic")


class Users:
    """Counts the requests that use a model, including those that have not reached its queue yet."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __enter__(self) -> None:
        self._count += 1
        self._none.clear()

    def __exit__(self, *failure: object) -> None:
        self._count -= 1
        if self._count == 0:
            self._none.set()

    async def are_gone(self) -> None:
        await self._none.wait()


@dataclass(frozen=True)
class ServedModel:
    """One version of a model, ready to serve."""

    name: str
    version: str
    model: AnyModel
    signature: Signature
    batcher: Batcher[Feed, Feed]
    metrics: ModelMetrics
    users: Users

    @classmethod
    def open(cls, file: OnnxFile, *, name: str, version: str, settings: Settings, metrics: Metrics) -> ServedModel:
        """Open a model file, check it on its embedded samples, and run every batch size once.

        Raises: ArtifactError: not a complete model from `enas export`, its batch size is fixed, or its outputs differ
            from the embedded ones. ProviderError: CUDA was requested but is unavailable.
        """
        start = time.perf_counter()
        artifact, problems = load(file, provider=settings.provider, threads=settings.threads, tuning=_TUNING)
        model = model_of(artifact, problems)
        check = model.check_golden()
        if not check.passed:
            raise ArtifactError(
                f"{file.path}: it does not give the outputs that it carries: "
                f"they differ by up to {check.max_difference:.3g}"
            )
        signature = Signature.of(model.session.ort, model=name, max_batch_size=settings.limits.max_batch_size)
        if batch_size_of(signature.inputs, {}) is not None:
            raise ArtifactError(f"{file.path}: its batch size is fixed; a model of free batch size is needed")
        model_metrics = metrics.of(name, version)
        runner = _Runner(model.session.ort, signature, model_metrics)
        share = loop_share(cores=usable_cores() // settings.workers, on_cpu=model.session.device == "cpu")
        batcher: Batcher[Feed, Feed] = Batcher(
            runner,
            limits=settings.limits,
            name=f"{name}-{version}",
            # The time of a batch does not predict the time of another one with other shapes.
            loop_share=ALL_IN_THREADS if signature.free_inputs else share,
        )
        for size in batcher.sizes:
            runner.warm_up(size)
        model_metrics.loaded(time.perf_counter() - start)
        return cls(name, version, model, signature, batcher, model_metrics, Users())

    @property
    def labels(self) -> Sequence[str]:
        return self.model.classes if isinstance(self.model, Model) else ()

    def begin(
        self,
        feed: Feed,
        tell: Callable[[Done[Feed] | Exception], None],
        *,
        batch_size: int,
        timeout_s: float | None,
    ) -> Callable[[], None]:
        """Queue a feed that was checked against the signature. Raises: RequestError. Otherwise as `Batcher.enter`."""
        self._check_tokens(feed)
        # Feeds of one batch must have equal shapes.
        key = tuple([feed[name].shape[1:] for name in self.signature.free_inputs])
        return self.batcher.enter(feed, tell, size=batch_size, key=key, timeout_s=timeout_s)

    async def close(self) -> None:
        """Finish the requests of all users, and stop."""
        await self.users.are_gone()
        await self.batcher.close()

    def _check_tokens(self, feed: Feed) -> None:
        if not isinstance(self.model, LanguageModel):
            return
        highest = len(self.model.tokenizer.vocabulary) - 1
        for name in ("tokens", "targets"):
            if name in feed and not (feed[name].min() >= 0 and feed[name].max() <= highest):
                raise RequestError(f"input '{name}': the vocabulary's tokens are 0 to {highest}")

    def metadata(self, versions: Sequence[str]) -> dict[str, Any]:
        """The answer of `GET /v2/models/NAME`. Args: versions: all that are served."""
        session = self.model.session
        return {
            "name": self.name,
            "versions": list(versions),
            "platform": PLATFORM,
            "inputs": described(self.signature.inputs),
            "outputs": described(self.signature.outputs),
            "properties": {
                "kind": self.model.kind,
                "sha256": self.model.sha256,
                "device": session.describe(),
                "providers": list(session.providers),
                "nodes": dict(session.nodes),
                **({"remark": session.remark} if session.remark else {}),
                **({"classes": list(self.labels)} if self.labels else {}),
                **{key: self.model.metadata[key] for key in ("accuracy", "precision") if key in self.model.metadata},
            },
        }

    def config(self) -> dict[str, Any]:
        """The answer of `GET /v2/models/NAME/config`: Triton's ModelConfig."""
        limits = self.batcher.limits
        is_on_cpu = self.model.session.device == "cpu"
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"all": {}},
            "max_batch_size": limits.max_batch_size,
            "input": configured(self.signature.inputs),
            "output": [
                {**output, **({"label_filename": "labels.txt"} if output["dims"] == [len(self.labels)] else {})}
                for output in configured(self.signature.outputs)
            ],
            "instance_group": [{"count": limits.runners, "kind": "KIND_CPU" if is_on_cpu else "KIND_GPU"}],
            "dynamic_batching": {
                "preferred_batch_size": list(self.batcher.sizes),
                "max_queue_delay_microseconds": round(limits.max_queue_delay_s * 1e6),
                "default_queue_policy": {"max_queue_size": limits.max_queue_size},
            },
        }


@dataclass(frozen=True)
class _Runner:
    """Runs batches of feeds in the session."""

    ort: Any
    signature: Signature
    metrics: ModelMetrics

    def __call__(self, feeds: Sequence[Feed], size: int) -> list[Feed]:
        start = time.perf_counter()
        batch = {spec.name: _together([feed[spec.name] for feed in feeds], size) for spec in self.signature.inputs}
        prepared = time.perf_counter()
        arrays = self.ort.run(None, batch)
        ran = time.perf_counter()
        outputs = {spec.name: array for spec, array in zip(self.signature.outputs, arrays, strict=True)}
        first = self.signature.inputs[0].name
        results: list[Feed] = []
        offset = 0
        for feed in feeds:
            end = offset + len(feed[first])
            results.append({name: array[offset:end] for name, array in outputs.items()})
            offset = end
        phases_s = {"input": prepared - start, "infer": ran - prepared, "output": time.perf_counter() - ran}
        self.metrics.ran(requests=len(feeds), size=size, phases_s=phases_s)
        return results

    def warm_up(self, size: int) -> None:
        """Run zeros once, so that no client waits for the slow first run of a shape."""
        feed = {
            spec.name: np.zeros((size, *(n if isinstance(n, int) else 1 for n in spec.shape[1:])), spec.dtype)
            for spec in self.signature.inputs
        }
        self.ort.run(None, feed)


def _together(arrays: Sequence[np.ndarray], size: int) -> np.ndarray:
    """The arrays as one of `size` rows, padded with zeros."""
    if len(arrays) == 1 and len(arrays[0]) == size:
        return arrays[0]
    # numpy's concatenate releases the interpreter's lock for every part, and waits for it if the event loop is busy.
    row = arrays[0][:1]
    filling = bytes(row.nbytes * (size - sum(map(len, arrays))))
    parts = [np.ascontiguousarray(array).data for array in arrays]
    return np.frombuffer(b"".join([*parts, filling]), row.dtype).reshape(size, *row.shape[1:])
