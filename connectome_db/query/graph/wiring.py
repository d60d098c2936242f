"""The connectome as arrays: what every measure of the graph works on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from connectome_db.errors import QueryError
from connectome_db.query.database import Database

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]

_EDGES = "SELECT pre, post, synapses FROM connection WHERE synapses >= $least ORDER BY pre, post"
_NATIVE_PLACES = """
SELECT n.neuron, avg((s.z_vx + 0.5) * r.voxel_z_nm) AS z_nm, avg((s.y_vx + 0.5) * r.voxel_y_nm) AS y_nm,
       avg((s.x_vx + 0.5) * r.voxel_x_nm) AS x_nm
FROM (SELECT pre AS neuron, synapse FROM link WHERE counted UNION ALL
      SELECT post, synapse FROM link WHERE counted) n
JOIN synapse s USING (synapse)
CROSS JOIN (SELECT voxel_z_nm, voxel_y_nm, voxel_x_nm FROM stage_record WHERE stage = 'graph') r
GROUP BY n.neuron ORDER BY n.neuron
"""
_LISTED_PLACES = """
SELECT n.neuron, avg(z_vx * r.voxel_z_nm) AS z_nm, avg(y_vx * r.voxel_y_nm) AS y_nm, avg(x_vx * r.voxel_x_nm) AS x_nm
FROM (SELECT pre AS neuron, z_vx, y_vx, x_vx FROM listed_synapse WHERE z_vx IS NOT NULL UNION ALL
      SELECT post, z_vx, y_vx, x_vx FROM listed_synapse WHERE z_vx IS NOT NULL) n
CROSS JOIN (SELECT voxel_z_nm, voxel_y_nm, voxel_x_nm FROM stage_record WHERE stage = 'graph') r
GROUP BY n.neuron ORDER BY n.neuron
"""


@dataclass(frozen=True)
class Wiring:
    """Neurons and connections as arrays; connections are sorted by (pre, post), each pair once."""

    neurons: U64
    """Neuron ids [N], ascending."""
    pre: I32
    """Presynaptic ends [E], as indices into `neurons`."""
    post: I32
    """Postsynaptic ends [E]."""
    synapses: I64
    """Counted synapses [E]."""
    min_synapses: int = 1
    """Connections with fewer were left out."""

    @property
    def size(self) -> int:
        """Number of neurons, those without a connection among them."""
        return len(self.neurons)

    def csr(self, *, weighted: bool = True, direction: str = "out") -> csr_array:
        """Adjacency [N, N]: synapses (or ones) from row to column; `in` is the transpose. Raises QueryError."""
        if direction not in {"out", "in"}:
            raise QueryError(f"direction {direction!r}: wanted 'out' (rows are presynaptic) or 'in'")
        rows, columns = (self.pre, self.post) if direction == "out" else (self.post, self.pre)
        values = self.synapses if weighted else np.ones(len(self.pre), np.int64)
        return csr_array((values, (rows, columns)), shape=(self.size, self.size))

    def simple(self) -> Wiring:
        """Without self-connections: what motifs, rich clubs and null models are defined on."""
        apart = self.pre != self.post
        return replace(self, pre=self.pre[apart], post=self.post[apart], synapses=self.synapses[apart])

    def rewired(self, post: I32) -> Wiring:
        """The same connections with other postsynaptic ends; each keeps its number of synapses."""
        return replace(self, post=post)

    def index(self, neurons: U64) -> I64:
        """Where these neurons stand in `neurons`. Raises QueryError naming the first that is not there."""
        at = np.minimum(np.searchsorted(self.neurons, neurons), max(self.size - 1, 0))
        absent = self.neurons[at] != neurons if self.size else np.ones(len(neurons), np.bool_)
        if absent.any():
            raise QueryError(f"no neuron {int(neurons[absent][0])} among the {self.size:,} of the graph")
        return at.astype(np.int64)


def read_wiring(db: Database, *, min_synapses: int = 1) -> Wiring:
    """The neurons and connections of a project; connections below `min_synapses` are left out. Raises QueryError."""
    if min_synapses < 1:
        raise QueryError(f"min_synapses {min_synapses}: wanted 1 or more")
    neurons: U64 = db.rows("SELECT neuron FROM neuron ORDER BY neuron")["neuron"].to_numpy()
    edges = db.rows(_EDGES, {"least": min_synapses})
    ends = [np.searchsorted(neurons, edges[side].to_numpy()).astype(np.int32) for side in ("pre", "post")]
    synapses: I64 = edges["synapses"].to_numpy().astype(np.int64)
    return Wiring(np.asarray(neurons, np.uint64), ends[0], ends[1], synapses, min_synapses)


def read_places(db: Database, wiring: Wiring) -> F64:
    """Place of each neuron in nm, float64[N, 3] (z, y, x): the mean over its synapses; NaN for neurons without.

    Raises QueryError when no synapse has a place.
    """
    listed = db.has("listed_synapse")
    has_places = not listed or "z_vx" in {c.name for c in db.tables["listed_synapse"].columns}
    wanted = ("listed_synapse",) if listed else ("link", "synapse")
    rows = db.rows(_LISTED_PLACES if listed else _NATIVE_PLACES) if has_places and db.has(*wanted) else None
    if rows is None or rows.num_rows == 0:
        raise QueryError("no synapse of this project has a place: a spatial null model needs a list with x, y, z")
    places = np.full((wiring.size, 3), np.nan)
    at = wiring.index(rows["neuron"].to_numpy())
    places[at] = np.stack([rows[f"{axis}_nm"].to_numpy() for axis in "zyx"], axis=1)
    return places
