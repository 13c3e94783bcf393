"""A run's page, `report.html`: the search, its result, the training and the model.

Reads the files that the commands wrote to the run directory, at any stage of the run; for each missing result, the page
names the command that makes it. The page is one self-contained file without scripts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from foundation.files import write_text
from foundation.text import printable
from searcher.arch.spec import Spec, read_spec
from searcher.lineage import is_model_current, is_retraining_outdated
from searcher.report import html, values
from searcher.report.drawing import draw_spec
from searcher.report.figures import Figures, figures_of
from searcher.report.run_files import Stage, check_is_there, read_retraining
from searcher.report.sections.comparison import comparison_section
from searcher.report.sections.derivation import derivation_section
from searcher.report.sections.elements import quoted
from searcher.report.sections.model import benchmark_section, variants_section, verification_section
from searcher.report.sections.ranking import ranking_section
from searcher.report.sections.retraining import retraining_section
from searcher.report.sections.search import search_section
from searcher.report.text import describe_spec, headline, task_line

REPORT = "report.html"


def write_report(run: Path) -> Path:
    """Write the page of a run directory into it, and return its path.

    Raises: DocumentError: there is no run, or a file of it is damaged.
    """
    check_is_there(run)
    path = run / REPORT
    write_text(path, _page(run))
    return path


def _page(run: Path) -> str:
    spec = read_spec(run / "spec.json") if (run / "spec.json").exists() else None
    search = Stage.read(run / "search")
    is_outdated = is_retraining_outdated(run)
    retrain, peer = read_retraining(run)
    figures = figures_of(search.config.get("space") if spec is None else spec.space, search.config)
    name = printable(run.resolve().name)
    return html.page(
        f"{name}: ENAS report",
        [
            f"<header><h1>{html.escaped(name)}</h1>",
            *_introduction(spec, search, retrain, peer, figures),
            "</header>",
            html.section("Architecture", _architecture(run, spec)),
            html.section("Search", search_section(run, search, spec, figures)),
            *derivation_section(run, figures),
            html.section(
                "Retraining", _outdated(run) if is_outdated else retraining_section(run, retrain, peer, figures)
            ),
            *ranking_section(run, figures),
            *comparison_section(run),
            *([] if is_outdated else _model_sections(run)),
        ],
    )


def _outdated(run: Path) -> Iterator[str]:
    command = f"enas retrain {quoted(run)} --force"
    yield html.missing("What was retrained here, and its model, are not of this network. One of it is to come", command)


def _model_sections(run: Path) -> Iterator[str]:
    if is_model_current(run) is False:
        what = "The model here is unverified or of other weights than those of this retraining. One of these is to come"
        yield html.section("Verification", [html.missing(what, f"enas export {quoted(run)}")])
        return
    yield html.section("Verification", verification_section(run))
    yield from variants_section(run)
    yield html.section("Benchmark", benchmark_section(run))


def _introduction(spec: Spec | None, search: Stage, retrain: Stage, peer: Stage, figures: Figures) -> Iterator[str]:
    if spec is not None:
        yield f'<p class="muted">{html.escaped(headline(spec))}: {html.escaped(task_line(spec))}</p>'
    result = retrain.summary
    yield html.facts(
        [
            (f"test {figures.metric}", figures.written(result.get(f"test_{figures.metric}"))),
            (f"validation {figures.metric}", figures.written(result.get(f"valid_{figures.metric}"))),
            (f"test {figures.metric} of the LSTM", figures.written(peer.summary.get(f"test_{figures.metric}"))),
            ("parameters", values.count(result.get("parameters"))),
            ("reward in the search", figures.written_reward(search.summary.get("reward"))),
        ],
        key=True,
    )


def _architecture(run: Path, spec: Spec | None) -> Iterator[str]:
    if spec is None:
        yield html.missing("No architecture has been chosen yet", f"enas search --run {quoted(run)} --resume")
        return
    yield f'<div class="scroll">{draw_spec(spec)}</div>'
    yield html.folded("The same as text", describe_spec(spec))
    yield html.folded("spec.json", spec.to_json())
