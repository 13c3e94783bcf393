"""The search judged: shared weights against training alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from charts.scatter import scatter_chart
from searcher.arch.spec import Spec, spec_digest
from searcher.report import html, values
from searcher.report.figures import Figures
from searcher.report.run_files import read_object
from searcher.report.sections.elements import ABSENT, numbers


def ranking_section(run: Path, spec: Spec | None, figures: Figures) -> Iterator[str]:
    """Shared weights against training alone, where that was measured of this search."""
    document = read_object(run / "ranking.json")
    if spec is None or document.get("spec_sha256") != spec_digest(spec):
        return
    shared, alone = document.get("shared"), document.get("alone")
    if not (isinstance(shared, list) and isinstance(alone, list)):
        return
    scored = [tuple(pair) for pair in zip(shared, alone, strict=False) if len(numbers(list(pair))) == 2]
    if not scored:
        return
    tau, p_value = document.get("tau"), document.get("p_value")
    words = (
        f"{len(shared)} random architectures, scored with the shared weights, and after training each from scratch "
        f"for {document.get('epochs')} epochs: Kendall's τ is {values.decimal(tau) or ABSENT}; a random order comes "
        f"as far with probability {values.three_digits(p_value) or ABSENT}."
    )
    chart = scatter_chart(
        scored,
        title="Shared weights against weights of its own",
        x_label=f"{figures.reward}, shared weights",
        y_label=f"validation {figures.metric}, trained alone",
        x_percent=figures.percent,
        y_percent=figures.percent,
    )
    yield html.section("Ranking", [f"<p>{html.escaped(words)}</p>", f'<div class="charts">{chart}</div>'])
