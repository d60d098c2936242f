"""A remedy told: tables for people, JSON for programs."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from connectome_db.diagnosis.remedies.proof import Cost, Outside
from connectome_db.diagnosis.remedies.region_metrics import PROXIES, Difference
from connectome_db.diagnosis.remedies.remedy import FORMAT, Remedy
from connectome_db.diagnosis.remedies.runs import Made, Truth, Try
from connectome_db.errors import ConfigError
from connectome_db.regional.yamltext import inline


def values_text(values: Mapping[str, Any]) -> str:
    """`segment.boundary = 0.45, synapses.high = 0.8`."""
    return ", ".join(f"{k} = {inline(v)}" for k, v in values.items()) or "as it was"


def percent(value: float | None) -> str:
    """`-31 %`; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:+.0f} %"


def deficit_text(d: Difference | None) -> str:
    """`2.1 against 3.0 um-3: -31 % (95 %: -45 to -12)`."""
    if d is None:
        return "nothing of it is left to measure"
    told = f"{d.region:.3g} against {d.reference:.3g} {'' if d.measure == '1' else d.measure}".rstrip()
    if d.ci95 is None:
        return f"{told}: {percent(d.relative)}"
    return f"{told}: {percent(d.relative)} (95 %: {100 * d.ci95[0]:+.0f} to {100 * d.ci95[1]:+.0f})"


# For people ---------------------------------------------------------------------------------------------------------


def to_rich(remedy: Remedy, made: Made) -> RenderableType:
    """All of it: the deficit, the metrics, what changed, what it cost, and that nothing else changed."""
    parts: list[RenderableType] = []
    if len(made.tries) > 1 or made.kept is None:
        parts += [_tries(remedy, made)]
    if made.kept is None:
        parts += [Text("No try is more like the reference than what was there, which has been restored.", "yellow")]
    wish = remedy.wish
    was, then = (t.found.get(wish.metric) for t in (made.before, made.after))
    parts += [
        Text.assemble(("\nthe deficit  ", "bold"), f"{wish.metric}, {wish.region} against {wish.reference}"),
        Text(f"  before  {deficit_text(was)}\n  after   {deficit_text(then)}"),
    ]
    if made.before.truth is not None and made.after.truth is not None:
        parts.append(_truth(made.before.truth, made.after.truth))
    parts += [_metrics(made), Text(_changes(made)), _costs(made), _outside(made.outside)]
    parts += [Text(f"wrong: {line}", "bold red") for line in made.outside.wrong]
    if not made.outside.wrong:
        n = made.outside.elsewhere
        parts.append(Text(f"outside the region and its reach: {n:,} units, all byte-identical", "green"))
    return Group(*parts)


def _grid(title: str, *columns: str) -> Table:
    """A table; columns that start with # hold numbers."""
    table = Table(title=f"\n{title}", title_justify="left", title_style="bold", header_style="bold", box=None)
    for name in columns:
        table.add_column(name.lstrip("#"), justify="right" if name.startswith("#") else "left", overflow="fold")
    return table


def _tries(remedy: Remedy, made: Made) -> Table:
    truth = made.before.truth is not None
    more = ("#recall in", "#precision in", "#wired in") if truth else ()
    grid = _grid("tries (distance from the reference; the lowest stays)", "", "#distance", f"#{remedy.wish.metric}",
                 "#computed", "#s", *more, "")  # fmt: skip
    for t in (made.before, *made.tries):
        cells = [values_text(t.values)]
        d = t.found.get(remedy.wish.metric)
        cells += [f"{t.score:.3f}", percent(None if d is None else d.relative), f"{t.computed:,}", f"{t.seconds:.1f}"]
        if t.truth is not None:
            r = t.truth["region"]
            cells += [f"{r.recall:.2f}", f"{r.precision:.2f}", f"{r.wired_recall:.2f}"]
        grid.add_row(*cells, "kept" if t is made.after else "")
    return grid


def _truth(was: Truth, then: Truth) -> Table:
    grid = _grid("against the truth", "", "", "#true", "#found", "#found / true", "#recall", "#precision",
                 "#partners right", "#found and wired right")  # fmt: skip
    for place in ("region", "outside"):
        for when, side in (("before", was), ("after", then)):
            a = side[place]
            shares = (f"{v:.2f}" for v in (a.recall, a.precision, a.partners_right, a.wired_recall))
            grid.add_row(
                place if when == "before" else "", when, f"{a.true}", f"{a.found}", percent(a.deficit), *shares
            )
    return grid


def _metrics(made: Made) -> Table:
    grid = _grid("quality in the region", "layer", "metric", "#before", "#after", "#reference", "#off before",
                 "#off after")  # fmt: skip
    layer = ""
    for name, was in made.before.found.items():
        then = made.after.found.get(name)
        if then is None or (was.region == then.region and was.reference == then.reference):
            continue
        grid.add_row(was.layer if was.layer != layer else "", name, f"{was.region:.4g}", f"{then.region:.4g}",
                     f"{then.reference:.4g}", percent(was.relative), percent(then.relative))  # fmt: skip
        layer = was.layer
    return grid


