"""Results as Markdown: the section of `docs/gpu.md`, and `results.md`, which holds all tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tests.gpu_check.results import counts, figures, graphs_verdict

BEGIN, END = "<!-- gpu-check: begin -->", "<!-- gpu-check: end -->"
_PROBE_COLUMNS = (
    "graphs",
    "`update_unused`",
    "precision",
    "ms a step (least to most)",
    "images/s",
    "kernels, ms",
    "busy",
    "launches",
    "peak MiB",
    "policy step, ms",
    "hours",
)
NOTHING_YET = (
    "Nothing yet. The CUDA path of search, retraining, CUDA graphs and onnxruntime has run on the CPU only, through\n"
    "twins of what CUDA alone has; the tests marked `gpu` are skipped there."
)


def section(results: dict[str, Any] | None) -> str:
    """What stands between the markers in `docs/gpu.md`."""
    return NOTHING_YET if results is None else "\n\n".join([*_head(results), *_summary(results), _counts(results)])


def results_page(results: dict[str, Any]) -> str:
    """`results.md`: the section with all other tables; its last line is `N passed, N failed`."""
    return "\n\n".join([*_head(results), *_summary(results), *_tables(results), _counts(results)]) + "\n"


def with_section(page: str, results: dict[str, Any] | None) -> str:
    """The page with its section written anew. Raises: ValueError: it has not one pair of markers."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"docs/gpu.md: expected one pair of markers {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{section(results)}\n{END}{after}"


def _head(results: dict[str, Any]) -> Iterable[str]:
    found = figures(results, "environment")
    versions = found.get("versions", {})
    where = found.get("device", results["device"])
    parts = [
        f"`{results['command']}` on {where}, {results['date'][:10]}",
        *[f"{name} {versions[name]}" for name in ("torch", "cuda", "cudnn", "onnxruntime") if name in versions],
        *([f"driver {found['driver']}"] if "driver" in found else []),
        *([f"commit {found['commit']}"] if "commit" in found else []),
    ]
    if "copy_gb_s" in found:
        parts.append(
            f"copies {found['copy_gb_s']:,.0f} GB/s, bfloat16 products {found['bfloat16_tflop_s']:,.1f} TFLOP/s"
        )
    yield "; ".join(parts) + "."
    if results["tiny"]:
        yield "At tiny sizes: the figures mean nothing."


def _summary(results: dict[str, Any]) -> Iterable[str]:
    probe = figures(results, "probe")
    rows = probe.get("probe", [])
    if rows:
        yield (
            f"Search of preset `reference` (micro), data set {probe['dataset']}, batch {probe['batch_size']}; hours: "
            f"{probe['epochs']} epochs, projected:"
        )
        yield _table(
            _PROBE_COLUMNS,
            [
                [
                    _on(row["graphs"]),
                    _on(row["update_unused"]),
                    row["precision"],
                    f"{row['ms']:.1f} ({row['least_ms']:.1f} to {row['most_ms']:.1f})",
                    f"{row['images_per_s']:,}",
                    f"{row['kernel_ms']:.1f}",
                    f"{row['busy']:.0%}",
                    f"{row['launches']:,}",
                    f"{row['peak_mib']:,}",
                    f"{row['policy_ms']:.0f}",
                    f"{row['hours']:.2f}",
                ]
                for row in rows
            ],
            text_columns=3,
        )
        best = min(rows, key=lambda row: row["ms"])
        top = ", ".join(f"`{name}` {share:.0%}" for name, share in best["top_kernels"][:3])
        yield f"Longest kernels of the fastest row: {top}."
    yield _table(
        ["stage", "limit, s", "took, s", "result"],
        [
            [stage["name"], f"{stage['limit_s']:.0f}", f"{stage['seconds']:.0f}", _result(stage)]
            for stage in results["stages"]
        ],
    )
    tests = figures(results, "tests")
    if "passed" in tests:
        reasons = "; ".join(f"{count} × {reason}" for reason, count in tests.get("reasons", {}).items())
        told = f" ({reasons})" if reasons else ""
        left_out = tests["skipped"] + tests["not collected"]
        yield f"GPU tests: {tests['passed']} passed, {tests['failed']} failed, {left_out} left out{told}."
    verdict = graphs_verdict(results)
    what = "to be rebuilt or removed" if verdict.worthless else f"{verdict.default} by default"
    yield f"`--cuda-graphs`: {what}, since {verdict.reason}."
    failed = [check for stage in results["stages"] for check in stage["checks"] if not check["passed"]]
    if failed:
        yield "\n".join(f"- FAILED: {check['name']}: {check['detail']}".removesuffix(": ") for check in failed)


def _tables(results: dict[str, Any]) -> Iterable[str]:
    rows = figures(results, "levers").get("levers", [])
    if rows:
        yield _table(
            ["work", "levers", "ms", "MiB at most", "GPU busy"],
            [[row["work"], row["levers"], f"{row['ms']:.2f}", f"{row['mib']:,}", _share(row["busy"])] for row in rows],
            text_columns=2,
        )
    rows = figures(results, "kernels").get("kernels", [])
    if rows:
        columns = ["kernel", "channels", "layout", "precision", "forward_us", "backward_us"]
        yield _table(
            ["kernel", "channels", "layout", "precision", "forward, µs", "backward, µs"],
            [[str(row[column]) for column in columns] for row in rows],
            text_columns=4,
        )


def _result(stage: dict[str, Any]) -> str:
    passed = sum(check["passed"] for check in stage["checks"])
    failed = len(stage["checks"]) - passed
    told = f"{passed} passed" + (f", {failed} failed" if failed else "")
    return told if stage["status"] == "ended" else f"{stage['status']}: {stage['reason']}"


def _counts(results: dict[str, Any]) -> str:
    passed, failed = counts(results)
    return f"{passed} passed, {failed} failed"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, text_columns: int = 1) -> str:
    rule = ["---" if index < text_columns else "---:" for index in range(len(head))]
    lines = [head, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _on(flag: bool) -> str:
    return "on" if flag else "off"


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}"
