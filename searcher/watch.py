"""The state of a run, one line per stage: its progress, metrics and remaining time.

Reads the files that the commands write, and changes none; knows nothing of processes or terminals. A stage's pace comes
from file times: between ends of epochs that were observed; before there are two, since the stage's start, unless it was
resumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searcher.lineage import is_model_current, is_retraining_outdated
from searcher.report.figures import Figures, figures_of
from searcher.report.run_files import Stage, check_is_there, derived_in, read_object, read_retraining
from searcher.report.sections.elements import quoted
from searcher.report.values import duration

_QUIET_S = 20 * 60
"""By default a checkpoint is written every ten minutes."""
_QUIET_EPOCHS = 3


@dataclass(frozen=True)
class Line:
    """The report on a stage."""

    stage: str
    course: str
    """Progress and metrics: changes when the run's files change."""
    time: str = ""
    """Time left, or time without news: changes with every reading."""

    def __str__(self) -> str:
        return f"{self.stage:<13} {', '.join(filter(None, (self.course, self.time)))}"


class Watcher:
    """Follows one run directory.

    Raises: DocumentError: there is no run, or a file of it is damaged.
    """

    def __init__(self, run: Path) -> None:
        check_is_there(run)
        self._run = run
        self._seen: dict[str, tuple[int, float]] = {}
        """For each stage: epochs and the end time of the last one, when it was first read."""

    @property
    def is_finished(self) -> bool:
        """Whether the run has a verified model of its newest retraining."""
        if is_retraining_outdated(self._run) or not (self._run / "model.onnx").exists():
            return False
        verified = read_object(self._run / "verification.json")
        is_of_the_last = verified.get("passed") is True and verified.get("retraining_finished") is True
        return is_of_the_last and is_model_current(self._run) is not False

    def lines(self, *, now: float) -> list[Line]:
        """A line for each stage that has begun. now: seconds since 1970, like file times."""
        search = Stage.read(self._run / "search")
        space = search.config.get("space") or read_object(self._run / "spec.json").get("space")
        figures = figures_of(space, search.config)
        lines = [
            *self._training("search", search, figures, now=now),
            *self._derivation(),
            *(self._outdated() if is_retraining_outdated(self._run) else self._after_search(figures, now=now)),
        ]
        return lines or [Line("run", f"nothing has begun yet: enas search --run {quoted(self._run)}")]

    def _after_search(self, figures: Figures, *, now: float) -> Iterator[Line]:
        for name, stage in zip(("retrain", "retrain-lstm"), read_retraining(self._run), strict=True):
            yield from self._training(name, stage, figures, now=now)
        yield from self._export()

    def _outdated(self) -> Iterator[Line]:
        again = f"enas retrain {quoted(self._run)} --force"
        yield Line("retrain", f"what is there, and its model, are not of the network chosen since: {again}")

    def _training(self, name: str, stage: Stage, figures: Figures, *, now: float) -> Iterator[Line]:
        if not stage.begun:
            return
        if stage.summary:
            yield Line(name, _result(stage.summary, figures))
            return
        folder = self._run / name
        records = [record for record in stage.records if "epoch" in record]
        planned = stage.config.get("num_epochs")
        course = ", ".join([f"epoch {len(records)} of {planned}", *_course(records, figures)])
        yield Line(name, course, self._time(name, folder, len(records), planned, now=now))

    def _time(self, name: str, folder: Path, epochs: int, planned: object, *, now: float) -> str:
        """The remaining time of a stage, or that it seems to have stopped; empty while unknown."""
        pace_s = self._pace_s(name, folder, epochs)
        quiet_s = now - _last_change(folder)
        if quiet_s > max(_QUIET_S, _QUIET_EPOCHS * (pace_s or 0)):
            return f"nothing new for {duration(quiet_s)}: if it was stopped, --resume goes on with it"
        if pace_s is None or not isinstance(planned, int):
            return ""
        if epochs >= planned:
            return "finishing"
        spent_s = now - (folder / "metrics.jsonl").stat().st_mtime
        return f"{duration(max(0, (planned - epochs) * pace_s - spent_s))} left"

    def _pace_s(self, name: str, folder: Path, epochs: int) -> float | None:
        """Seconds per epoch; None while unknown."""
        if epochs == 0:
            return None
        ended = (folder / "metrics.jsonl").stat().st_mtime
        first_epochs, first_ended = self._seen.setdefault(name, (epochs, ended))
        if epochs > first_epochs:
            return (ended - first_ended) / (epochs - first_epochs)
        if len(list((folder / "tensorboard").glob("events.*"))) > 1:  # it was stopped and resumed
            return None
        return (ended - (folder / "config.toml").stat().st_mtime) / epochs

    def _derivation(self) -> Iterator[Line]:
        folder = self._run / "derivation"
        if not folder.is_dir():
            return
        if summary := read_object(folder / "summary.json"):
            if summary.get("chosen") != derived_in(self._run):
                back = f"`enas derive {quoted(self._run)} --resume` puts it back, or says why not"
                yield Line("derive", f"done, but spec.json is not its choice: {back}")
                return
            took = duration(summary.get("seconds"))
            chosen, candidates = summary.get("chosen"), summary.get("candidates")
            yield Line("derive", f"done in {took}: {chosen}, of {candidates} candidates")
            return
        rungs = sorted(folder.glob("rung-*"), key=lambda rung: int(rung.name.partition("-")[2]))
        planned = Stage.read(folder).config.get("rung_epochs", rungs)
        if not rungs:
            yield Line("derive", "choosing candidates")
            return
        trainings = [path for path in rungs[-1].iterdir() if (path / "config.toml").exists()]
        finished = sum((path / "summary.json").exists() for path in trainings)
        yield Line("derive", f"rung {len(rungs)} of {len(planned)}, trainings finished: {finished}")

    def _export(self) -> Iterator[Line]:
        if self.is_finished:
            size = (self._run / "model.onnx").stat().st_size
            yield Line("export", f"model.onnx, {size / 1000:,.0f} kB")


