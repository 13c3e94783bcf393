"""A server's counters, for Prometheus and for the protocol's statistics.

Counters have Triton's names; histograms have buckets for models that take less than a millisecond. If several processes
serve together, the numbers are in memory that every process reads (`figures`), so each process reports the totals.

One count takes almost a microsecond, and a request has ten of them. So counts are collected during one turn of the
event loop, and passed to prometheus_client at the beginning of the next.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from runtime.serving.errors import Reason
from runtime.serving.processes.figures import Figures

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS_S = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_MODEL = ("model", "version")
_PHASES = ("input", "infer", "output")


class Metrics:
    """All counters of a process."""

    def __init__(self, figures: Figures | None = None) -> None:
        """Args: figures: shared by all processes that serve together; None if this process serves alone."""
        self.registry = registry = CollectorRegistry()
        self._figures = figures
        self._by_name: dict[str, Any] = {}
        if figures is not None:
            # prometheus_client's own hook for the storage of numbers; set once per process.
            values.ValueClass = figures.value_class()

        def counter(name: str, text: str, labels: Sequence[str] = _MODEL) -> Any:
            return self._by_name.setdefault(name, Counter(name, text, labels, registry=registry))

        def histogram(name: str, text: str, buckets: Sequence[float] = _BUCKETS_S) -> Any:
            return self._by_name.setdefault(name, _Histogram(name, text, _MODEL, registry=registry, buckets=buckets))

        def gauge(name: str, text: str, together: Literal["livesum", "max"]) -> Any:
            metric = Gauge(name, text, _MODEL, registry=registry, multiprocess_mode=together)
            return self._by_name.setdefault(name, metric)

        self.of_models = {
            "success": counter("nv_inference_request_success", "Inference requests answered"),
            "rows": counter("nv_inference_count", "Rows inferred"),
            "batches": counter("nv_inference_exec_count", "Batches run"),
            "request_us": counter("nv_inference_request_duration_us", "Whole time of answered requests, summed"),
            "failed_us": counter("enas_failed_request_duration_us", "Whole time of failed requests, summed"),
            "queue_us": counter("nv_inference_queue_duration_us", "Time that answered requests waited, summed"),
            **{
                phase: counter(f"nv_inference_compute_{phase}_duration_us", f"Compute {phase} time of requests, summed")
                for phase in _PHASES
            },
            "request_s": histogram("enas_request_duration_seconds", "Whole time of an answered request"),
            "queue_s": histogram("enas_queue_duration_seconds", "Time that an answered request waited"),
            "batch_s": histogram("enas_batch_duration_seconds", "Time of a batch in the model"),
            "batch_size": histogram("enas_batch_size", "Rows of a batch", _BATCH_BUCKETS),
            "pending": gauge("nv_inference_pending_request_count", "Inference requests that wait or run", "livesum"),
            "load_s": gauge("nv_model_load_duration_secs", "Time that loading took", "max"),
            "last_ms": gauge("enas_last_inference_ms", "Since 1970", "max"),
        }
        self.failure = counter("nv_inference_request_failure", "Inference requests failed", (*_MODEL, "reason"))
        self.sized_batches = counter("enas_batches", "Batches run, by their rows", (*_MODEL, "size"))
        self.sized_us = counter("enas_batch_duration_us", "Time of batches, summed", (*_MODEL, "size", "phase"))
        self._http = counter("enas_http_requests", "HTTP requests, by their status", ("status",))
        self._statuses: dict[int, int] = defaultdict(int)
        self._soon = _once_a_turn(self._tell)

    def of(self, model: str, version: str) -> ModelMetrics:
        return ModelMetrics(self, model, version)

    def responded(self, status: int) -> None:
        """Count an HTTP response. Must be called in the event loop."""
        self._statuses[status] += 1
        self._soon()

    def _tell(self) -> None:
        for status, count in self._statuses.items():
            self._http.labels(str(status)).inc(count)
        self._statuses.clear()

    def collect(self) -> list[Metric]:
        """The metrics of all processes that serve together."""
        if self._figures is not None:
            # Create the metrics that only other processes have counted so far; they start at 0 here.
            for name, labels in self._figures.labels():
                self._by_name[name].labels(*labels)
        return list(self.registry.collect())

    def exposition(self) -> str:
        """Prometheus's text format. Counters have Triton's names, without `_total`."""
        lines = []
        for metric in self.collect():
            lines += [f"# HELP {metric.name} {metric.documentation}", f"# TYPE {metric.name} {metric.type}"]
            for sample in metric.samples:
                if sample.name.endswith("_created"):
                    continue
                name = sample.name.removesuffix("_total") if metric.type == "counter" else sample.name
                labels = ",".join(f'{key}="{_escaped(text)}"' for key, text in sample.labels.items())
                value = floatToGoString(sample.value)  # type: ignore[no-untyped-call]
                lines.append(f"{name}{{{labels}}} {value}" if labels else f"{name} {value}")
        return "\n".join(lines) + "\n"


class _Histogram(Histogram):
    def observe_all(self, amounts: Sequence[float]) -> None:
        """Call `observe` for each amount, in a third of the time if most of them fall into few buckets."""
        self._sum.inc(sum(amounts))
        for place, count in Tally(bisect_left(self._upper_bounds, amount) for amount in amounts).items():
            self._buckets[place].inc(count)


class ModelMetrics:
    """The counters of one version of a model. Requests are counted in the event loop, batches in any thread."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics = metrics
        self._labels = (model, version)
        self._sizes: dict[int, tuple[Any, dict[str, Any]]] = {}
        self._of = {name: metric.labels(*self._labels) for name, metric in metrics.of_models.items()}
        self._num_came = 0
        """Requests that arrived since the last turn, minus those that failed."""
        self._answered: list[tuple[int, float, float]] = []
        self._soon = _once_a_turn(self._tell)

    def loaded(self, seconds: float) -> None:
        self._of["load_s"].set(seconds)

    def came(self) -> None:
        self._num_came += 1
        self._soon()

    def answered(self, *, rows: int, seconds: float, queued_s: float) -> None:
        self._answered.append((rows, seconds, queued_s))
        self._soon()

    def _tell(self) -> None:
        of = self._of
        of["pending"].inc(self._num_came - len(self._answered))
        self._num_came = 0
        if not self._answered:
            return
        rows, seconds, queued_s = zip(*self._answered, strict=True)
        self._answered.clear()
        of["success"].inc(len(rows))
        of["rows"].inc(sum(rows))
        of["request_us"].inc(sum(seconds) * 1e6)
        of["queue_us"].inc(sum(queued_s) * 1e6)
        of["request_s"].observe_all(seconds)
        of["queue_s"].observe_all(queued_s)
        of["last_ms"].set(int(time.time() * 1e3))

    def failed(self, reason: Reason, *, seconds: float) -> None:
        self._num_came -= 1
        self._soon()
        self._of["failed_us"].inc(seconds * 1e6)
        self._metrics.failure.labels(*self._labels, reason).inc()

    def ran(self, *, requests: int, size: int, phases_s: Mapping[str, float]) -> None:
        """Count a batch. Args: requests: in the batch. size: its rows. phases_s: seconds of input, infer and output."""
        self._of["batches"].inc()
        self._of["batch_size"].observe(size)
        self._of["batch_s"].observe(phases_s["infer"])
        if size not in self._sizes:
            labels = (*self._labels, str(size))
            by_phase = {phase: self._metrics.sized_us.labels(*labels, phase) for phase in _PHASES}
            self._sizes[size] = (self._metrics.sized_batches.labels(*labels), by_phase)
        batches, by_phase = self._sizes[size]
        batches.inc()
        for phase, seconds in phases_s.items():
            self._of[phase].inc(seconds * 1e6 * requests)
            by_phase[phase].inc(seconds * 1e6)


