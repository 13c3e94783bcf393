"""Charts of a benchmark: latency against batch size, and accuracy against latency."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from charts.marks import Group, Mark, mark_chart
from foundation import statistics
from foundation.files import write_text
from foundation.statistics import Interval
from runtime.benchmarking.results import Point, Sweep
from runtime.benchmarking.targets import Target


def write_plots(sweep: Sweep, folder: Path) -> list[Path]:
    """Write the charts for which there are enough points into `folder`, and remove an earlier benchmark's other charts.

    Returns: the paths of the charts written.
    """
    pictures = {"benchmark-batches.svg": batch_plot(sweep), "benchmark-accuracy.svg": accuracy_plot(sweep)}
    written = []
    for name, picture in pictures.items():
        if picture is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_text(folder / name, picture + "\n")
            written.append(folder / name)
    return written


def batch_plot(sweep: Sweep) -> str | None:
    """Median latency of single calls against batch size, with 95 % intervals; None with fewer than two sizes."""
    points = _single_calls(sweep)
    sizes = sorted({point.batch_size for point in points})
    if len(sizes) < 2:
        return None
    return mark_chart(
        [Group(name, [_latency_mark(point) for point in of_name]) for name, of_name in _by_name(sweep, points)],
        title="Latency by batch size",
        x_label=f"batch size, {sweep.unit}",
        y_label="median ms, with its 95 % interval",
        x_ticks=sizes,
    )


def accuracy_plot(sweep: Sweep) -> str | None:
    """Accuracy against median latency at the smallest batch, with 95 % intervals; None without two known accuracies."""
    points = _single_calls(sweep)
    smallest = min((point.batch_size for point in points), default=0)
    groups = []
    for point in points:
        accuracy = _accuracy(sweep.targets.get(point.series.name))
        if accuracy is not None and point.batch_size == smallest:
            median = statistics.median(point.series.samples_ms)
            mark = Mark(median.value, accuracy.value, _range(median.interval), _range(accuracy.interval))
            groups.append(Group(_named(sweep, point), [mark]))
    if len(groups) < 2:
        return None
    return mark_chart(
        groups,
        title="Accuracy by latency",
        x_label=f"median ms at batch {smallest}, with its 95 % interval",
        y_label="accuracy, with its 95 % interval",
        y_is_log=False,
        y_percent=True,
    )


def _single_calls(sweep: Sweep) -> list[Point]:
    return [point for point in sweep.points if point.load.scenario == "single-stream" and point.series.samples_ms.size]


def _by_name(sweep: Sweep, points: list[Point]) -> Iterator[tuple[str, list[Point]]]:
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(_named(sweep, point), []).append(point)
    yield from groups.items()


def _named(sweep: Sweep, point: Point) -> str:
    """The target's name, with its number of threads if several numbers were tried."""
    is_varied = len({other.threads for other in sweep.points}) > 1
    return f"{point.series.name}, {point.threads} threads" if is_varied else point.series.name


def _latency_mark(point: Point) -> Mark:
    median = statistics.median(point.series.samples_ms)
    return Mark(point.batch_size, median.value, y_range=_range(median.interval))


def _accuracy(target: Target | None) -> statistics.Estimate | None:
    """The accuracy that the file states, with Wilson's interval; None if it states none."""
    if target is None:
        return None
    match target.facts.accuracy:
        case {"metric": metric} if metric != "accuracy":
            return None
        case {"value": float(value), "count": int(count)} if 0 <= value <= 1 and count > 0:
            return statistics.share(round(value * count), count)
    return None


def _range(interval: Interval | None) -> tuple[float, float] | None:
    return None if interval is None else (interval.low, interval.high)
