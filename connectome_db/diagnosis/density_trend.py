"""Whether synapses thin out towards a side or a corner, beyond chance: a score test of smooth trends.

A gradient of biology is smooth. The Poisson regression of the counts on a template (1 at a side or corner, falling to
0 one width away), with the room for synapses as exposure, has the score test z = -sum((count - expected) * template)
over its standard deviation. The largest z over the four sides and corners is held against the same in draws of chance,
so the p-value allows for the choice (maxT: Westfall and Young 1993). The border does not disturb it: columns are
compared with columns equally near to it.

Two rooms are tried, and p is doubled for that. Per volume of tissue, counts vary more than Poisson's: synapses of one
pair of neurons come together, and thick neurites leave gaps. Per membrane of receiving neurites they do not, but
neurites that lost all of their synapses in the gradient are not seen to receive. z is divided by the square root of the
dispersion, as in quasi-likelihood (Wedderburn 1974, Biometrika 61(3)).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectome_db.diagnosis.density_columns import Columns, per_membrane

F64 = npt.NDArray[np.float64]
DRAWS = 999


def gradient(plane: Columns, root: Path, rng: np.random.Generator) -> tuple[float, Columns]:
    """p-value of a gradient of the synapses of `plane`, and the columns with the room in which it is clearer."""
    tried = [(thins_out(plane, of_pairs(root), rng), plane)]
    membrane = per_membrane(plane, root)
    if membrane is not None:
        tried.append((thins_out(membrane, 1.0, rng), membrane))
    p, clearest = min(tried, key=lambda t: t[0])
    return min(1.0, len(tried) * p), clearest


def thins_out(columns: Columns, dispersion: float, rng: np.random.Generator, draws: int = DRAWS) -> float:
    """p-value of the steepest thinning towards a side or a corner, with at least the dispersion given."""
    templates = _templates(columns.count.shape[0], columns.count.shape[1])
    spread = max(1.0, dispersion, _lumps(columns, templates))
    seen = float(_steepest(columns, columns.count[None], templates)[0]) / np.sqrt(spread)
    chance = _steepest(columns, columns.null(rng, draws), templates)
    return (1 + int((chance >= seen - 1e-9).sum())) / (draws + 1)


def _templates(height: int, width: int) -> F64:
    """Eight ramps (8, height, width), 1 at a side or corner and 0 a width of the plane away."""
    y = np.broadcast_to((np.arange(height)[:, None] + 0.5) / height, (height, width))
    x = np.broadcast_to((np.arange(width)[None] + 0.5) / width, (height, width))
    sides = [y, 1 - y, x, 1 - x]
    corners = [np.maximum(1 - np.hypot(a, b), 0.0) for a in (y, 1 - y) for b in (x, 1 - x)]
    return np.stack([*sides, *corners])


def _steepest(columns: Columns, counts: F64, templates: F64) -> F64:
    """The largest z (draws,) over the templates of counts (draws, height, width)."""
    score = np.zeros((len(counts), len(templates)))
    variance = np.zeros((len(counts), len(templates)))
    for mine in columns.strata():
        share = columns.room[mine] / columns.room[mine].sum()
        ramp = templates[:, mine]
        ramp = ramp - (ramp @ share)[:, None]
        score -= counts[:, mine] @ ramp.T
        variance += counts[:, mine].sum(axis=1)[:, None] * ((ramp**2) @ share)[None]
    out: F64 = (score / np.sqrt(np.maximum(variance, 1e-12))).max(axis=1)
    return out


def _lumps(columns: Columns, templates: F64) -> float:
    """Variance over mean of the counts of columns, with the strata's levels and every smooth trend taken out."""
    expected = columns.expected
    held = expected > 0.25 * expected.max()
    root = np.sqrt(expected[held])
    smooth = np.stack([*(t[held] for t in templates), *(m[held].astype(np.float64) for m in columns.strata())], axis=1)
    basis, size, _ = np.linalg.svd(smooth * root[:, None], full_matrices=False)
    basis = basis[:, size > 1e-9 * size[0]]
    off = (columns.count - expected)[held] / root
    left = off - basis @ (basis.T @ off)
    return float((left**2).sum()) / max(len(off) - int(basis.shape[1]), 1)


def of_pairs(root: Path) -> float:
    """By how much counts of synapses vary more than single events do, if those of a pair all lie in one place.

    sum(n^2) / sum(n) over pairs of neurons with n synapses each; 1 where the graph is not there.
    """
    path = root / "data" / "graph" / "link.parquet"
    if not path.is_file():
        return 1.0
    link = pq.read_table(path, columns=["pre", "post", "counted"])
    of_pair = link.filter(pc.field("counted")).group_by(["pre", "post"]).aggregate([([], "count_all")])
    n = of_pair["count_all"].to_numpy().astype(np.float64)
    return float((n**2).sum()) / float(n.sum()) if n.size else 1.0
