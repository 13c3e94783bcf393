"""Other forms of a run's model, int8 and float16 beside the float32 file, kept only if they are worthwhile.

A variant must pass a gate of accuracy, on the valid split, and one of speed or size on this machine. For another
machine it must pass only that of accuracy, and is marked as unmeasured. `variants.json` contains all trials, for each
form the latest.
"""

# N images, K classes

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import onnx

from datasets.store import ImageStore
from exporter.conversion.convert import check
from exporter.delivery.acceptance import AccuracyLoss
from exporter.delivery.forms import FORMS, Form
from exporter.delivery.verify import Comparison, compare, predicted
from exporter.latency.measure import Effort, measure
from foundation.files import strict_json, whole_file, write_text
from foundation.machine import Machine
from foundation.seeds import numpy_generator
from foundation.tables import ABSENT, aligned
from runtime.models.artifact import MODEL, load
from runtime.models.model import Model
from runtime.models.onnx_file import OnnxFile
from runtime.models.tolerance import Tolerance
from searcher.lineage import are_variants_current

VARIANTS = "variants.json"
Goal: TypeAlias = Literal["speed", "size", "elsewhere"]
Log: TypeAlias = Callable[[str], None]

_SPEED_UP = 1.05
_CALIBRATION_IMAGES = 256
_BATCH_SIZE = 64
_EFFORT = Effort(seconds=1.0, sittings=6)


@dataclass(frozen=True)
class Trial:
    """One setting of a form that was tried."""

    name: str
    settings: str
    goal: Goal
    points: float
    """Percentage points of accuracy on valid that it may lose."""
    accuracy: float
    """On valid, in [0, 1]."""
    base_accuracy: float
    """The float32 file's."""
    num_bytes: int
    accurate: bool
    ms: float | None = None
    base_ms: float | None = None
    speed_up: float | None = None
    """The float32 file's latency divided by its own, batch 1, one thread; None if it was not measured."""
    kept: bool = False
    test_accuracy: float | None = None
    reason: str = ""
    """Why it was kept, or not."""


def make_variants(
    run: Path, store: ImageStore, names: Sequence[str], *, points: float, goal: Goal, log: Log
) -> list[Trial]:
    """Try variants of a run's model.onnx, and write those that pass, and `variants.json`, into the run.

    Args: names: keys of FORMS. points: of accuracy that a variant may lose.

    An earlier variant of these names that no longer passes is removed; variants of other names and their trials stay.
    Returns: the trials of these names.
    Raises: ArtifactError: there is no model.onnx.
    """
    base = Model.open(run / MODEL, provider="cpu", threads=1)
    proto = onnx.load(run / MODEL)
    trials: list[Trial] = []
    others = [trial for trial in _recorded(run) if trial.name not in names]
    # If this is killed, `variants.json` must not describe earlier files beside new ones.
    _record(run, base, others)
    for name in names:
        form = FORMS[name]
        log(f"trying {form.file}")
        tried = _tried(form, proto, base, store, goal=goal, points=points)
        place = max(range(len(tried)), key=lambda k: (tried[k][0].accurate, tried[k][0].accuracy))
        found, data = tried[place]
        best = _gated(found, data, base)
        if best.kept:
            described, test_accuracy = _described(form, data, best, store)
            best = replace(best, test_accuracy=test_accuracy)
            with whole_file(run / form.file) as path:
                path.write_bytes(described)
        else:
            (run / form.file).unlink(missing_ok=True)
        trials += [best if k == place else _passed_over(trial, best) for k, (trial, _) in enumerate(tried)]
    _record(run, base, [*others, *trials])
    return trials


def _record(run: Path, base: Model, trials: Sequence[Trial]) -> None:
    """Write `variants.json`, or remove it if there are no trials."""
    if not trials:
        (run / VARIANTS).unlink(missing_ok=True)
        return
    document = {"schema": 2, "model_sha256": base.sha256, "trials": [asdict(trial) for trial in trials]}
    write_text(run / VARIANTS, strict_json(document) + "\n")


def _recorded(run: Path) -> list[Trial]:
    """The trials in `variants.json`; none if it is not about the run's present model, or cannot be read."""
    try:
        if not are_variants_current(run):
            return []
        document = json.loads((run / VARIANTS).read_text(encoding="utf-8"))
        # Schema 1 has one goal, and points, for all trials.
        common = {key: document[key] for key in ("goal", "points") if key in document}
        return [Trial(**common, **trial) for trial in document["trials"]]
    except (ValueError, KeyError, TypeError):
        return []


def _tried(
    form: Form, proto: onnx.ModelProto, base: Model, store: ImageStore, *, goal: Goal, points: float
) -> list[tuple[Trial, onnx.ModelProto]]:
    """The trial and the model of every setting of a form, judged on valid."""
    images, labels = store.images("valid"), store.labels("valid")
    expected = _logits(base, images)
    tried = []
    for settings, data in form.candidates(proto, lambda: _calibration_images(store)):
        found = _logits(_opened(data), images)
        comparison = _compared(found, expected, labels, _tolerance(form))
        assert comparison.accuracy is not None
        assert comparison.torch_accuracy is not None
        trial = Trial(
            name=form.name,
            settings=settings,
            goal=goal,
            points=points,
            accuracy=comparison.accuracy,
            base_accuracy=comparison.torch_accuracy,
            num_bytes=len(check(data)),
            accurate=AccuracyLoss(points).accepts(comparison),
        )
        tried.append((trial, data))
    return tried


