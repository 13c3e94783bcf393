"""Measures targets over threads, batch sizes and loads: makes the contestants of each point, measures them side by
side, and finds the largest batches and rates that meet a latency goal."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from foundation import statistics
from foundation.machine import Activity, Machine, Reading
from foundation.progress import progress
from runtime.benchmarking.benchmark import BenchmarkError, Contestant, Plan, longest_s, measure
from runtime.benchmarking.results import Answer, Goal, Point, Sweep
from runtime.benchmarking.samples import Series
from runtime.benchmarking.scenarios import Load
from runtime.benchmarking.targets import Target
from runtime.models.inputs import ShapeError, batch_size_of, random_inputs

DEFAULT_BATCH_SIZES = (1, 8, 32)
_LARGEST_BATCH = 1024
_RATE_TRIALS = 6
# A sitting of a load starts with no calls in flight, and lasts at least this long to make that negligible.
_SHORTEST_LOAD_S = 1.0


@dataclass(frozen=True)
class Grid:
    """The values over which a sweep measures."""

    threads: Sequence[int | None]
    """Intra-op threads; None where the targets are not in this process."""
    batch_sizes: Sequence[int] | None
    """None: the models' fixed sizes; else, with a goal, doubled while it is met; else `DEFAULT_BATCH_SIZES`."""
    loads: Sequence[Load]
    """For a server load without a rate, the largest rate that meets the goal is searched."""
    sizes: Mapping[str, int]
    """Free dimension of an input -> its size."""


def run_sweep(
    make_targets: Callable[[int | None], Sequence[Target]],
    *,
    grid: Grid,
    baseline: str | None,
    plan: Plan,
    goal: Goal | None,
    seed: int,
) -> Sweep:
    """Measure every target at every point of the grid, on random inputs.

    A target that fails at a point is left out there, and its failure is recorded. Ctrl-C ends the sweep and keeps what
    was measured.

    Args: make_targets: returns the targets for a number of threads, always with the same names. baseline: the target
        that the others are compared with; None: the first of several.
    Raises: BenchmarkError: nothing can be measured. ShapeError: a size belongs to no free dimension.
    """
    targets = make_targets(grid.threads[0])
    if baseline is None and len(targets) > 1:
        baseline = targets[0].name
    sweep = Sweep(
        started=datetime.now(UTC),
        targets={target.name: target for target in targets},
        baseline=baseline,
        plan=plan,
        seed=seed,
        machine=Machine.inspect(),
        goal=goal,
    )
    before = Reading.take()
    for threads in grid.threads:
        runner = _Runner(
            sweep, make_targets(threads) if threads != grid.threads[0] else targets, threads=threads, sizes=grid.sizes
        )
        runner.run(grid)
        if sweep.is_partial:
            break
    sweep.activity = Activity.between(before, Reading.take())
    if sweep.failures and not any(point.series.calls_per_s for point in sweep.points):
        raise BenchmarkError("; ".join(sweep.failures))
    return sweep