def _course(records: Sequence[Mapping[str, Any]], figures: Figures) -> Iterator[str]:
    """The newest metrics of a search or of a retraining, with the best validation epoch."""
    if not records:
        return
    newest, metric = records[-1], figures.metric
    if reward := figures.written_reward(newest.get("reward")):
        control = figures.written_reward(newest.get("random_reward"))
        yield f"reward {reward}" + (f" (random {control})" if control else "")
    if trained := figures.written(newest.get(f"train_{metric}")):
        yield f"train {metric} {trained}"
    # Where classes are balanced, epochs are chosen by balanced accuracy.
    name = "balanced accuracy" if "valid_balanced_accuracy" in newest else metric
    key = f"valid_{name.replace(' ', '_')}"
    scored = [record for record in records if isinstance(record.get(key), int | float)]
    if scored:
        best = (max if figures.percent else min)(scored, key=lambda record: record[key])
        yield f"valid {name} {figures.written(scored[-1][key])}"
        if best is not scored[-1]:
            yield f"best {figures.written(best[key])} in epoch {best['epoch']}"


def _result(summary: Mapping[str, Any], figures: Figures) -> str:
    """The duration and results of a finished stage."""
    parts = [
        ("reward", figures.written_reward(summary.get("reward"))),
        *((f"{split} {figures.metric}", figures.written(summary.get(f"{split}_{figures.metric}"), digits=2))
          for split in ("test", "valid")),
    ]  # fmt: skip
    found = ", ".join(f"{name} {value}" for name, value in parts if value)
    took = duration(summary.get("seconds"))
    return f"done{f' in {took}' if took else ''}{f': {found}' if found else ''}"


def _last_change(folder: Path) -> float:
    names = ("metrics.jsonl", "checkpoint.pt", "config.toml")
    return max(path.stat().st_mtime for name in names if (path := folder / name).exists())
