"""Formats a benchmark: as a document for programs, tables for people, and Markdown for a page."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from foundation import statistics
from foundation.statistics import Estimate, Interval
from foundation.tables import ABSENT, aligned
from runtime.benchmarking.results import Answer, Point, Sweep
from runtime.benchmarking.samples import Sitting
from runtime.benchmarking.scenarios import SCENARIOS, Scenario
from runtime.benchmarking.targets import Target

_SCHEMA = 2
# The percentiles of the tables; the document has all.
_SHOWN = (0.90, 0.99)
_MOST_DISTURBANCES = 6


# --- for programs -----------------------------------------------------------------------------------------------------


def document(sweep: Sweep, *, command: Sequence[str]) -> dict[str, Any]:
    """Returns the whole benchmark, including every sample, as JSON types."""
    return {
        "schema": _SCHEMA,
        "kind": "benchmark",
        "command": list(command),
        "started": sweep.started.isoformat(timespec="seconds"),
        "is_partial": sweep.is_partial,
        "disturbances": sweep.disturbances(),
        "failures": sweep.failures,
        "percentile_rule": {
            "value": "the ceil(q * n)-th smallest of n samples",
            "fewest_samples": {_percentile(q): statistics.fewest_samples(q) for q in statistics.PERCENTILES},
        },
        "seed": sweep.seed,
        "plan": asdict(sweep.plan),
        "machine": asdict(sweep.machine),
        "activity": None if sweep.activity is None else asdict(sweep.activity),
        "calibration_ms": sweep.calibration_ms,
        "baseline": sweep.baseline,
        "unit": sweep.unit,
        "models": [_describe_target(target) for target in sweep.targets.values()],
        "goal": None if sweep.goal is None else asdict(sweep.goal),
        "answers": [asdict(answer) for answer in sweep.answers],
        "points": [_describe_point(point) for point in sweep.points],
    }


def _describe_target(target: Target) -> dict[str, Any]:
    facts = asdict(target.facts)
    return {
        "name": target.name,
        "inputs": [{"name": s.name, "dtype": str(s.dtype), "shape": list(s.shape)} for s in target.inputs],
        "bytes": facts.pop("num_bytes"),
        **facts,
    }


def _describe_point(point: Point) -> dict[str, Any]:
    series, samples = point.series, point.series.samples_ms
    described: dict[str, Any] = {
        "name": series.name,
        "batch_size": point.batch_size,
        "intra_op_threads": point.threads,
        **{key: value for key, value in asdict(point.load).items() if key != "seed"},
        "failure": series.failure,
        "remark": series.remark,
        "open_ms": series.median_ms("open_ms"),
        "first_ms": series.median_ms("cold_ms"),
        "new_shape_ms": series.median_ms("new_shape_ms"),
        "count": int(samples.size),
    }
    if samples.size:
        described |= {
            "median_ms": _estimate(statistics.median(samples)),
            "mean_ms": _finite(float(samples.mean())),
            "percentiles_ms": {_percentile(q): _estimate(e) for q, e in statistics.percentiles(samples).items()},
            "calls_per_s": series.calls_per_s,
            "items_per_s": point.items_per_s,
            "speed": _estimate(point.speed),
        }
    return described | {"sittings": [_describe_sitting(sitting) for sitting in series.sittings]}


def _describe_sitting(sitting: Sitting) -> dict[str, Any]:
    return {
        "open_ms": sitting.open_ms,
        "first_ms": sitting.cold_ms,
        "new_shape_ms": sitting.new_shape_ms,
        "warm_up": None if sitting.warm_up is None else asdict(sitting.warm_up),
        "traffic": None if sitting.traffic is None else asdict(sitting.traffic),
        # Turn by turn: turn i of every contestant of a point belongs to round i of the sitting. None: the call failed.
        "samples_ms": [[_finite(ns / 1e6) for ns in turn] for turn in sitting.turns],
    }


def _estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    """Returns JSON types; None if the estimate is unknown, and for infinite values, which JSON cannot represent."""
    if estimate is None:
        return None
    interval = estimate.interval
    return {
        "value": _finite(estimate.value),
        "interval": None if interval is None else {"low": _finite(interval.low), "high": _finite(interval.high)},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


# --- for people -------------------------------------------------------------------------------------------------------


def text(sweep: Sweep) -> str:
    """Returns the conditions, one table for each scenario, and answers and remarks, as text."""
    tables = [f"{title}\n{aligned(header, rows)}" for title, header, rows in _tables(sweep)]
    parts = ["\n".join(_conditions(sweep)), *tables, "\n".join([*_answers(sweep), *_remarks(sweep)])]
    return "\n\n".join(part for part in parts if part)


def markdown(sweep: Sweep) -> str:
    """Returns the same as Markdown, with the tables first and their conditions below."""
    lines: list[str] = []
    for title, header, rows in _tables(sweep):
        table = [header, [":--", *["--:"] * (len(header) - 1)], *rows]
        lines += [f"**{title}**", "", *(f"| {' | '.join(row)} |" for row in table), ""]
    return "\n".join([*lines, *(f"- {line}" for line in [*_answers(sweep), *_conditions(sweep), *_remarks(sweep)]), ""])


def _conditions(sweep: Sweep) -> list[str]:
    targets = [f"{target.name}: {_target_line(target)}" for target in sweep.targets.values()]
    facts = [target.facts for target in sweep.targets.values()]
    remarks = dict.fromkeys(fact.provider_remark for fact in facts if fact.provider_remark)
    hows = dict.fromkeys(how for fact in facts if (how := _how(fact.settings)))
    plan = sweep.plan
    sampling = f"random inputs (seed {sweep.seed}), {plan.duration_s:g} s a point in up to {plan.sittings} sittings"
    return [*targets, *remarks, *hows, sampling, sweep.machine.describe()]


def _target_line(target: Target) -> str:
    """Size, hash, precision, accuracy and where it runs, in one line."""
    facts, parts = target.facts, []
    if facts.num_bytes is not None:
        parts.append(f"{facts.num_bytes / 1e3:,.0f} kB")
    if facts.sha256 is not None:
        parts.append(f"sha256 {facts.sha256[:12]}")
    if facts.precision is not None:
        parts.append(facts.precision)
    match facts.accuracy:
        case {"metric": "perplexity", "split": split, "value": float(value), "count": int(count)}:
            parts.append(f"perplexity {value:.2f} ({split}, {count:,} tokens)")
        case {"split": split, "value": float(value), "count": int(count)}:
            parts.append(f"accuracy {value:.2%} ({split}, {count:,} images)")
    if facts.note is not None:
        parts.append(facts.note)
    return " · ".join([*parts, f"runs on {facts.runs_on}"])


def _how(settings: Mapping[str, Any]) -> str:
    """The requested settings of sessions in this process, in one line; empty without any."""
    if not settings:
        return ""
    parts = [f"idle threads {'spin' if settings['spinning'] else 'sleep'}"]
    if settings["io_binding"]:
        parts.append("IO binding")
    parts.append(f"copies of inputs and outputs {'included' if settings['copies'] else 'left out'}")
    if settings["cuda_graph"]:
        parts.append("CUDA graph")
    if settings["conv_search"] != "exhaustive":
        parts.append(f"convolution search {settings['conv_search']}")
    return ", ".join(parts)


@dataclass(frozen=True)
class _Column:
    header: str
    cell: Callable[[Point], str]


def _tables(sweep: Sweep) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of every scenario that was measured."""
    for scenario in SCENARIOS:
        points = [point for point in sweep.points if point.load.scenario == scenario]
        if points:
            columns = _columns(sweep, scenario)
            yield scenario, [c.header for c in columns], [[c.cell(point) for c in columns] for point in points]


