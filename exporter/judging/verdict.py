"""Evaluates a comparison's trainings: accuracies by latency, differences and spreads, with confidence intervals.

Knows nothing of how or where the trainings ran.
"""

# S seeds, N test images

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from exporter.judging import evidence
from exporter.judging.contenders import Contender, Field, Kind, LeftOut
from searcher.nn.complexity import complexity_of
from searcher.running.run_folder import RunError

_POOLS: dict[str, tuple[Kind, ...]] = {
    "random": ("random",),
    "references": ("reference",),
    "all": ("found", "random", "reference"),
}


@dataclass(frozen=True)
class Result:
    """The result of a training."""

    valid_accuracy: float
    best_epoch: int
    answers: np.ndarray
    """[N], 1 where a test image is classified correctly, else 0."""


@dataclass(frozen=True)
class _Judged:
    contender: Contender
    results: Sequence[Result]
    answers: evidence.Replicates

    @property
    def valid_accuracy(self) -> float:
        return float(np.mean([result.valid_accuracy for result in self.results]))

    def document(self) -> dict[str, Any]:
        cost = complexity_of(self.contender.spec).total
        return {
            "name": self.contender.name,
            "kind": self.contender.kind,
            "latency_ms": asdict(self.contender.latency_ms),
            "latency_ratio": asdict(self.contender.ratio),
            "parameters": cost.parameters,
            "multiply_adds": cost.multiply_adds,
            "valid_accuracy": self.valid_accuracy,
            "test_accuracy": asdict(evidence.accuracy(self.answers)),
            "trainings": [
                {
                    "valid_accuracy": result.valid_accuracy,
                    "test_accuracy": float(result.answers.mean()),
                    "best_epoch": result.best_epoch,
                }
                for result in self.results
            ],
            "spec": self.contender.spec.to_document(),
        }


def verdict(field: Field, results: Sequence[Result | None], *, num_seeds: int) -> dict[str, Any]:
    """The part of `comparison.json` that depends on the trainings.

    Args: results: of all contenders in their order, `num_seeds` of each; None where a training diverged, which leaves
    its network out.
    Raises: RunError: a training of the found network diverged.
    """
    left_out = list(field.left_out)
    kept: list[tuple[Contender, list[Result]]] = []
    for index, contender in enumerate(field.contenders):
        own = results[index * num_seeds : (index + 1) * num_seeds]
        whole = [result for result in own if result is not None]
        if len(whole) == num_seeds:
            kept.append((contender, whole))
            continue
        reason = f"{num_seeds - len(whole)} of its {num_seeds} trainings diverge"
        if contender.kind == "found":
            raise RunError(f"the found network cannot be judged: {reason}")
        left_out.append(LeftOut(contender.name, contender.kind, reason))
    networks = evidence.of_networks([np.stack([result.answers for result in own]) for _, own in kept])
    judged = [_Judged(*one, answers) for one, answers in zip(kept, networks, strict=True)]
    return {
        "cpu": field.cpu,
        "disturbances": list(field.disturbances),
        "test_count": len(judged[0].results[0].answers),
        "networks": [one.document() for one in judged],
        "left_out": [asdict(one) for one in left_out],
        "differences": _differences(judged),
        "spreads": _spreads(judged),
    }


def _differences(judged: Sequence[_Judged]) -> list[dict[str, Any]]:
    """The found network's accuracy minus that of each reference, the best one first, that of the best random network,
    and the mean of the random ones. The best is chosen on valid: chosen on test, it would owe a part of its accuracy to
    the luck of those images."""
    found = judged[0]

    def rivals_of(kind: Kind) -> list[_Judged]:
        rivals = [one for one in judged if one.contender.kind == kind]
        return sorted(rivals, key=lambda one: -one.valid_accuracy)

    def less(what: str, name: str, answers: evidence.Replicates) -> dict[str, Any]:
        return {"less": what, "name": name, **asdict(evidence.difference(found.answers, answers))}

    differences = [
        less("reference" if number else "best reference", one.contender.name, one.answers)
        for number, one in enumerate(rivals_of("reference"))
    ]
    if drawn := rivals_of("random"):
        differences.append(less("best random", drawn[0].contender.name, drawn[0].answers))
    if len(drawn) > 1:
        mean = evidence.of_draws([one.answers for one in drawn])
        differences.append(less("mean random", f"{len(drawn)} networks", mean))
    return differences


def _spreads(judged: Sequence[_Judged]) -> list[dict[str, Any]]:
    spreads = []
    for pool, kinds in _POOLS.items():
        found = evidence.spread([one.answers for one in judged if one.contender.kind in kinds])
        if found is not None:
            spreads.append({"pool": pool, **asdict(found), "nothing_to_rank": found.is_noise})
    return spreads
