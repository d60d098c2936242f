"""The answer to "what made this?": a tree, and four ways to show it."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
from rich.markup import escape
from rich.tree import Tree


class Id(int):
    """An identifier. In JSON it is a string, because readers of JSON take numbers for float64."""


Fact = Any
"""None, bool, int, float, str, Id, or a list or dict of them."""


@dataclass(frozen=True, eq=False)
class Trace:
    """One step of a lineage: what it is, what is known of it, and what it was made from.

    A step that was used twice is one object under both parents. Steps of kind "unit" carry the six provenance facts:
    `inputs`, `git_commit` (with `git_dirty`), `model_id`, `params` (with `overrides`), `environment`, `outputs`.
    """

    title: str
    kind: str
    facts: Mapping[str, Fact] = field(default_factory=dict)
    children: tuple[Trace, ...] = ()

    def under(self, *children: Trace) -> Trace:
        """The same step with `children` after those it has."""
        return replace(self, children=(*self.children, *children))

    def walk(self, depth: int = 0) -> Iterator[tuple[int, Trace]]:
        """(depth, step) of all steps, parents first."""
        yield depth, self
        for child in self.children:
            yield from child.walk(depth + 1)

    def find(self, kind: str) -> list[Trace]:
        """All steps of a kind, each once, in order."""
        return list({id(t): t for _, t in self.walk() if t.kind == kind}.values())


@contextmanager
def without_collection() -> Iterator[None]:
    """Put off Python's search for cycles of garbage: a lineage is thousands of small objects and no cycle.

    One such search goes through all that was ever imported and takes twice as long as the lineage itself.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def plain(value: Fact) -> Fact:
    """A fact as JSON knows it: ids as strings."""
    if isinstance(value, Id):
        return str(int(value))
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def to_json(trace: Trace, *, indent: int | None = 2) -> str:
    """The tree as JSON: {step, title, kind, facts, children}; ids are strings.

    A step met before is given by its number alone: {step, title, kind, repeated: true}.
    """
    numbers: dict[int, int] = {}

    def nested(t: Trace) -> dict[str, Any]:
        if id(t) in numbers:
            return {"step": numbers[id(t)], "title": t.title, "kind": t.kind, "repeated": True}
        numbers[id(t)] = number = len(numbers)
        told = {"step": number, "title": t.title, "kind": t.kind, "facts": plain(t.facts)}
        return {**told, "children": [nested(c) for c in t.children]}

    return json.dumps(nested(trace), indent=indent, ensure_ascii=False)


_DOT_SHAPE = {"unit": "box", "tile": "note", "section": "folder"}


def to_dot(trace: Trace) -> str:
    """The lineage as a Graphviz graph; arrows point from what was made to what it was made from."""
    names: dict[int, str] = {}
    lines = ["digraph lineage {", "  rankdir=LR;", '  node [fontname="sans-serif", fontsize=10];']
    edges: dict[tuple[str, str], None] = {}
    for _, t in trace.walk():
        if id(t) not in names:
            names[id(t)] = f"n{len(names)}"
            label = json.dumps("\n".join([t.title, *_brief(t)]), ensure_ascii=False)
            lines.append(f"  {names[id(t)]} [shape={_DOT_SHAPE.get(t.kind, 'ellipse')}, label={label}];")
    for _, t in trace.walk():
        edges.update({(names[id(t)], names[id(c)]): None for c in t.children})
    lines += [f"  {a} -> {b};" for a, b in edges]
    return "\n".join([*lines, "}"]) + "\n"


_COLOUR = {"unit": "dim", "edge": "bold", "synapse": "bold cyan", "tile": "green", "merge": "yellow"}


def to_rich(trace: Trace) -> Tree:
    """The tree for a terminal; a step met before is named and not unfolded again."""
    seen: set[int] = set()

    def label(t: Trace, again: bool) -> str:
        colour = _COLOUR.get(t.kind, "default")
        if again and (t.children or t.kind == "unit"):
            return f"[{colour}]{escape(t.title)}[/] [dim](see above)[/]"
        brief = " · ".join(_brief(t))
        return f"[{colour}]{escape(t.title)}[/]" + (f"  [dim]{escape(brief)}[/]" if brief else "")

    def grow(node: Tree, t: Trace) -> None:
        for child in t.children:
            again = id(child) in seen
            seen.add(id(child))
            below = node.add(label(child, again))
            if not again:
                grow(below, child)

    root = Tree(label(trace, False))
    grow(root, trace)
    return root