def _changes(made: Made) -> str:
    lines = ["\nchanged since the commit (connectome diff HEAD says each, and why)"]
    for table, kinds in made.changes.items():
        counted = ", ".join(f"{n:,} {k}" for k, n in kinds.items()) or "none"
        if table == "synapse_change" and made.synapses_in:
            counted += f"  (in the region: {', '.join(f'{n:,} {k}' for k, n in sorted(made.synapses_in.items()))})"
        lines.append(f"  {table.removesuffix('_change') + 's':9s} {counted}")
    return "\n".join(lines)


def total(made: Made) -> list[Cost]:
    """The cost of all tries together, by stage."""
    by_stage: dict[str, list[Cost]] = {}
    for t in made.tries:
        for c in t.costs:
            by_stage.setdefault(c.stage, []).append(c)
    return [
        Cost(stage, sum(c.computed for c in cs), sum(c.seconds for c in cs), cs[-1].reused, cs[-1].source)
        for stage, cs in by_stage.items()
    ]


def _costs(made: Made) -> RenderableType:
    ran = [c for c in total(made) if c.computed]
    told = ", ".join(f"{c.stage} {c.computed:,} ({c.seconds:.1f} s)" for c in ran) or "none"
    n, seconds = sum(c.computed for c in ran), sum(c.seconds for c in ran)
    return Text(f"\ncost  {n:,} units computed in {seconds:.1f} s of work, {made.wall_s:.0f} s by the clock: {told}")


def _outside(outside: Outside) -> Table:
    grid = _grid("units (in brackets: with the content of before)", "stage", "#units", "#in the region", "#its reach",
                 "#outside both", "#byte-identical")  # fmt: skip
    for s in outside.stages:
        some = [f"{n:,} ({k:,})" if n else "0" for n, k in ((s.region, s.region_same), (s.reach, s.reach_same))]
        grid.add_row(s.stage, f"{s.units:,}", *some, f"{s.elsewhere:,}", f"{s.elsewhere_same:,}")
    return grid


# For programs -------------------------------------------------------------------------------------------------------


def to_json(remedy: Remedy, made: Made) -> dict[str, Any]:
    """All of it as plain values; boxes (z0, y0, x0, z1, y1, x1); NaN is null."""
    wish, found = remedy.wish, made.outside
    value = {
        "format": FORMAT,
        "project": remedy.project.dataset.name,
        "commit": made.commit,
        "metric": wish.metric,
        "region": {"name": wish.region, "box_nm": list(remedy.box_nm), "box_vx": list(remedy.box.flat())},
        "reference": {"name": wish.reference, "box_nm": wish.reference_nm and list(wish.reference_nm)},
        "kept": None if made.kept is None else dict(made.kept.values),
        "deficit": {
            when: _difference(t.found.get(wish.metric)) for when, t in (("before", made.before), ("after", made.after))
        },
        "score": {"proxies": list(PROXIES), "before": made.before.score, "after": made.after.score},
        "quality": list(_pairs(made)),
        "truth": None
        if made.before.truth is None or made.after.truth is None
        else {"before": _against(made.before.truth), "after": _against(made.after.truth)},
        "tries": [_try(t, wish.metric) for t in made.tries],
        "changes": {k: dict(v) for k, v in made.changes.items()},
        "synapses_changed_in_region": dict(made.synapses_in),
        "cost": {"wall_s": made.wall_s, "stages": [vars(c) for c in total(made)]},
        "outside": {
            "units": found.elsewhere,
            "identical": found.identical,
            "wrong": list(found.wrong),
            "stages": [vars(s) for s in found.stages],
        },
    }
    cleaned: dict[str, Any] = _finite(value)
    return cleaned


def _difference(d: Difference | None) -> dict[str, Any] | None:
    return None if d is None else {**vars(d), "ci95": None if d.ci95 is None else list(d.ci95)}


def _pairs(made: Made) -> Iterator[dict[str, Any]]:
    for name, was in made.before.found.items():
        if name in made.after.found:
            yield {"metric": name, "before": _difference(was), "after": _difference(made.after.found[name])}


def _try(t: Try, metric: str) -> dict[str, Any]:
    return {
        "values": dict(t.values),
        "score": t.score,
        "deficit": _difference(t.found.get(metric)),
        "computed": t.computed,
        "seconds": t.seconds,
        "wall_s": t.wall_s,
        "truth": None if t.truth is None else _against(t.truth),
    }


def _against(truth: Truth) -> dict[str, Any]:
    return {place: {**vars(a), "deficit": a.deficit, "wired_recall": a.wired_recall} for place, a in truth.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(remedy: Remedy, made: Made, path: Path) -> None:
    """Write `to_json` beside `path`, then put it in its place. Raises ConfigError when it cannot be written."""
    tmp = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        tmp.write_text(json.dumps(to_json(remedy, made), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        tmp.replace(path)
    except OSError as e:
        raise ConfigError(f"{path}: cannot be written ({e.strerror}); name another place with --json") from None