def _passed_over(trial: Trial, best: Trial) -> Trial:
    """A trial with the reason why another setting of its form was chosen."""
    if trial.accuracy < best.accuracy:
        reason = "another setting is more accurate"
    elif best.accurate and not trial.accurate:
        reason = "a logit is not finite"
    else:
        reason = "another setting is as accurate, and was tried first"
    return replace(trial, reason=reason)


def _calibration_images(store: ImageStore) -> np.ndarray:
    """Random images of train, uint8 [N, H, W, C]."""
    count = store.count("train")
    chosen = numpy_generator(0, "calibration").choice(count, min(_CALIBRATION_IMAGES, count), replace=False)
    return store.take("train", np.sort(chosen))


def _tolerance(form: Form) -> Tolerance:
    return Tolerance(form.atol, form.rtol)


def _gated(best: Trial, data: onnx.ModelProto, base: Model) -> Trial:
    """The trial of a form's best setting, with whether it is kept, and why."""
    if not best.accurate:
        lost = 100 * (best.base_accuracy - best.accuracy)
        numbers = f"loses {lost:.2f} points of accuracy on valid" if lost > 0 else "a logit is not finite"
        return replace(best, reason=numbers)
    if best.goal == "elsewhere":
        return replace(best, kept=True, reason="for another machine: speed is unmeasured")
    latencies = measure([base.path.read_bytes(), check(data)], effort=_EFFORT)
    base_ms, ms = (estimate.value for estimate in latencies.ms)
    speed_up = 1 / latencies.ratios[1].value
    best = replace(best, ms=ms, base_ms=base_ms, speed_up=speed_up)
    if best.goal == "size":
        smaller = best.num_bytes < base.num_bytes
        return replace(best, kept=smaller, reason=f"{best.num_bytes:,} bytes for {base.num_bytes:,}")
    return replace(best, kept=speed_up >= _SPEED_UP, reason=f"{speed_up:.2f} times as fast here; {_SPEED_UP} is asked")


def _described(form: Form, data: onnx.ModelProto, trial: Trial, store: ImageStore) -> tuple[bytes, float]:
    """The variant's file, with its own metadata in place of the float32 file's; and its accuracy on test."""
    model = _opened(data)
    images, labels = store.images("test"), store.labels("test")
    accuracy = float((_logits(model, images).argmax(axis=1) == labels).mean())
    golden = dict(model.metadata["golden"])
    pictures, _ = model.golden_samples()
    golden |= {"logits": _logits(model, pictures).tolist(), **asdict(_tolerance(form))}
    entries: dict[str, Any] = {
        "enas.golden": golden,
        "enas.precision": form.name,
        "enas.accuracy": {"split": "test", "value": accuracy, "count": len(labels)},
        "enas.variant": {
            "machine": None if trial.goal == "elsewhere" else Machine.inspect().describe(),
            **{key: value for key, value in asdict(trial).items() if key not in ("name", "kept", "test_accuracy")},
        },
    }
    _set_metadata(data, entries)
    return check(data), accuracy


def _set_metadata(model: onnx.ModelProto, entries: Mapping[str, Any]) -> None:
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, kept | {key: strict_json(value, indent=None) for key, value in entries.items()})


def _opened(proto: onnx.ModelProto) -> Model:
    return Model.of(*load(OnnxFile(Path(MODEL), check(proto)), provider="cpu", threads=1))


def _logits(model: Model, images: np.ndarray) -> np.ndarray:
    return predicted(model, images, batch_size=_BATCH_SIZE)


def _compared(found: np.ndarray, expected: np.ndarray, labels: np.ndarray, tolerance: Tolerance) -> Comparison:
    return compare("valid", _BATCH_SIZE, found, expected, labels=labels, tolerance=tolerance)


def remove_stale(run: Path) -> None:
    """Remove variants of a model that is no longer the run's: they would look like variants of the present one."""
    if not _recorded(run):
        for name in (*(form.file for form in FORMS.values()), VARIANTS):
            (run / name).unlink(missing_ok=True)


def is_current(run: Path, names: Sequence[str], *, points: float, goal: Goal) -> bool:
    """Whether `variants.json` contains trials of these forms of the run's present model with these gates."""
    trials = [trial for trial in _recorded(run) if trial.name in names]
    return (
        {trial.name for trial in trials} == set(names)
        and all((trial.goal, trial.points) == (goal, points) for trial in trials)
        and all((run / FORMS[trial.name].file).exists() for trial in trials if trial.kept)
    )


def describe(trials: Sequence[Trial]) -> str:
    """All that was tried, as a table for a person."""
    header = ["form", "settings", "valid", "float32", "bytes", "ms", "float32", ""]
    rows = []
    for trial in trials:
        times = [f"{value:.3f}" if value is not None else ABSENT for value in (trial.ms, trial.base_ms)]
        verdict = f"KEPT, {trial.test_accuracy:.2%} on test: " if trial.test_accuracy is not None else ""
        accuracies = [f"{trial.accuracy:.2%}", f"{trial.base_accuracy:.2%}"]
        row = [trial.name, trial.settings, *accuracies, f"{trial.num_bytes:,}", *times, verdict + trial.reason]
        rows.append(row)
    return aligned(header, rows, left=(0, 1, 7))
