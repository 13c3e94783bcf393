"""The search judged: shared weights against training alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charts.scatter import scatter_chart
from searcher.arch.document import DocumentError
from searcher.arch.spec import Spec, spec_digest
from searcher.report import html, values
from searcher.report.figures import Figures
from searcher.report.run_files import read_object
from searcher.report.sections.elements import ABSENT, table_of


def ranking_section(run: Path, spec: Spec | None, figures: Figures) -> Iterator[str]:
    """Shared weights against training alone, where that was measured of this search."""
    document = read_object(run / "ranking.json")
    if spec is None or document.get("spec_sha256") != spec_digest(spec):
        return
    try:
        parts = list(_parts(document, figures))
    except (KeyError, TypeError, IndexError):
        raise DocumentError(str(run / "ranking.json"), ["not what `enas rank` writes"]) from None
    yield html.section("Ranking", parts)


def _parts(document: Mapping[str, Any], figures: Figures) -> Iterator[str]:
    shared, alone = document["predictors"][0], document["alone"]
    agreed = shared["agreement"]
    words = (
        f"{len(document['architectures'])} random architectures, scored with the shared weights on one half of valid, "
        f"and on the other after training each from scratch for {document['epochs']} epochs, with {len(alone)} seeds: "
        f"Kendall's τ is {values.decimal(agreed['tau']) or ABSENT}; a random order comes as far with probability "
        f"{values.three_digits(agreed['p_value']) or ABSENT}. Two seeds agree at "
        f"{values.decimal(document['seed_tau']) or ABSENT}, which is the most that can be asked for."
    )
    yield f"<p>{html.escaped(words)}</p>"
    yield table_of([_row(one, figures) for one in document["predictors"]] + [_ceiling(document)])
    scored = [
        (score, statistics.mean(trained))
        for score, *trained in zip(shared["scores"], *alone, strict=True)
        if None not in (score, *trained)
    ]
    if scored:
        chart = scatter_chart(
            scored,
            title="Shared weights against weights of its own",
            x_label=f"{figures.reward}, shared weights",
            y_label=f"validation {figures.metric}, trained alone, mean over seeds",
            x_percent=figures.percent,
            y_percent=figures.percent,
        )
        yield f'<div class="charts">{chart}</div>'


def _row(predictor: Mapping[str, Any], figures: Figures) -> dict[str, Any]:
    agreed = predictor["agreement"]
    return {
        "predictor": predictor["name"],
        "τ": values.decimal(agreed["tau"]),
        "standard error": values.decimal(agreed["standard_error"]),
        "p": values.three_digits(agreed["p_value"]),
        "τ in the upper half": values.decimal(agreed["upper_half_tau"]),
        f"regret of the first {agreed['top']}": figures.written(agreed["regret"], digits=2),
    }


def _ceiling(document: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "predictor": "another seed",
        "τ": values.decimal(document["seed_tau"]),
        "standard error": values.decimal(document["seed_standard_error"]),
    }
