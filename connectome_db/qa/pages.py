"""Data Docs: the results as a small static site, `qa/docs/`, that asks nothing of any network.

Great Expectations renders such a site too, but its pages load styles, fonts and scripts from five servers and carry the
time of the run. These are made of the same results, work offline, and are a function of them alone.
"""

from __future__ import annotations

import html
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from connectome_db.qa.result import Result
from connectome_db.qa.results import FOLDER, replace_text, version
from connectome_db.qa.rules import Kind
from connectome_db.qa.settings import SEVERITIES

DOCS = f"{FOLDER}/docs"
_KINDS = frozenset(get_args(Kind))
_STYLE = """
:root { color-scheme: light dark; --bg: #fff; --fg: #1b1f24; --dim: #5f6b76; --line: #d9dee3; --well: #1a7f45;
  --error: #b3261e; --warning: #8a5a00; --info: #2458a6; --band: #f5f7f9; }
@media (prefers-color-scheme: dark) { :root { --bg: #14181c; --fg: #e4e8ec; --dim: #98a4af; --line: #333b43;
  --well: #5bc489; --error: #ff8a80; --warning: #ecc06a; --info: #8db8f5; --band: #1c2228; } }
body { background: var(--bg); color: var(--fg); font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto;
  max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
a { color: inherit; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
th { color: var(--dim); font-weight: 600; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.why, .dim { color: var(--dim); font-size: .87rem; }
.met { color: var(--well); } .error { color: var(--error); }
.warning { color: var(--warning); } .info { color: var(--info); }
b.error, b.warning, b.info, b.met { white-space: nowrap; }
code { font-size: .88em; }
.dim code { overflow-wrap: anywhere; } td.x { min-width: 16rem; }
""".strip()


def site(
    name: str, results: Sequence[Result], stage_of: Mapping[str, str], digests: Mapping[str, str]
) -> dict[str, str]:
    """The pages by file name: `index.html`, and one per table.

    `stage_of` maps tables to stages in the order of the pipeline; `digests` has the SHA-256 of each table's file.
    """
    tables = [t for t in stage_of if any(r.table == t for r in results)]
    pages = {"index.html": _index(name, results, tables, stage_of)}
    for table in tables:
        mine = [r for r in results if r.table == table]
        pages[f"{table}.html"] = _table_page(name, table, mine, stage_of[table], digests.get(table, ""))
    return pages


def write(root: Path, pages: Mapping[str, str]) -> None:
    """Write the site into `qa/docs/`; what lay there goes."""
    folder = root / DOCS
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    for name, text in pages.items():
        replace_text(folder / name, text)


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_e(title)}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _index(name: str, results: Sequence[Result], tables: Sequence[str], stage_of: Mapping[str, str]) -> str:
    unmet = [r for s in SEVERITIES for r in results if not r.success and r.severity == s]
    counts = {s: sum(r.severity == s for r in unmet) for s in SEVERITIES}
    told = ", ".join(f'<b class="{s}">{n} {s}</b>' for s, n in counts.items() if n) or '<b class="met">all met</b>'
    body = [
        f"<h1>{_e(name)}: expectations</h1>",
        f"<p>{len(results)} expectations over {len(tables)} tables; not met: {told}.</p>",
    ]
    if unmet:
        body += ["<h2>Not met</h2>", _results(unmet, with_table=True)]
    body += ["<h2>What is expected of the data</h2>"]
    body.append(_results([r for r in results if r.name not in _KINDS], with_table=True))
    body += ["<h2>Tables</h2>", _tables(results, tables, stage_of)]
    body.append(f'<p class="dim">connectome_db {_e(version())}. All results: <code>qa/expectations.parquet</code>.</p>')
    return _page(f"{name}: expectations", "\n".join(body))


