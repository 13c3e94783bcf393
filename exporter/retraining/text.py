"""Texts about a retraining for the user: its task, the line of an epoch, the result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from datasets.tokens import UNITS
from exporter.retraining.config import RetrainConfig
from foundation.text import shape_text
from searcher.arch.tasks import ImageClassification, Task
from searcher.training.learner import BALANCED, more_is_better


def task_text(task: Task) -> str:
    """A task in a few words."""
    if isinstance(task, ImageClassification):
        names = ", ".join(task.classes[:3]) + (", …" if len(task.classes) > 3 else "")
        return f"images of {shape_text(task.input_shape)} in {len(task.classes)} classes ({names})"
    return f"text of {task.vocabulary_size:,} different {UNITS[task.tokens]}"


def result_text(summary: Mapping[str, Any]) -> str:
    """The result of a retraining, from its summary."""
    kind = "perplexity" if "test_perplexity" in summary else "accuracy"
    of = f"of {summary['test_count']:,} images" if kind == "accuracy" else f"over {summary['test_count']:,} tokens"
    balanced = summary.get("test_balanced_accuracy")
    beside = "" if balanced is None else f", balanced accuracy {score_text('accuracy', balanced)} (mean recall)"
    valid = f", valid {score_text(kind, summary[f'valid_{kind}'])}" if f"valid_{kind}" in summary else ""
    if (chosen_by := f"valid_{BALANCED}") in summary:
        valid = f", chosen by valid balanced accuracy, {score_text(BALANCED, summary[chosen_by])}{valid}"
    return (
        f"test {kind} {score_text(kind, summary[f'test_{kind}'])} {of}{beside} "
        f"(epoch {summary['best_epoch']}{valid}; {summary['parameters']:,} parameters)"
    )


def score_text(metric: str, value: float | None) -> str:
    """A score as `90.65%` or `123.40`; records contain None for an infinite one."""
    if value is None or math.isinf(value):
        return "infinite"
    if more_is_better(metric):
        return f"{value:.2%}"
    return f"{value:.2f}" if value < 1e6 else f"{value:.1e}"


def epoch_text(record: Mapping[str, Any], config: RetrainConfig, metric: str) -> str:
    """The progress line of an epoch, from its record."""
    figures = "".join(
        f", {split} {metric} {score_text(metric, record[key])}"
        for split in ("train", "valid")
        if (key := f"{split}_{metric}") in record
    )
    if record.get("kept") == "average":
        figures += f" averaged ({score_text(metric, record[f'valid_{metric}_weights'])} not)"
    if (key := f"valid_{BALANCED}") in record:
        figures += f", valid balanced accuracy {score_text(BALANCED, record[key])}"
    pace = f", {record['step_ms']:.0f} ms a step" if "step_ms" in record else ""
    return f"epoch {record['epoch']}/{config.num_epochs}: loss {record['loss']:.3f}{figures}{pace}"