def _columns(sweep: Sweep, scenario: Scenario) -> list[_Column]:
    columns = [_Column("", lambda point: point.series.name), _Column("batch", lambda point: str(point.batch_size))]
    if len({point.threads for point in sweep.points}) > 1:
        columns.append(_Column("threads", lambda point: str(point.threads)))
    if scenario == "multi-stream":
        columns.append(_Column("streams", lambda point: str(point.load.streams)))
    if scenario in ("offline", "server"):
        columns.append(_Column("in flight", lambda point: str(point.load.concurrency)))
        if scenario == "server":
            columns.append(_Column("calls/s due", lambda point: _number(point.load.rate_per_s)))
        columns.append(_Column("lost", lambda point: f"{np.isinf(point.series.samples_ms).sum():,}"))
    if scenario == "single-stream":
        columns += [
            _Column(title, lambda point, name=name: _number(point.series.median_ms(name)))  # type: ignore[misc]
            for title, name in (("open ms", "open_ms"), ("first ms", "cold_ms"), ("new shape ms", "new_shape_ms"))
        ]
    columns.append(_Column("median ms (95 %)", lambda point: _stated(_median(point))))
    columns += [
        _Column(f"{_percentile(q)} ms (95 %)", lambda point, q=q: _stated(_quantile(point, q)))  # type: ignore[misc]
        for q in sorted({*_SHOWN, *([] if sweep.goal is None else [sweep.goal.q])} - {0.5})
    ]
    columns.append(_Column(f"{sweep.unit}/s", lambda point: _rate(point.items_per_s)))
    columns.append(_Column("samples", lambda point: f"{point.series.samples_ms.size:,}"))
    if sweep.baseline is not None:
        columns.append(_Column(f"speed vs {sweep.baseline}", lambda point: _speed(point, baseline=sweep.baseline)))
    return columns


