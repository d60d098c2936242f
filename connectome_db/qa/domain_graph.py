"""What is expected of supervoxels, objects, synapses and the graph: the measures, without their limits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from connectome_db.qa.frames import F64, Frame, Place, Tables
from connectome_db.qa.measures import frame, groups, per_unit, ratio, sums, whole

TISSUE = 0
WEAK = 0.5
"""Merges below this joined what the network held for more likely apart."""


def _share(a: float, b: float) -> Frame:
    return whole(float(a) / float(b) if b else np.nan)


def _tissue_vx(t: Tables) -> float:
    kind, voxels = t.column("mask_area", "mask_class"), t.column("mask_area", "voxels")
    return float(voxels[kind == TISSUE].sum())


def _flags(t: Tables, table: str, column: str) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = t.rows(table)[column].to_numpy(zero_copy_only=False).astype(bool)
    return found


def tissue_in_objects(t: Tables) -> Frame:
    """Voxels of objects over voxels of tissue."""
    return _share(t.column("object", "size_vx").sum(), _tissue_vx(t))


def overlap_accepted(t: Tables) -> Frame:
    """Share of overlapping voxels whose overlap was accepted, per block face."""
    units, index = groups(t.column("overlap", "unit"))
    mass, taken = t.column("overlap", "overlap_vx"), _flags(t, "overlap", "accepted")
    n = len(units)
    return per_unit(t, "overlap", units, ratio(sums(index, mass * taken, n), sums(index, mass, n)))


def object_sizes(t: Tables) -> Frame:
    """Per object, its voxels minus those of its supervoxels."""
    names, sizes = t.column("supervoxel", "supervoxel"), t.column("supervoxel", "size_vx")
    order = np.argsort(names)
    at = np.searchsorted(names[order], t.column("member", "supervoxel"))
    mine = sizes[order][np.minimum(at, max(len(order) - 1, 0))] if len(order) else np.zeros(len(at), np.int64)
    objects = t.column("object", "object")
    difference = t.column("object", "size_vx") - _sum_for(objects, t.column("member", "object"), mine)
    return _per_object(t, objects, difference)


def largest_object(t: Tables) -> Frame:
    """Share of all objects' volume, for the largest object."""
    sizes = t.column("object", "size_vx")
    if not len(sizes):
        return whole(np.nan)
    i = int(np.argmax(sizes))
    return _per_object(t, t.column("object", "object")[i : i + 1], np.asarray([sizes[i] / sizes.sum()]))


def weak_merges(t: Tables) -> Frame:
    """Share of the merged contact area whose score was below 0.5."""
    area, score = t.column("merge", "area_nm2"), t.column("merge", "score")
    return _share(area[score < WEAK].sum(), area.sum())


def borderline(t: Tables) -> Frame:
    """Borderline pairs per object."""
    return _share(t.rows("borderline").num_rows, t.rows("object").num_rows)


def synapse_density(t: Tables) -> Frame:
    """Detected synapses per cubic micrometre of tissue."""
    voxel = t.voxel_nm("synapses")
    volume = 0.0 if voxel is None else _tissue_vx(t) * float(np.prod(voxel)) / 1e9
    return _share(t.rows("synapse").num_rows, volume)


def _median(t: Tables, table: str, column: str) -> Frame:
    values = t.column(table, column)
    return whole(float(np.median(values)) if len(values) else np.nan)


def synapse_confidence(t: Tables) -> Frame:
    """Median confidence."""
    return _median(t, "synapse", "confidence")


def synapse_polarity(t: Tables) -> Frame:
    """Median polarity."""
    return _median(t, "synapse", "polarity")


def counted(t: Tables) -> Frame:
    """Share of the synapses that count, without repeats."""
    k = t.links
    return _share(k.synapses[k.counted].sum(), k.synapses[~k.repeats].sum())


def duplicates(t: Tables) -> Frame:
    """Share of the synapses that are repeats."""
    return _share(t.links.repeats.sum(), len(t.links.repeats))


