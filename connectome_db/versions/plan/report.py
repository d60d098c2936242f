"""What `foresee` found, for people (a table) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from connectome_db import plans
from connectome_db.spec import LISTED, RAW, RAW_INPUTS
from connectome_db.versions.plan.forecast import Forecast, Span, StageTime, between
from connectome_db.versions.plan.foresee import PERHAPS, REUSED, STATES, STORED, SURE, Foresight, StageAhead
from connectome_db.versions.plan.reasons import Change

COLOURS = {REUSED: "", STORED: "green", PERHAPS: "yellow", SURE: "bold red"}
SHOWN = 3
"""So many changed parameters, models or modules are named in a cell of the table."""


def spans(numbers: Sequence[int]) -> str:
    """Numbers in ascending order as text: 3, 7–9."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and n == runs[-1][1] + 1:
            runs[-1][1] = n
        else:
            runs.append([n, n])
    shown = [str(a) if a == b else f"{a}–{b}" for a, b in runs[:8]]
    return ", ".join(shown) + (", …" if len(runs) > 8 else "")


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return f"[{', '.join(_value(v) for v in value)}]"
    return "none" if value is None else str(value)


def change_text(c: Change) -> str:
    """A changed parameter or model: `seed_window_nm 120 → 80 in corner`."""
    where = f" in {c.region}" if c.region else ""
    return f"{c.name} {_value(c.old)} → {_value(c.new)}{where}"


