"""The report's section on a ranking: scores with shared weights compared with training from scratch."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from charts.scatter import scatter_chart
from foundation.document import DocumentError
from foundation.tables import ABSENT
from searcher.arch.catalog import find_spec
from searcher.arch.spec import spec_digest
from searcher.report import html, values
from searcher.report.figures import Figures
from searcher.report.run_files import read_object
from searcher.report.sections.elements import quoted, table_of

_TAU_OF_LOSS, _ERROR_OF_LOSS, _SHARE_OF_LOSS = "τ by training loss", "its standard error", "its share of the most"


def ranking_section(run: Path, figures: Figures) -> Iterator[str]:
    """Yields the comparison of shared weights with training from scratch, if this search was ranked."""
    document = read_object(run / "ranking.json")
    own = run / "search" / "spec.json"
    searched = own if own.exists() else run / "spec.json"  # earlier versions wrote only the latter
    if not searched.exists() or document.get("spec_sha256") != spec_digest(find_spec(searched)):
        return
    if "judgements" not in document:
        again = f"enas rank {quoted(run)} --resume"
        yield html.section("Ranking", [html.missing("This ranking is an earlier version's. One to be drawn", again)])
        return
    try:
        parts = list(_parts(document, figures))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        raise DocumentError(str(run / "ranking.json"), ["not what `enas rank` writes"]) from None
    yield html.section("Ranking", parts)


def _parts(document: Mapping[str, Any], figures: Figures) -> Iterator[str]:
    by_metric, by_loss = document["judgements"]
    shared, alone = document["predictors"][0], by_metric["alone"]
    agreed = by_metric["agreements"][0]
    seeds = "one seed" if len(alone) == 1 else f"{len(alone)} seeds"
    words = (
        f"{len(document['architectures'])} random architectures, scored with the shared weights on one half of valid, "
        f"and on the other after training each from scratch for {document['epochs']} epochs, with {seeds}: Kendall's τ "
        f"is {values.decimal(agreed['tau']) or ABSENT}; a random order comes as far with probability "
        f"{values.three_digits(agreed['p_value']) or ABSENT}. A few epochs of training are the rungs by which a "
        "derivation chooses. Another seed, where there is one, agrees as far as a predictor can be asked to. A small "
        "valid tells networks apart badly: the training loss of the last epoch judges them, too."
    )
    yield f"<p>{html.escaped(words)}</p>"
    rows = [
        _row(one["name"], of_metric, of_loss, figures)
        for one, of_metric, of_loss in zip(
            document["predictors"], by_metric["agreements"], by_loss["agreements"], strict=True
        )
    ]
    yield table_of([*rows, _ceiling(by_metric, by_loss)])
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


def _row(name: str, agreed: Mapping[str, Any], of_loss: Mapping[str, Any], figures: Figures) -> dict[str, Any]:
    return {
        "predictor": name,
        "τ": values.decimal(agreed["tau"]),
        "standard error": values.decimal(agreed["standard_error"]),
        "share of the most": values.decimal(agreed.get("share")),
        "p": values.three_digits(agreed["p_value"]),
        "τ in the upper half": values.decimal(agreed["upper_half_tau"]),
        f"regret of the first {agreed['top']}": figures.written(agreed["regret"], digits=2),
        _TAU_OF_LOSS: values.decimal(of_loss["tau"]),
        _ERROR_OF_LOSS: values.decimal(of_loss["standard_error"]),
        _SHARE_OF_LOSS: values.decimal(of_loss.get("share")),
    }


def _ceiling(by_metric: Mapping[str, Any], by_loss: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "predictor": "another seed",
        "τ": values.decimal(by_metric["seed_tau"]),
        "standard error": values.decimal(by_metric["seed_standard_error"]),
        _TAU_OF_LOSS: values.decimal(by_loss["seed_tau"]),
        _ERROR_OF_LOSS: values.decimal(by_loss["seed_standard_error"]),
    }
