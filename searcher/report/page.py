"""A run's page, `report.html`: what was searched, what was found, how training went, what the model does.

Reads what the commands have left in the run directory, in whatever state that is; what is not there yet is named with
the command that makes it. One file that opens anywhere, with nothing in it from outside and no script.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from charts.curves import Series, line_chart
from charts.dots import Row, dot_chart
from charts.scatter import scatter_chart
from datasets.files import write_text
from searcher.arch.document import DocumentError
from searcher.arch.spec import Spec, read_spec, spec_digest
from searcher.report import html, values
from searcher.report.drawing import draw_spec
from searcher.report.figures import Figures, figures_of
from searcher.report.run_files import Stage, read_object, table_in
from searcher.report.text import describe_spec, headline, task_line

REPORT = "report.html"
_ABSENT = "–"


def write_report(run: Path) -> Path:
    """Write the page of a run directory into it, and return its path.

    Raises: DocumentError: there is no run, or a file of it is damaged.
    """
    if not run.is_dir():
        raise DocumentError(str(run), [f"no such run directory; `enas search --run {_quoted(run)}` makes it"])
    path = run / REPORT
    write_text(path, _page(run))
    return path


def _page(run: Path) -> str:
    spec = read_spec(run / "spec.json") if (run / "spec.json").exists() else None
    search = Stage(run / "search")
    retrain, peer = Stage(run / "retrain"), Stage(run / "retrain-lstm")
    figures = figures_of(search.config.get("space") if spec is None else spec.space, search.config)
    name = run.resolve().name
    return html.page(
        f"{name}: ENAS report",
        [
            f"<header><h1>{html.escaped(name)}</h1>",
            *_introduction(spec, search, retrain, peer, figures),
            "</header>",
            html.section("Architecture", _architecture(run, spec)),
            html.section("Search", _search(run, search, spec, figures)),
            html.section("Retraining", _retraining(run, retrain, peer, figures)),
            *_ranking(run, spec, figures),
            html.section("Verification", _verification(run)),
            html.section("Benchmark", _benchmark(run)),
        ],
    )


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


# --- architecture -----------------------------------------------------------------------------------------------------


def _architecture(run: Path, spec: Spec | None) -> Iterator[str]:
    if spec is None:
        yield html.missing("No architecture has been chosen yet", f"enas search --run {_quoted(run)} --resume")
        return
    yield f'<div class="scroll">{draw_spec(spec)}</div>'
    yield html.folded("The same as text", describe_spec(spec))
    yield html.folded("spec.json", spec.to_json())


# --- search -----------------------------------------------------------------------------------------------------------


def _search(run: Path, search: Stage, spec: Spec | None, figures: Figures) -> Iterator[str]:
    if not search.begun:
        if spec is None:
            yield html.missing("Nothing has been searched yet", f"enas search --run {_quoted(run)}")
        else:
            yield "<p>The architecture does not come from a search of this run.</p>"
            yield _scalars(spec.provenance)
        return
    config, summary = search.config, search.summary
    yield html.facts(
        [
            ("preset", config.get("preset")),
            ("data set", config.get("dataset")),
            ("policy", table_in(config, "policy").get("kind")),
            ("seed", config.get("seed")),
            ("epochs", _progress(search)),
            ("time", values.duration(summary.get("seconds"))),
            ("device", summary.get("device")),
        ]
    )
    if not summary:
        yield html.missing("The search is not finished", f"enas search --run {_quoted(run)} --resume")
    reward, control = search.series("controller", "reward"), search.series("random", "random_reward", dashed=True)
    if reward.points and control.points:
        yield f"<p>{html.escaped(_comparison(reward, control, figures))}</p>"
    yield _charts(
        [
            (
                "Mean reward of a policy step",
                f"{figures.reward}, both on the same minibatches",
                figures.percent,
                [reward, control, search.series("moving average", "baseline")],
            ),
            ("Entropy of the policy", "nats per architecture", False, [search.series("entropy", "entropy")]),
            ("Training loss of the shared weights", f"nats per {figures.unit}", False, [search.series("loss", "loss")]),
            (
                f"Training {figures.metric} of the shared weights",
                "of the architectures sampled",
                figures.percent,
                [search.series(figures.metric, f"train_{figures.metric}")],
            ),
        ]
    )
    if sampled := _numbers(summary.get("sampled_rewards")):
        yield from _derivation(sampled, _numbers(summary.get("finalist_rewards")), summary.get("reward"), figures)
    yield _versions(summary)


def _comparison(reward: Series, control: Series, figures: Figures) -> str:
    """What the two curves say in the end, in a sentence."""
    (epoch, ours), (_, theirs) = reward.points[-1], control.points[-1]
    difference = f"{100 * (ours - theirs):+.1f} points" if figures.percent else f"{ours - theirs:+.3g}"
    where = f"in epoch {epoch:g} the policy's architectures score {figures.written_reward(ours)} on average"
    return (
        f"With the same shared weights, {where}, uniformly random ones {figures.written_reward(theirs)}: {difference}."
    )


def _derivation(sampled: Sequence[float], finals: Sequence[float], chosen: object, figures: Figures) -> Iterator[str]:
    """How the architecture was chosen in the end."""
    rows = [
        Row(
            "sampled",
            sampled,
            f"{len(sampled)}, on few minibatches",
            marked=None if finals else _index(sampled, chosen),
        )
    ]
    if finals:
        rows.append(Row("finalists", finals, f"{len(finals)}, on the whole split", marked=_index(finals, chosen)))
    reward = figures.written_reward(chosen) or _ABSENT
    yield (
        f"<p>{len(sampled)} different architectures were drawn from the trained policy and scored with the shared "
        f"weights after the last epoch. The ringed one was chosen; its reward is {reward}.</p>"
    )
    title = "Rewards at the end of the search"
    yield dot_chart(rows, title=title, x_label=figures.reward, percent=figures.percent)


# --- retraining -------------------------------------------------------------------------------------------------------


def _retraining(run: Path, retrain: Stage, peer: Stage, figures: Figures) -> Iterator[str]:
    command = f"enas retrain {_quoted(run)}"
    if not retrain.begun:
        yield html.missing("The network has not been trained from scratch yet", command)
        return
    result, metric = retrain.summary, figures.metric
    yield html.facts(
        [
            (f"test {metric}", figures.written(result.get(f"test_{metric}"), digits=2)),
            (f"test {figures.unit}s", values.count(result.get("test_count"))),
            (f"best validation {metric}", figures.written(result.get(f"valid_{metric}"), digits=2)),
            ("in epoch", result.get("best_epoch")),
            ("parameters", values.count(result.get("parameters"))),
            ("preset", retrain.config.get("preset")),
            ("seed", retrain.config.get("seed")),
            ("epochs", _progress(retrain)),
            ("time", values.duration(result.get("seconds"))),
            ("device", result.get("device")),
        ]
    )
    if not result:
        yield html.missing("The retraining is not finished", f"{command} --resume")
    if peer.begun:
        yield from _peer(retrain, peer, figures, command=command)
    curves = [
        retrain.series("validation", f"valid_{metric}"),
        retrain.series("train", f"train_{metric}", dashed=True),
        peer.series("LSTM, validation", f"valid_{metric}"),
    ]
    yield _charts(
        [
            (metric.capitalize(), "of the images" if figures.percent else "less is better", figures.percent, curves),
            ("Training loss", f"nats per {figures.unit}", False, [retrain.series("loss", "loss")]),
            ("Learning rate", "", False, [retrain.series("rate", "learning_rate")]),
        ]
    )
    yield _versions(result)


def _peer(retrain: Stage, peer: Stage, figures: Figures, *, command: str) -> Iterator[str]:
    """The cell beside the LSTM."""
    if not peer.summary:
        yield html.missing("The LSTM to compare with is not trained to its end", f"{command} --resume")
        return
    yield "<p>Beside the cell, torch's LSTM with as many parameters, trained in the same way:</p>"
    yield _table_of(
        [
            {
                "network": name,
                f"test {figures.metric}": figures.written(stage.summary.get(f"test_{figures.metric}")),
                f"validation {figures.metric}": figures.written(stage.summary.get(f"valid_{figures.metric}")),
                "parameters": stage.summary.get("parameters"),
                "best epoch": stage.summary.get("best_epoch"),
                "time": values.duration(stage.summary.get("seconds")),
            }
            for name, stage in (("the cell", retrain), ("LSTM", peer))
        ]
    )


# --- the search judged ------------------------------------------------------------------------------------------------


def _ranking(run: Path, spec: Spec | None, figures: Figures) -> Iterator[str]:
    """Shared weights against training alone, where that was measured of this search."""
    document = read_object(run / "ranking.json")
    if spec is None or document.get("spec_sha256") != spec_digest(spec):
        return
    shared, alone = document.get("shared"), document.get("alone")
    if not (isinstance(shared, list) and isinstance(alone, list)):
        return
    scored = [tuple(pair) for pair in zip(shared, alone, strict=False) if len(_numbers(list(pair))) == 2]
    if not scored:
        return
    tau, p_value = document.get("tau"), document.get("p_value")
    words = (
        f"{len(shared)} random architectures, scored with the shared weights, and after training each from scratch "
        f"for {document.get('epochs')} epochs: Kendall's τ is {values.decimal(tau) or _ABSENT}; a random order comes "
        f"as far with probability {values.three_digits(p_value) or _ABSENT}."
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


# --- the model --------------------------------------------------------------------------------------------------------


def _verification(run: Path) -> Iterator[str]:
    failed = read_object(run / "verification-failed.json")
    document = read_object(run / "verification.json")
    if not failed and not document:
        yield html.missing("No model has been exported and verified yet", f"enas export {_quoted(run)}")
    if failed:
        yield "<p>The last export was refused, because its answers are not those of the trained network:</p>"
        yield from _verification_of(failed)
    if document:
        yield from _verification_of(document)


def _verification_of(document: Mapping[str, Any]) -> Iterator[str]:
    if "passed" in document:
        yield f"<p>{html.verdict(bool(document['passed']))}: onnxruntime against torch on the same inputs.</p>"
    yield _scalars(document, leave_out=("passed",))
    rows = [
        {key: values.percent(value, digits=2) if key.endswith("accuracy") else value for key, value in row.items()}
        for row in document.get("comparisons", [])
        if isinstance(row, Mapping)
    ]
    yield _table_of(rows)


def _benchmark(run: Path) -> Iterator[str]:
    document = read_object(run / "benchmark.json")
    if not document:
        yield html.missing("The model's speed has not been measured yet", f"enas benchmark {_quoted(run)}")
        return
    if document.get("is_partial"):
        yield "<p>The benchmark was interrupted: these are the samples taken until then.</p>"
    rows = [_benchmark_row(point) for point in document.get("points", []) if isinstance(point, Mapping)]
    yield _table_of(rows)
    if disturbances := document.get("disturbances"):
        yield f'<p class="bad">Noisy: {html.escaped("; ".join(map(str, disturbances)))}.</p>'
    machine = table_in(document, "machine")
    yield html.facts(
        [
            ("processor", machine.get("cpu")),
            ("cores", machine.get("usable_cores")),
            ("measured", document.get("started")),
            *table_in(machine, "versions").items(),
        ]
    )


def _benchmark_row(point: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of the command's own table; what a point does not state stays empty."""
    median = point.get("median_ms")
    interval = table_in(median, "interval") if isinstance(median, Mapping) else {}
    percentiles = table_in(point, "percentiles_ms")
    written = [values.three_digits(interval.get(end)) or "" for end in ("low", "high")]
    return {
        "model": point.get("name"),
        "scenario": point.get("scenario"),
        "batch": point.get("batch_size"),
        "threads": point.get("intra_op_threads"),
        "median ms": values.three_digits(_value(median)),
        "95 % interval": " – ".join(written) if all(written) else None,
        **{f"{name} ms": values.three_digits(_value(percentiles.get(name))) for name in ("p90", "p99")},
        "items/s": values.three_digits(_value(point.get("items_per_s"))),
        "samples": point.get("count"),
    }