def autapses(t: Tables) -> Frame:
    """Share of the synapses of a neuron onto itself, without repeats."""
    k = t.links
    same, once = k.pre == k.post, ~k.repeats
    return _share(k.synapses[same & once].sum(), k.synapses[once].sum())


def unconnected(t: Tables) -> Frame:
    """Share of the neurons that have no counted synapse."""
    degree = t.column("neuron", "synapses_out") + t.column("neuron", "synapses_in")
    return _share((degree == 0).sum(), len(degree))


def connection_synapses(t: Tables) -> Frame:
    """Synapses per connection."""
    pre, post = t.column("connection", "pre"), t.column("connection", "post")
    return frame(t.column("connection", "synapses"), lambda i: Place(f"connection {pre[i]} to {post[i]}"))


def connection_sums(t: Tables) -> Frame:
    """Per presynaptic neuron, synapses of its connections minus its counted synapses."""
    k = t.links
    links, edges = k.pre[k.counted], t.column("connection", "pre")
    neurons = np.union1d(np.unique(links), np.unique(edges))
    edge_sum = _sum_for(neurons, edges, t.column("connection", "synapses"))
    return frame(edge_sum - _sum_for(neurons, links, k.synapses[k.counted]), lambda i: Place(f"neuron {neurons[i]}"))


def neuron_sums(t: Tables) -> Frame:
    """Per neuron, its synapses out and in minus the counted synapses that name it: the larger of the differences."""
    k, neurons = t.links, t.column("neuron", "neuron")
    weight = k.synapses[k.counted]
    wrong = [
        np.abs(t.column("neuron", f"synapses_{way}") - _sum_for(neurons, side[k.counted], weight))
        for way, side in (("out", k.pre), ("in", k.post))
    ]
    return frame(np.maximum(*wrong), lambda i: Place(f"neuron {neurons[i]}"))


def serious_flags(t: Tables) -> Frame:
    """Flags of severity `serious`, counted for the whole dataset; the place is that of the first."""
    flags = t.rows("flag")
    serious = flags.filter(pc.equal(flags["severity"], "serious"))
    if serious.num_rows == 0:
        return whole(0.0)
    first = serious.slice(0, 1).to_pylist()[0]
    z0, y0, x0, z1, y1, x1 = (float(first[f"{a}{e}_nm"]) for e in (0, 1) for a in "zyx")
    return frame([serious.num_rows], lambda _: Place(f"flag {first['flag']}", None, (z0, y0, x0, z1, y1, x1)))


def _sum_for(names: npt.NDArray[np.uint64], seen: npt.NDArray[np.uint64], values: npt.NDArray[np.generic]) -> F64:
    """Sum of `values` over the rows of each of `names`; rows of others are left out."""
    order = np.argsort(names)
    ranked = names[order]
    at = np.searchsorted(ranked, seen)
    known = at < len(ranked)
    known[known] = ranked[at[known]] == seen[known]
    return np.bincount(order[at[known]], np.asarray(values, dtype=np.float64)[known], len(names)).astype(np.float64)


def _per_object(t: Tables, objects: npt.NDArray[np.uint64], values: npt.NDArray[np.generic]) -> Frame:
    """One value per object; its place is its bounding box."""

    def place(i: int) -> Place:
        row = t.rows("object").filter(pc.equal(t.rows("object")["object"], objects[i])).slice(0, 1).to_pylist()[0]
        voxel = t.voxel_nm("agglomerate")
        if voxel is None:
            return Place(f"object {objects[i]}")
        six = [float(row[f"{a}{e}_vx"]) * float(voxel["zyx".index(a)]) for e in (0, 1) for a in "zyx"]
        return Place(f"object {objects[i]}", None, (six[0], six[1], six[2], six[3], six[4], six[5]))

    return frame(np.asarray(values, dtype=np.float64), place)