def _some(texts: Sequence[str]) -> str:
    more = len(texts) - SHOWN
    return ", ".join(texts[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def input_text(names: Sequence[str], sections: Sequence[int]) -> str:
    """Inputs that change, by the stage that makes them; raw tiles by section."""
    made = list(dict.fromkeys(n.partition(".")[0] for n in names if n not in RAW_INPUTS))
    if RAW in names:
        some = spans(sections)
        made.insert(0, f"raw section{'s' if len(sections) > 1 else ''} {some}" if some else "raw tiles")
    if LISTED in names:
        made.insert(0, "the imported list")
    return ", ".join(made)


def why(stage: StageAhead, sections: Sequence[int]) -> list[str]:
    """Reasons of a stage, one text each, with the number of units where it is not all of those to compute."""
    found, total = stage.reasons, len(stage.stale)
    counts = found.counts()
    out: list[tuple[str, int]] = []
    changes = found.change_counts()
    out += [(change_text(c), n) for c, n in list(changes.items())[:SHOWN]]
    if len(changes) > SHOWN:
        out.append((f"{len(changes) - SHOWN} more parameters", total))
    if n := counts.get("code", 0):
        out.append((f"code: {_some(found.code)}" if found.code else "code", n))
    for word, text in (("parameter", "parameters"), ("model", "model")):
        if counts.get(word) and not changes:  # the same values under another digest
            out.append((text, counts[word]))
    if n := counts.get("input", 0):
        out.append((f"input: {input_text(list(found.input_counts()), sections)}", n))
    words = {"extent": "extent of the volume", "environment": "another environment", "missing": "lost from the store"}
    out += [(words.get(w, w), counts[w]) for w in ("new", "extent", "environment", "missing") if w in counts]
    return [text if n == total else f"{text} ({n:,})" for text, n in out]


# For people ---------------------------------------------------------------------------------------------------------


def table(seen: Foresight, times: Forecast) -> Table:
    """One line per stage, and the total."""
    out = Table(box=box.SIMPLE_HEAD, header_style="bold", show_footer=True, pad_edge=False, padding=(0, 1, 0, 0))
    shown = [k for k in (REUSED, STORED, SURE, PERHAPS) if k != STORED or any(s.count(STORED) for s in seen.stages)]
    total = {k: sum(s.count(k) for s in seen.stages) for k in shown}
    out.add_column("stage", "total", no_wrap=True)
    out.add_column("units", f"{sum(len(s.plan) for s in seen.stages):,}", justify="right", no_wrap=True)
    for k in shown:
        out.add_column(STATES[k], f"{total[k]:,}", justify="right", no_wrap=True)
    out.add_column("why", ratio=1, min_width=12)
    out.add_column("work", _work(times.work_s, bool(times.unknown)), justify="right", no_wrap=True)
    for stage, time in zip(seen.stages, times.stages, strict=True):
        cells: list[RenderableType] = [stage.stage, f"{'≈ ' if stage.guessed else ''}{len(stage.plan):,}"]
        cells += [_count(stage.count(k), COLOURS[k]) for k in shown]
        reasons = why(stage, seen.sections)
        if len(stage.gone):
            reasons.append(f"{len(stage.gone):,} units of data/ are dropped")
        style = "" if len(stage.stale) or stage.count(STORED) or len(stage.gone) else "dim"
        out.add_row(*cells, Text("\n".join(reasons)), _stage_work(stage, time), style=style)
    return out


def _count(n: int, style: str) -> Text:
    return Text(f"{n:,}" if n else "·", style=style if n else "dim")


def _work(span: Span, partly: bool) -> str:
    if span.high == 0:
        return "?" if partly else ""
    return between(span) + (" + ?" if partly else "")


def _stage_work(stage: StageAhead, time: StageTime) -> str:
    if len(stage.stale) == 0:
        return ""
    return "?" if time.work_s is None else between(time.work_s)


def hints(seen: Foresight, times: Forecast) -> list[str]:
    """What the table means and what to do next."""
    sure, perhaps, stored = (sum(s.count(k) for s in seen.stages) for k in (SURE, PERHAPS, STORED))
    gone = sum(len(s.gone) for s in seen.stages)
    out = []
    if not sure + perhaps:
        taken = f"{stored:,} units are taken from the store" if stored else ""
        dropped = f"{gone:,} units of data/ are dropped" if gone else ""
        does = " and ".join(t for t in (taken, dropped) if t)
        out.append(f"Nothing to compute: {does}, by `dvc repro`." if does else "Nothing to compute: all is current.")
    else:
        wall = f"{between(times.wall_s)} with {times.workers} worker{'s' if times.workers > 1 else ''}, computing alone"
        told = wall if times.wall_s.high else "how long is not known"
        units = f"{sure:,} unit{'' if sure == 1 else 's'} for sure, {sure + perhaps:,} at most"
        out.append(f"To compute: {units if perhaps else units.split(' for ', maxsplit=1)[0]}; {told}{_cost(times)}.")
    if perhaps:
        out.append("perhaps: reads what is computed anew, and is left alone if that turns out equal to what was there.")
    for guessed in dict.fromkeys(s.guessed for s in seen.stages if s.guessed):
        names = [s.stage for s in seen.stages if s.guessed == guessed]
        out.append(
            f"≈ {names[0]}{' and later stages' if len(names) > 1 else ''}: not known before {guessed} has run; "
            "counted for a volume like the present one, or as the stage positions of the tiles say."
        )
    if times.unknown:
        out.append(f"? {', '.join(times.unknown)}: never run here, so how long units take is not known.")
    if seen.unusable:
        out.append(
            f"{seen.unusable} tiles cannot be used: `connectome run ingest` names them. --allow-missing goes on."
        )
    return out


def _cost(times: Forecast) -> str:
    if times.cost is None or not times.wall_s.high:
        return ""
    low, high = (f"{v:.2f}" for v in (times.cost.low, times.cost.high))
    return f", {low}–{high} for the workers" if low != high else f", {high} for the workers"


def listing(seen: Foresight, n: int) -> Table:
    """The first `n` units of each stage that will or may be computed."""
    out = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    for column in ("stage", "unit", "core (voxels)", "", "why"):
        out.add_column(column)
    for stage in seen.stages:
        rows = stage.stale
        for k, i in enumerate(rows[:n].tolist()):
            u, state = plans.unit(stage.plan, i), int(stage.state[i])
            told = Text(", ".join(_unit_why(stage, i, seen.sections)))
            out.add_row(stage.stage if k == 0 else "", str(u), str(u.core), Text(STATES[state], COLOURS[state]), told)
        if len(rows) > n:
            out.add_row("", f"… {len(rows) - n:,} more", style="dim")
    return out


def _unit_why(stage: StageAhead, i: int, sections: Sequence[int]) -> list[str]:
    found = stage.reasons
    k = int(found.change[i])
    out = [change_text(c) for c in found.changes[k]] if k >= 0 else []
    skipped = {"parameter", "model"} if out else set()
    for word in found.words(i):
        if word == "input":
            z = plans.unit(stage.plan, i).core
            near = [s for s in sections if z.lo[0] <= s < z.hi[0]]
            out.append(f"input: {input_text(found.inputs_of(i), near)}")
        elif word not in skipped:
            out.append(word)
    return out


# For programs -------------------------------------------------------------------------------------------------------


def to_json(seen: Foresight, times: Forecast, n: int = 0) -> dict[str, Any]:
    """All of it as JSON values; unit codes as text. `n` units of each stage are listed."""
    stages = [_stage_json(s, t, seen.sections, n) for s, t in zip(seen.stages, times.stages, strict=True)]
    keys = ("units", "reused", "from_store", "sure", "perhaps", "gone")
    return {
        "project": seen.project.dataset.name,
        "stages": stages,
        "total": {k: sum(s[k] for s in stages) for k in keys},
        "raw_sections_changed": list(seen.sections),
        "tiles_unusable": seen.unusable,
        "forecast": {
            "workers": times.workers,
            "work_s": _span(times.work_s),
            "wall_s": _span(times.wall_s),
            "cost": _span(times.cost),
            "unknown": list(times.unknown),
        },
        "notes": hints(seen, times),
    }


def _span(span: Span | None) -> list[float] | None:
    return None if span is None else [round(span.low, 3), round(span.high, 3)]


def _stage_json(stage: StageAhead, time: StageTime, sections: Sequence[int], n: int) -> dict[str, Any]:
    found = stage.reasons
    pace = time.pace
    return {
        "stage": stage.stage,
        "kind": stage.plan.kind,
        "units": len(stage.plan),
        "reused": stage.count(REUSED),
        "from_store": stage.count(STORED),
        "sure": stage.count(SURE),
        "perhaps": stage.count(PERHAPS),
        "gone": len(stage.gone),
        "not_known_before": stage.guessed or None,
        "reasons": found.counts(),
        "combinations": found.combinations(),
        "inputs": found.input_counts(),
        "changes": [
            {"name": c.name, "old": c.old, "new": c.new, "region": c.region, "units": k}
            for c, k in found.change_counts().items()
        ],
        "code": list(found.code) if found.code else None,
        "why": why(stage, sections),
        "forecast": {
            "work_s": _span(time.work_s),
            "wall_s": _span(time.wall_s),
            "median_s": None if pace is None else pace.median_s,
            "p90_s": None if pace is None else pace.p90_s,
            "per": None if pace is None else ("voxel" if pace.per_voxel else "unit"),
            "taken_from": None if pace is None else f"{pace.units} units in {pace.source}",
        },
        "list": [_unit_json(stage, i) for i in stage.stale[:n].tolist()],
    }


def _unit_json(stage: StageAhead, i: int) -> dict[str, Any]:
    u = plans.unit(stage.plan, i)
    return {
        "unit": str(u.code),
        "name": str(u),
        "core_vx": list(u.core.flat()),
        "state": STATES[stage.state[i]],
        "reasons": stage.reasons.words(i),
        "inputs": stage.reasons.inputs_of(i),
    }
