"""What chance alone would give: random graphs like the connectome, and how far the connectome is from them.

Two null models. `degree`: every neuron keeps its numbers of partners in each direction. `spatial`: that, and the number
of connections of each length stays as it is, so that what nearness explains does not count as a finding. Both keep how
many synapses leave a neuron, not how many reach it. Seeds are recorded: the same seed gives the same graphs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.kernels.rewire import swap_edges
from connectome_db.query.graph.wiring import F64, Wiring

MODELS: Mapping[str, str] = {
    "degree": "every neuron keeps its partners in each direction, in number",
    "spatial": "as degree, and as many connections of each length",
}
SWAPS = {"degree": 10, "spatial": 50}
"""Swaps tried per connection. Ten suffice to forget a graph (Milo et al. 2003); most spatial ones are refused."""
LENGTHS = 10
"""Classes of length, with as many connections in each."""

Measured = Mapping[str, float]


@dataclass(frozen=True)
class Nulls:
    """Which random graphs to compare with."""

    n: int = 100
    model: str = "degree"
    seed: int = 0
    place_nm: F64 | None = None
    """Places of the neurons [N, 3] in nm; needed by `spatial`."""

    def __post_init__(self) -> None:
        """Raises QueryError for an unknown model, too few graphs, or no places."""
        if self.model not in MODELS:
            raise QueryError(f"unknown null model {self.model!r}{nearest(self.model, MODELS)}")
        if self.n < 0 or self.seed < 0:
            raise QueryError(f"nulls {self.n}, seed {self.seed}: wanted 0 or more")
        if self.model == "spatial" and self.place_nm is None:
            raise QueryError("the spatial null model needs the places of neurons")

    def graphs(self, wiring: Wiring) -> Iterator[Wiring]:
        """`n` random graphs like `wiring`, which may have no self-connection."""
        length = None
        if self.model == "spatial" and self.place_nm is not None:
            ends = self.place_nm[wiring.pre] - self.place_nm[wiring.post]
            if np.isnan(ends).any():
                raise QueryError("the place of a connected neuron is not known: its synapses have none")
            length = np.unique(np.quantile(np.linalg.norm(ends, axis=1), np.linspace(0, 1, LENGTHS + 1)[1:-1]))
        place = None if length is None else self.place_nm
        tries = SWAPS[self.model] * len(wiring.pre)
        for k in range(self.n):
            seed = int(np.random.SeedSequence((self.seed, k)).generate_state(1, np.uint64)[0])
            post, _ = swap_edges(
                wiring.pre, wiring.post, attempts=tries, seed=seed, place_nm=place, length_edges_nm=length
            )
            yield wiring.rewired(post)


def compare(wiring: Wiring, measure: Callable[[Wiring], Measured], nulls: Nulls) -> tuple[Measured, dict[str, F64]]:
    """What `measure` gives for the graph, and for each random graph: {name: float64[n]}."""
    observed = measure(wiring)
    drawn = [measure(graph) for graph in nulls.graphs(wiring)]
    return observed, {name: np.array([d.get(name, np.nan) for d in drawn]) for name in observed}


def table(
    key: str, keys: Sequence[str | int], observed: Sequence[float], drawn: Sequence[F64], nulls: Nulls
) -> pa.Table:
    """Rows: `key`, observed, null_mean, null_sd, z, p, nulls, null_model, seed.

    `z` is in standard deviations of the random graphs, null where they are all equal. `p` is two-sided: the share of
    graphs, the observed one among them, that are as far from the mean (North et al. 2002, 10.1086/341527).
    """
    rows: list[dict[str, object]] = []
    for name, value, chance in zip(keys, observed, drawn, strict=True):
        known = chance[~np.isnan(chance)]
        row: dict[str, object] = {key: name, "observed": _number(value)}
        mean = float(known.mean()) if len(known) else None
        sd = float(known.std(ddof=1)) if len(known) > 1 else None
        row |= {"null_mean": mean, "null_sd": sd, "z": None, "p": None}
        if mean is not None and sd is not None and not np.isnan(value):
            far = np.abs(known - mean) >= abs(value - mean) * (1 - 1e-12)
            row["z"] = (value - mean) / sd if sd > 0 else None
            row["p"] = float((1 + np.count_nonzero(far)) / (1 + len(known)))
        rows.append(row | {"nulls": len(known), "null_model": nulls.model, "seed": nulls.seed})
    number = [pa.field(n, pa.float64()) for n in ("observed", "null_mean", "null_sd", "z", "p")]
    name_type = pa.int64() if keys and isinstance(keys[0], int) else pa.string()
    fields = [pa.field(key, name_type), *number, pa.field("nulls", pa.int64()), pa.field("null_model", pa.string())]
    return pa.Table.from_pylist(rows, schema=pa.schema([*fields, pa.field("seed", pa.int64())]))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
