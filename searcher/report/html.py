"""Writes an HTML page: frame, style, sections, facts and tables. Knows nothing of runs."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--muted:#59636e;--paper:#fff;--panel:#f6f8fa;--line:#d1d9e0;
--good:#116329;--bad:#b42318}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e6edf3;--muted:#9da7b3;--paper:#0d1117;--panel:#151b23;
--line:#30363d;--good:#3fb950;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:32px 24px 64px;background:var(--paper);color:var(--ink);
font:15px/1.55 ui-sans-serif,system-ui,sans-serif}
h1{font-size:27px;line-height:1.25;margin:0;overflow-wrap:anywhere}
h2{font-size:19px;margin:44px 0 12px;padding-top:16px;border-top:1px solid var(--line)}
p{margin:8px 0;max-width:76ch}.muted,caption,dt,th{color:var(--muted)}
code,pre{font:13px/1.5 ui-monospace,monospace}code{background:var(--panel);padding:1px 5px;border-radius:4px}
pre{background:var(--panel);padding:14px 16px;border-radius:8px;overflow-x:auto}
dl{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:14px 24px;margin:16px 0}
dt{font-size:13px}dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.key dd{font-size:21px;font-weight:600}
table{border-collapse:collapse;font-variant-numeric:tabular-nums}
.scroll{overflow-x:auto;margin:14px 0}
th,td{padding:5px 10px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th{font-weight:500;font-size:13px}th:first-child,td:first-child{text-align:left;padding-left:0}
.good{color:var(--good)}.bad{color:var(--bad);font-weight:600}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,460px),1fr));gap:20px 28px;margin:14px 0}
svg{display:block;max-width:100%;height:auto}.scroll>svg{min-width:720px}summary{cursor:pointer;color:var(--muted)}
.missing{border:1px dashed var(--line);border-radius:8px;padding:12px 16px;color:var(--muted)}
@media print{body{max-width:none;padding:0;font-size:12px}h2,svg,tr,dl{break-inside:avoid}h2{break-after:avoid}
.scroll{overflow:visible}.scroll>svg{min-width:0}}
""".strip()


def page(title: str, body: Iterable[str]) -> str:
    """The whole document, self-contained and without scripts."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def escaped(words: object) -> str:
    return html.escape(str(words))


def section(title: str, parts: Iterable[str]) -> str:
    return "\n".join([f"<section>\n<h2>{escaped(title)}</h2>", *parts, "</section>"])


def facts(pairs: Iterable[tuple[str, object]], *, key: bool = False) -> str:
    """Names with their values; `key` writes the values large. Values of None are left out."""
    entries = [f"<div><dt>{escaped(n)}</dt><dd>{escaped(v)}</dd></div>" for n, v in pairs if v is not None]
    kind = ' class="key"' if key else ""
    return f"<dl{kind}>{''.join(entries)}</dl>" if entries else ""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of markup cells, the first column flush left and the others, numbers, flush right."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    body = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def verdict(passed: bool) -> str:
    """A result in words as well as in colour."""
    return '<span class="good">✓ passed</span>' if passed else '<span class="bad">✗ failed</span>'


def missing(what: str, command: str) -> str:
    """A note that a result does not exist yet, with the command that makes it."""
    return f'<p class="missing">{escaped(what)}: <code>{escaped(command)}</code> makes it.</p>'


def folded(summary: str, text: str) -> str:
    """Text that opens on demand."""
    return f"<details><summary>{escaped(summary)}</summary><pre>{escaped(text)}</pre></details>"