def _once_a_turn(tell: Callable[[], None]) -> Callable[[], None]:
    """A function that schedules `tell` for the event loop's next turn; several calls in one turn run it once."""
    is_due = False

    def soon() -> None:
        nonlocal is_due
        if not is_due:
            is_due = True
            asyncio.get_running_loop().call_soon(now)

    def now() -> None:
        nonlocal is_due
        is_due = False
        tell()

    return soon


def statistics(metrics: Iterable[Metric], *, model: str, version: str) -> dict[str, Any]:
    """One version's entry of the protocol's statistics.

    Source: Triton's extension_statistics.md; perf_analyzer needs every key, and equal counts of the compute phases.
    """
    values: dict[str, float] = defaultdict(float)
    sizes: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for metric in metrics:
        if metric.type not in ("counter", "gauge"):
            continue
        for sample in metric.samples:
            labels = sample.labels
            if (labels.get("model"), labels.get("version")) != (model, version) or sample.name.endswith("_created"):
                continue
            if "size" in labels:
                sizes[int(labels["size"])][labels.get("phase", "batches")] += sample.value
            else:
                values[metric.name] += sample.value
    success = int(values["nv_inference_request_success"])

    def duration(count: float, microseconds: float) -> dict[str, int]:
        return {"count": int(count), "ns": int(microseconds * 1e3)}

    return {
        "name": model,
        "version": version,
        "last_inference": int(values["enas_last_inference_ms"]),
        "inference_count": int(values["nv_inference_count"]),
        "execution_count": int(values["nv_inference_exec_count"]),
        "inference_stats": {
            "success": duration(success, values["nv_inference_request_duration_us"]),
            "fail": duration(values["nv_inference_request_failure"], values["enas_failed_request_duration_us"]),
            "queue": duration(success, values["nv_inference_queue_duration_us"]),
            **{
                f"compute_{phase}": duration(success, values[f"nv_inference_compute_{phase}_duration_us"])
                for phase in _PHASES
            },
            "cache_hit": duration(0, 0),
            "cache_miss": duration(0, 0),
        },
        "response_stats": {},
        "batch_stats": [
            {
                "batch_size": size,
                **{f"compute_{phase}": duration(found["batches"], found[phase]) for phase in _PHASES},
            }
            for size, found in sorted(sizes.items())
        ],
        "memory_usage": [],
    }


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
