"""Paths between two neurons, on the index: all shortest ones, all below a bound, or the best by weight."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError
from connectome_db.query.adjacency import Adjacency

U64 = np.typing.NDArray[np.uint64]
WEIGHTS = ("steps", "synapses", "share")


def paths(
    index: Adjacency, pre: int, post: int, *, max_steps: int | None, weight: str, min_count: int, limit: int
) -> pa.Table:
    """Rows: path (from 0), step (0 is `pre`), neuron, synapses (of the connection that leads to it; null at step 0).

    Without `max_steps`, all paths of the fewest steps; with it, all without a repeated neuron up to that many steps;
    at most `limit` paths, in order of their steps and then of their ids. Another `weight` than steps gives the best
    path alone.
    """
    if weight not in WEIGHTS:
        raise QueryError(f"weight {weight!r}: wanted one of {', '.join(WEIGHTS)}")
    if weight != "steps":
        if max_steps is not None or min_count > 1:
            raise QueryError(f"weight={weight!r} gives the one best path: leave out max_steps and min_count")
        best = index.shortest_path(pre, post, weight=weight).tolist()  # type: ignore[arg-type]  # checked above
        found = [best] if best else []
    else:
        found = list(islice(_by_steps(index, pre, post, max_steps, min_count), limit))
    rows = [(k, step, neuron) for k, path in enumerate(found) for step, neuron in enumerate(path)]
    strength = [None if step == 0 else index.synapses(found[k][step - 1], neuron) for k, step, neuron in rows]
    return pa.table(
        {
            "path": pa.array([r[0] for r in rows], pa.int64()),
            "step": pa.array([r[1] for r in rows], pa.int64()),
            "neuron": pa.array([r[2] for r in rows], pa.uint64()),
            "synapses": pa.array(strength, pa.int64()),
        }
    )


def _by_steps(index: Adjacency, pre: int, post: int, max_steps: int | None, min_count: int) -> Iterator[list[int]]:
    left = _steps_left(index, post, pre, max_steps, min_count)
    if pre not in left:
        return
    longest = left[pre] if max_steps is None else max_steps
    for steps in range(left[pre], longest + 1):
        yield from _walk(index, [pre], post, steps, left, min_count)


def _walk(
    index: Adjacency, path: list[int], post: int, steps: int, left: dict[int, int], min_count: int
) -> Iterator[list[int]]:
    """Paths of exactly `steps` more steps that continue `path` to `post` without coming back to a neuron."""
    if steps == 0:
        if path[-1] == post:
            yield list(path)
        return
    partners, _ = index.partners(path[-1], "out", min_synapses=min_count)
    for partner in partners.tolist():
        if partner not in path and left.get(partner, steps) <= steps - 1 and (partner != post or steps == 1):
            path.append(partner)
            yield from _walk(index, path, post, steps - 1, left, min_count)
            path.pop()


def _steps_left(index: Adjacency, post: int, pre: int, max_steps: int | None, min_count: int) -> dict[int, int]:
    """Neuron -> fewest steps to `post`, until `pre` is met or `max_steps` are made."""
    found, front, step = {post: 0}, [post], 0
    while front and (step < max_steps if max_steps is not None else pre not in found):
        step += 1
        sources = [index.partners(n, "in", min_synapses=min_count)[0] for n in front]
        new = np.unique(np.concatenate(sources)).tolist()
        front = [n for n in new if n not in found]
        found.update(dict.fromkeys(front, step))
    return found