# --- charts and tables ------------------------------------------------------------------------------------------------


def _charts(charts: Iterable[tuple[str, str, bool, Sequence[Series]]]) -> str:
    """The charts (title, y label, whether in per cent, series) of which anything was recorded."""
    drawn = [
        line_chart(series, title=title, x_label="epoch", y_label=label, percent=percent)
        for title, label, percent, series in charts
        if any(one.points for one in series)
    ]
    return f'<div class="charts">{"".join(drawn)}</div>' if drawn else ""


def _table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """A column for every key with a plain value in some row, in the order of the first row that has it."""
    shown = dict.fromkeys(k for row in rows for k, v in row.items() if not isinstance(v, list | dict | None))
    keys = [key for key in dict.fromkeys(k for row in rows for k in row) if key in shown]
    if not keys:
        return ""
    return html.table(
        [html.escaped(key.replace("_", " ")) for key in keys], [[_cell(row.get(k)) for k in keys] for row in rows]
    )


def _scalars(document: Mapping[str, Any], *, leave_out: Sequence[str] = ()) -> str:
    """All plain values of a document, and those one table down."""
    found: list[tuple[str, object]] = []
    for key, value in document.items():
        inner = value.items() if isinstance(value, Mapping) else [("", value)]
        for name, entry in inner:
            if key not in leave_out and isinstance(entry, str | int | float | bool):
                found.append((f"{key} {name}".strip().replace("_", " "), values.plain(entry)))
    return html.facts(found)


def _cell(value: object) -> str:
    """A value as a table's markup."""
    if value is None:
        return _ABSENT
    return html.verdict(value) if isinstance(value, bool) else html.escaped(values.plain(value))


def _versions(summary: Mapping[str, Any]) -> str:
    versions = table_in(summary, "versions")
    listed = ", ".join(f"{name} {number}" for name, number in versions.items())
    return f'<p class="muted">With {html.escaped(listed)}.</p>' if versions else ""


def _progress(stage: Stage) -> str | None:
    planned = stage.config.get("num_epochs")
    return None if planned is None else f"{len(stage.records)} of {planned}"


def _numbers(found: object) -> list[float]:
    return [value for value in found if isinstance(value, int | float)] if isinstance(found, list) else []


def _index(numbers: Sequence[float], value: object) -> int | None:
    return numbers.index(value) if isinstance(value, int | float) and value in numbers else None


def _value(entry: object) -> object:
    """An estimate is written as a table with its value and its interval, or plainly."""
    return entry.get("value") if isinstance(entry, Mapping) else entry


def _quoted(run: Path) -> str:
    return shlex.quote(str(run))
