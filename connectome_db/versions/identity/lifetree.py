"""The life of an object as two trees of short lines: what it was made of, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from connectome_db.versions.identity.life import Life


@dataclass(frozen=True)
class Node:
    """A line and the lines below it."""

    text: str
    below: tuple[Node, ...] = ()

    def lines(self, indent: str = "") -> list[str]:
        """The tree as indented text."""
        return [f"{indent}{self.text}", *(line for n in self.below for line in n.lines(indent + "    "))]


def after(life: Life) -> Node | None:
    """What became of the object; None when no later revision was looked at."""
    if life.at == len(life.revisions) - 1:
        return None
    return Node(_root(life), (*_below(life, life.at, life.object, 1), *_unlinked(life, 1)))


def before(life: Life) -> Node | None:
    """What the object was made of; None when no earlier revision was looked at."""
    if life.at == 0:
        return None
    return Node(f"{_root(life)}, was made of", (*_below(life, life.at, life.object, -1), *_unlinked(life, -1)))


def _root(life: Life) -> str:
    return f"object {life.object} at {life.revisions[life.at]}, {life.size_vx:,} voxels"


def _step(life: Life, k: int, way: int) -> list[dict[str, Any]]:
    """Links from revision k on in direction `way`: 1 later, -1 earlier."""
    place = k if way == 1 else k - 1
    return list(life.steps[place].to_pylist()) if 0 <= place < len(life.steps) else []


def _below(life: Life, k: int, one: int, way: int) -> list[Node]:
    """The objects that follow (or lead to) object `one` of revision k."""
    if not 0 <= k + way < len(life.revisions):
        return []
    near, far = ("object_a", "object_b") if way == 1 else ("object_b", "object_a")
    rows = _step(life, k, way)
    mine = sorted((r for r in rows if r[near] == one and r[far] is not None), key=lambda r: -r["overlap_vx"])
    at = life.revisions[k + way]
    if not mine:
        return [Node(f"{at}: nothing that counts" if way == -1 else f"{at}: gone")]
    nodes = []
    for r in mine:
        nearer = [s for s in rows if s[far] == r[far] and s[near] is not None]
        main = min(nearer, key=lambda s: (-s["overlap_vx"], s[near]))
        if main[near] != one:
            nodes.append(Node(f"{at}: {r[far]}, see {main[near]}"))
            continue
        last = _run_of_same(life, k + way, r, way)
        shown = at if last == k + way else f"{at} … {life.revisions[last]}"
        nodes.append(Node(f"{shown}: {_told(r, far)}", tuple(_below(life, last, r[far], way))))
    return nodes


def _run_of_same(life: Life, k: int, link: dict[str, Any], way: int) -> int:
    """How far an object that stays the same stays so: the last revision of the run that begins at k."""
    if link["relation"] != "same":
        return k
    one = link["object_a"]
    while 0 <= k + way < len(life.revisions):
        near = "object_a" if way == 1 else "object_b"
        mine = [r for r in _step(life, k, way) if r[near] == one]
        if len(mine) != 1 or mine[0]["relation"] != "same":
            break
        k += way
    return k


def _told(link: dict[str, Any], far: str) -> str:
    role = (", heir (in doubt)" if link["ambiguous"] else ", heir") if link["heir"] else ""
    relation = link["relation"]
    return f"{link[far]}  {percent(link['share'])}  {relation}{'' if relation in ('same', 'renamed') else role}"


def _unlinked(life: Life, way: int) -> list[Node]:
    """Objects that hold voxels of the object, to which nothing leads from the revision before."""
    near, far = ("object_a", "object_b") if way == 1 else ("object_b", "object_a")
    found = []
    k = life.at
    while 0 <= k + way < len(life.revisions):
        for r in _step(life, k, way):
            if r[near] is None and r[far] is not None:
                text = f"{life.revisions[k + way]}: {r[far]}  {percent(r['share'])}  without a link"
                found.append(Node(text, tuple(_below(life, k + way, r[far], way))))
        k += way
    return found


def percent(part: float) -> str:
    """A part of 1 in words that do not round it to all or nothing."""
    if 0 < part < 0.01:
        return "below 1 %"
    return "over 99 %" if 0.995 <= part < 1 else f"{100 * part:.0f} %"