def _answers(sweep: Sweep) -> list[str]:
    goal = sweep.goal
    if goal is None:
        return []
    promise = f"a {_percentile(goal.q)} of {goal.latency_ms:g} ms or less"
    takes = f" ({_percentile(goal.q)} takes {statistics.fewest_samples(goal.q)})"
    return [f"{answer.name}{_at(answer)}: {_told(answer, promise, takes)}" for answer in sweep.answers]


def _told(answer: Answer, promise: str, takes: str) -> str:
    if answer.doubt is None:
        return f"{_most(answer)} for {promise}"
    are_few = answer.doubt == "too few samples"
    untold, why = ("too few samples to tell", takes) if are_few else ("the samples do not settle", "")
    if answer.most is None:
        return f"{untold} which {answer.of} has {promise}{why}"
    return f"{_most(answer)} for {promise}; {untold} whether a larger one has it{why}"


def _at(answer: Answer) -> str:
    threads = "" if answer.threads is None else f", {answer.threads} intra-op threads"
    return threads + (f", batch {answer.batch_size}, {answer.concurrency} in flight" if answer.of == "rate" else "")


def _most(answer: Answer) -> str:
    if answer.of == "batch":
        return "no batch that was tried" if answer.most is None else f"batches of up to {answer.most:g}"
    if answer.most is None:
        return "no rate that was tried"
    return f"up to {_number(answer.most)} calls/s"


def _remarks(sweep: Sweep) -> list[str]:
    lines = ["PARTIAL: interrupted; these are the samples taken until then."] if sweep.is_partial else []
    if sweep.failures:
        lines.append(f"FAILED: {'; '.join(sweep.failures)}.")
    if sweep.remarks:
        lines.append(f"CAUTION: {'; '.join(sweep.remarks)}.")
    if disturbances := sweep.disturbances():
        more = len(disturbances) - _MOST_DISTURBANCES
        told = [*disturbances[:_MOST_DISTURBANCES], *([f"and {more} more, in the document"] if more > 0 else [])]
        lines.append(f"NOISY: {'; '.join(told)}.")
    if sweep.waits_for_others:
        lines.append(
            "Threads that share a call wait for the slowest of them, torch's most: beside other processes compare with "
            "--intra-op-threads 1."
        )
    if any(not statistics.supports(point.series.samples_ms.size, max(_SHOWN)) for point in sweep.points):
        needed = ", ".join(f"{_percentile(q)} takes {statistics.fewest_samples(q)}" for q in _SHOWN)
        lines.append(f"{ABSENT} too few samples ({needed}): a longer --duration gives more.")
    if any(point.speed is not None and point.speed.interval is None for point in sweep.points):
        lines.append(f"({ABSENT}) a ratio has an interval from six sittings on: --sittings, and a --duration for them.")
    return lines


def _median(point: Point) -> Estimate | None:
    samples = point.series.samples_ms
    return statistics.median(samples) if samples.size else None


def _quantile(point: Point, q: float) -> Estimate | None:
    samples = point.series.samples_ms
    return statistics.quantile(samples, q) if statistics.supports(samples.size, q) else None


def _percentile(q: float) -> str:
    return f"p{q * 100:g}"


def _number(value: float | None) -> str:
    """Formats a number with three significant digits and all digits before the decimal point."""
    if value is None:
        return ABSENT
    if math.isinf(value):
        return "∞"
    decimals = 2 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{value:,.{max(0, decimals)}f}"


def _rate(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.0f}" if value >= 100 else _number(value)


def _stated(estimate: Estimate | None) -> str:
    if estimate is None:
        return ABSENT
    return _number(estimate.value) + _interval(estimate.interval)


def _interval(interval: Interval | None) -> str:
    return f" ({ABSENT})" if interval is None else f" ({_number(interval.low)} – {_number(interval.high)})"


def _speed(point: Point, *, baseline: str | None) -> str:
    if point.series.name == baseline:
        return "1"
    if point.speed is None:
        return ABSENT
    interval = point.speed.interval
    written = f" ({ABSENT})" if interval is None else f" ({interval.low:.3f} – {interval.high:.3f})"
    return f"{point.speed.value:.3f}×{written}"