class _Runner:
    """Measures the points of one number of threads and adds them to a sweep."""

    def __init__(
        self, sweep: Sweep, targets: Sequence[Target], *, threads: int | None, sizes: Mapping[str, int]
    ) -> None:
        free = {size for target in targets for spec in target.inputs for size in spec.shape if isinstance(size, str)}
        if strange := [name for name in sizes if name not in free]:
            told = f"free are {', '.join(sorted(free))}" if free else "none is free"
            raise ShapeError(f"--shape {strange[0]}: no input has such a dimension; {told}")
        self._sweep = sweep
        self._targets = targets
        self._threads = threads
        self._sizes = sizes

    def run(self, grid: Grid) -> None:
        sweep, goal = self._sweep, self._sweep.goal
        first_point = len(sweep.points)
        for batch_size in self._batch_sizes(grid.batch_sizes):
            points: list[Point] = []
            for load in grid.loads:
                if load.scenario != "server" or load.rate_per_s is not None:
                    points += self._measure(self._targets, load, batch_size=batch_size)
                if sweep.is_partial:
                    return
            if (
                grid.batch_sizes is None
                and goal is not None
                and not any(goal.is_met_by(point.series) for point in points)
            ):
                break
        if goal is not None:
            self._answer(sweep.points[first_point:], goal, grid.loads)
        searched = [load for load in grid.loads if load.scenario == "server" and load.rate_per_s is None]
        sizes = grid.batch_sizes or itertools.islice(self._batch_sizes(None), 1)
        for load, batch_size in itertools.product(searched, sizes):
            if not sweep.is_partial:
                self._search_rates(load, batch_size=batch_size)

    def _answer(self, points: Sequence[Point], goal: Goal, loads: Sequence[Load]) -> None:
        """Records the largest batch that met the goal, and the largest rate for each batch size and concurrency."""
        for target in self._targets:
            own = [point for point in points if point.series.name == target.name]
            if any(load.scenario == "single-stream" for load in loads):
                single = [point for point in own if point.load.scenario == "single-stream"]
                most, doubt = goal.most_of(single, by=lambda point: point.batch_size)
                size = None if most is None else most.batch_size
                self._sweep.answers.append(Answer(target.name, self._threads, "batch", size, doubt=doubt))
            rated: dict[tuple[int, int], list[Point]] = {}
            for point in own:
                if point.load.rate_per_s is not None:
                    rated.setdefault((point.batch_size, point.load.concurrency), []).append(point)
            for (batch_size, concurrency), tried in rated.items():
                self._answer_rate(target, tried, goal, batch_size=batch_size, concurrency=concurrency)

    def _answer_rate(
        self, target: Target, tried: Sequence[Point], goal: Goal, *, batch_size: int, concurrency: int
    ) -> None:
        most, doubt = goal.most_of(tried, by=lambda point: point.load.rate_per_s)
        rate = None if most is None else most.load.rate_per_s
        self._sweep.answers.append(Answer(target.name, self._threads, "rate", rate, batch_size, concurrency, doubt))

    def _batch_sizes(self, asked: Sequence[int] | None) -> Iterable[int]:
        if asked is not None:
            return asked
        fixed = [size for target in self._targets if (size := batch_size_of(target.inputs, self._known(target)))]
        if fixed:
            return dict.fromkeys(fixed)
        if self._sweep.goal is None:
            return DEFAULT_BATCH_SIZES
        return itertools.takewhile(lambda size: size <= _LARGEST_BATCH, (2**power for power in itertools.count()))

    def _measure(
        self, targets: Sequence[Target], load: Load, *, batch_size: int, duration_s: float | None = None
    ) -> list[Point]:
        """Measures all targets at one place of the grid; adds the points to the sweep and returns them."""
        sweep = self._sweep
        plan = replace(sweep.plan, duration_s=duration_s or sweep.plan.duration_s)
        contestants, hindered = [], []
        for target in targets:
            try:
                contestants.append(self._contestant(target, batch_size=batch_size))
            except ShapeError as error:
                hindered.append(Series(target.name, failure=str(error)))
        if load.scenario != "single-stream":
            plan = replace(plan, sittings=max(1, min(plan.sittings, int(plan.duration_s / _SHORTEST_LOAD_S))))
        measured: tuple[Series, ...] = ()
        if contestants:
            description = f"{load.scenario}, batch {batch_size}: {', '.join(one.name for one in contestants)}"
            with progress(description, total=longest_s(len(contestants), plan)) as advance:
                measurement = measure(contestants, plan=plan, play=load.play(), advance=advance)
            measured = measurement.series
            sweep.calibration_ms += measurement.calibration_ms
            sweep.is_partial |= measurement.is_partial
        points = self._points([*measured, *hindered], load, batch_size=batch_size)
        sweep.points += points
        return points

    def _contestant(self, target: Target, *, batch_size: int) -> Contestant:
        known = self._known(target)
        make = partial(random_inputs, target.inputs, sizes=known, seed=self._sweep.seed, limits=target.limits)
        feed = make(batch_size=batch_size)
        # Smaller if possible: a server may refuse a larger batch.
        other = make(batch_size=batch_size - 1 or 2) if batch_size_of(target.inputs, known) is None else None
        return Contestant(target.name, partial(target.open, feed, other), target.examine)

    def _known(self, target: Target) -> dict[str, int]:
        """The given sizes that belong to this target's dimensions."""
        free = {size for spec in target.inputs for size in spec.shape}
        return {name: size for name, size in self._sizes.items() if name in free}

    def _points(self, series: Sequence[Series], load: Load, *, batch_size: int) -> list[Point]:
        compared = {one.name: one for one in series}
        baseline = compared.get(self._sweep.baseline or "")
        return [
            Point(
                batch_size,
                self._threads,
                load,
                one,
                one.speed_relative_to(baseline) if baseline is not None and one is not baseline else None,
            )
            for one in series
        ]

    def _search_rates(self, load: Load, *, batch_size: int) -> None:
        """Finds and records, for each target, the largest rate of calls that meets the goal."""
        for target in self._targets:
            goal = self._sweep.goal
            assert goal is not None
            tried = self._try_rates(target, load, goal, batch_size=batch_size)
            if self._sweep.is_partial:
                return
            self._answer_rate(target, tried, goal, batch_size=batch_size, concurrency=load.concurrency)

    def _try_rates(self, target: Target, load: Load, goal: Goal, *, batch_size: int) -> list[Point]:
        """Bisects between 0 and the rate of calls answered offline; returns the points that were tried."""
        plan, tried = self._sweep.plan, []
        (capacity,) = self._measure([target], replace(load, scenario="offline"), batch_size=batch_size)
        low, high = 0.0, capacity.series.calls_per_s or 0.0
        for _ in range(_RATE_TRIALS):
            if self._sweep.is_partial or high == 0:
                break
            rate = (low + high) / 2
            # Long enough for the goal's quantile, within the plan's patience.
            needed_s = 2 * statistics.fewest_samples(goal.q) / rate
            (point,) = self._measure(
                [target],
                replace(load, rate_per_s=rate),
                batch_size=batch_size,
                duration_s=min(max(plan.duration_s, needed_s), plan.patience * plan.duration_s),
            )
            tried.append(point)
            low, high = (rate, high) if goal.is_met_by(point.series) else (low, rate)
        return tried