_SHOWN = {
    "edge": ("synapses", "size_vx", "confidence", "weakest_merge", "synapses_unfolded"),
    "synapse": (
        "z_vx",
        "y_vx",
        "x_vx",
        "size_vx",
        "confidence",
        "polarity",
        "reason",
        "quality",
        "worst_metric",
        "flags",
    ),
    "object": ("supervoxels", "fragments", "size_vx", "weakest_merge", "touches_border"),
    "supervoxel": ("object", "size_vx", "boundary", "origin"),
    "joining": ("overlaps_on_path", "merges_on_path", "weakest_on_path", "weakest_in_object", "supervoxels_in_object"),
    "overlap": ("score", "iou", "overlap_vx", "reason"),
    "merge": ("score", "area_nm2", "rank"),
    "refilling": ("a_own", "a_other", "b_own", "b_other", "iou"),
    "section": ("alignment_residual_median_px", "alignment_matches_near", "plane_y_px", "plane_x_px"),
    "tile": ("sha256", "tile_y_px", "tile_x_px", "sharpness", "noise", "membrane_contrast"),
    "voxel": ("supervoxel",),
}
"""The facts of each kind of step that are worth a line; JSON has them all."""


def _brief(t: Trace) -> list[str]:
    """The facts of a step that fit on a line, digests shortened."""
    f = t.facts
    if t.kind == "unit":
        dirty = {True: " (dirty)", False: "", None: ""}[f.get("git_dirty")]
        overrides = f" + {', '.join(o['region'] for o in f['overrides'])}" if f.get("overrides") else ""
        outputs = f.get("outputs") or {}
        return [
            f"key {str(f['unit_key'])[:12]}",
            f"git {str(f['git_commit'])[:10] if f.get('git_commit') else 'not recorded'}{dirty}",
            f"model {f['model_id'] or 'none'}",
            f"params {str(f['params_digest'])[:10]}{overrides}",
            f"env {str(f['environment'])[:10] if f.get('environment') else 'not recorded'}",
            f"reads {', '.join(f'{n} x{len(v)}' if isinstance(v, list) else n for n, v in f['inputs'].items())}",
            f"made {', '.join(f'{n} {str(d)[:10]}' for n, d in outputs.items())}",
        ]
    shown = _SHOWN.get(t.kind, tuple(f))
    return [f"{n} {_short(f[n])}" for n in shown if f.get(n) is not None and not isinstance(f[n], dict | list)]


def _short(value: Fact) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value[:12]}..." if isinstance(value, str) and len(value) == 64 else str(value)  # a SHA-256


ROWS = pa.schema(
    [
        ("step", pa.int64()), ("parent", pa.int64()), ("depth", pa.int32()), ("kind", pa.string()),
        ("title", pa.string()), ("stage", pa.string()), ("unit", pa.uint64()), ("unit_key", pa.string()),
        ("inputs", pa.string()), ("git_commit", pa.string()), ("git_dirty", pa.bool_()), ("model_id", pa.string()),
        ("params", pa.string()), ("environment", pa.string()), ("outputs", pa.string()), ("facts", pa.string()),
    ]
)  # fmt: skip
"""Columns of `lineage_rows`; `inputs`, `params`, `outputs` and `facts` are JSON with ids as strings."""

_AS_JSON = ("inputs", "params", "outputs")
_AS_IS = ("stage", "unit_key", "git_commit", "git_dirty", "model_id", "environment")


def lineage_rows(trace: Trace) -> pa.Table:
    """The tree as flat rows (columns `ROWS`), parents first; a step under two parents has two rows."""
    rows: list[dict[str, Any]] = []

    def add(t: Trace, parent: int | None, depth: int) -> None:
        step, f = len(rows), t.facts
        is_unit = t.kind == "unit"
        rows.append(
            {
                "step": step,
                "parent": parent,
                "depth": depth,
                "kind": t.kind,
                "title": t.title,
                "unit": int(f["unit"]) if is_unit else None,
                **{n: f.get(n) if is_unit else None for n in _AS_IS},
                **{n: _dump(f[n]) if is_unit else None for n in _AS_JSON},
                "facts": _dump(f),
            }
        )
        for child in t.children:
            add(child, step, depth + 1)

    add(trace, None, 0)
    return pa.Table.from_pylist(rows, schema=ROWS)


def _dump(value: Fact) -> str:
    return json.dumps(plain(value), sort_keys=True, ensure_ascii=False)
