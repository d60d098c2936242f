"""The rich club: whether neurons with many partners prefer each other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from connectome_db.query.graph import nulls
from connectome_db.query.graph.nulls import Nulls
from connectome_db.query.graph.wiring import F64, I64, Wiring

POINTS = 60
"""Degrees at which the curve is told, spread over those that occur."""


def rich_club(wiring: Wiring, chance: Nulls) -> pa.Table:
    """The curve: degree, neurons, connections, the columns of `nulls.table` (observed: density), and ratio.

    The club of degree k is the neurons with more than k partners (in and out together); its density is the share of
    ordered pairs of them that are connected, `ratio` that over the mean of the random graphs (Colizza et al. 2006,
    10.1038/nphys209; of a connectome: Towlson et al. 2013, 10.1523/JNEUROSCI.3784-12.2013).
    """
    apart = wiring.simple()
    degree = np.bincount(apart.pre, minlength=apart.size) + np.bincount(apart.post, minlength=apart.size)
    levels = _levels(degree)
    members = np.array([np.count_nonzero(degree > k) for k in levels], np.int64)

    def measure(graph: Wiring) -> dict[str, float]:
        return dict(zip(map(str, levels.tolist()), _inside(graph, degree, levels).tolist(), strict=True))

    observed, drawn = nulls.compare(apart, measure, chance)
    pairs = (members * (members - 1)).astype(np.float64)
    names = [str(k) for k in levels.tolist()]
    density = [observed[n] / p for n, p in zip(names, pairs, strict=True)]
    by_chance: list[F64] = [drawn[n] / p for n, p in zip(names, pairs, strict=True)]
    rows = nulls.table("degree", levels.tolist(), density, by_chance, chance)
    ratio = [d / m if m else None for d, m in zip(density, rows["null_mean"].to_pylist(), strict=True)]
    rows = rows.add_column(1, "neurons", pa.array(members))
    rows = rows.add_column(2, "connections", pa.array([int(observed[n]) for n in names], pa.int64()))
    return rows.append_column("ratio", pa.array(ratio, pa.float64()))


def _levels(degree: I64) -> I64:
    """Degrees k that leave at least two neurons with more; at most POINTS of them."""
    found = np.unique(degree)
    held = len(degree) - np.searchsorted(np.sort(degree), found, side="right")
    found = found[held >= 2]
    if len(found) > POINTS:
        found = found[np.unique(np.linspace(0, len(found) - 1, POINTS).round().astype(np.int64))]
    return found.astype(np.int64)


def _inside(graph: Wiring, degree: I64, levels: I64) -> I64:
    """Connections between two neurons of more than each of `levels` partners."""
    lower = np.sort(np.minimum(degree[graph.pre], degree[graph.post]))
    return (len(lower) - np.searchsorted(lower, levels, side="right")).astype(np.int64)