def _tables(results: Sequence[Result], tables: Sequence[str], stage_of: Mapping[str, str]) -> str:
    rows = []
    for table in tables:
        mine = [r for r in results if r.table == table]
        bad = [r for r in mine if not r.success]
        worst = next((s for s in SEVERITIES if any(r.severity == s for r in bad)), "met")
        size = max((r.rows for r in mine if r.name in _KINDS - {"same"}), default=0)
        state = "all met" if not bad else f"{len(bad)} not met"
        rows.append(
            f'<tr><td><a href="{table}.html"><code>{table}</code></a></td><td>{_e(stage_of[table])}</td>'
            f'<td class="n">{size:,}</td><td class="n">{len(mine)}</td><td><b class="{worst}">{state}</b></td></tr>'
        )
    head = '<tr><th>Table</th><th>Stage</th><th class="n">Rows</th><th class="n">Expectations</th><th></th></tr>'
    return f'<div class="wide"><table>{head}\n' + "\n".join(rows) + "\n</table></div>"


def _table_page(name: str, table: str, results: Sequence[Result], stage: str, digest: str) -> str:
    bad = sum(not r.success for r in results)
    state = '<b class="met">all met</b>' if not bad else f"{bad} not met"
    body = [
        '<p><a href="index.html">All tables</a></p>',
        f"<h1><code>{table}</code></h1>",
        f"<p>Stage {_e(stage)}; {len(results)} expectations, {state}.</p>",
    ]
    for title, part in (
        ("What is expected of the data", [r for r in results if r.name not in _KINDS]),
        ("Schema", [r for r in results if r.name in _KINDS]),
    ):
        if part:
            body += [f"<h2>{title}</h2>", _results(part, with_table=False)]
    if digest:
        body.append(f'<p class="dim">SHA-256 of the file that was checked: <code>{digest}</code></p>')
    return _page(f"{name}: {table}", "\n".join(body))


def _results(results: Sequence[Result], *, with_table: bool) -> str:
    head = f"<tr><th></th>{'<th>Table</th>' if with_table else ''}<th>Expectation</th>"
    head += '<th class="n">Not as expected</th><th class="n">Furthest</th><th>Where, and examples</th></tr>'
    return f'<div class="wide"><table>{head}\n' + "\n".join(_row(r, with_table) for r in results) + "\n</table></div>"


def _row(r: Result, with_table: bool) -> str:
    state = '<b class="met">met</b>' if r.success else f'<b class="{r.severity}">{r.severity}</b>'
    table = f'<td><a href="{r.table}.html"><code>{r.table}</code></a></td>' if with_table else ""
    title = f"<code>{r.name}</code>: {_e(r.says)}" if r.name not in _KINDS else _e(r.says)
    share = f"{r.unexpected:,} of {r.rows:,}" + (f" ({r.unexpected_share:.1%})" if r.unexpected else "")
    furthest = "" if r.observed is None else f"{r.observed:.4g}"
    where = " ".join(filter(None, [_e(r.place), box_text(r)]))
    examples = f'<div class="dim"><code>{_e(r.example)}</code></div>' if r.example else ""
    return (
        f'<tr><td>{state}</td>{table}<td class="x">{title}<div class="why">{_code(r.reason)}</div></td>'
        f'<td class="n">{share}</td><td class="n">{furthest}</td><td>{where}{examples}</td></tr>'
    )


def box_text(r: Result) -> str:
    """The box of the worst place as text, in nm; empty when there is none."""
    six = (r.z0_nm, r.y0_nm, r.x0_nm, r.z1_nm, r.y1_nm, r.x1_nm)
    known = [v for v in six if v is not None]
    return f"[{', '.join(f'{v:.0f}' for v in known)}] nm" if len(known) == 6 else ""


def _e(text: str) -> str:
    return html.escape(text)


def _code(text: str) -> str:
    """Text whose words in backticks are code."""
    parts = _e(text).split("`")
    return "".join(f"<code>{p}</code>" if i % 2 else p for i, p in enumerate(parts))
