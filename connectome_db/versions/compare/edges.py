"""Connections of two revisions: gained, lost, stronger, weaker; and why.

Neurons are carried over by their heirs, so a connection between renamed neurons is the same one. A connection's causes
are those of the synapses that it gained or lost.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.query.compare.causes import Attribution
from connectome_db.query.compare.causesets import NOTHING
from connectome_db.query.compare.changes import positions
from connectome_db.revisions import Revision
from connectome_db.versions.compare.evidence import read
from connectome_db.versions.compare.objects import Objects, Reasons
from connectome_db.versions.compare.synapses import Synapses

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Neurons:
    """The neurons of both revisions, each once: its name in a and in b (0: it is not there)."""

    names_a: U64
    names_b: U64
    number_a: I64
    """Of each of `ids_a`, the number of the neuron."""
    number_b: I64
    ids_a: U64
    ids_b: U64

    def numbers(self, side: int, ids: U64) -> I64:
        """Numbers of neurons by their ids in revision a (0) or b (1); all of them are known."""
        known, number = ((self.ids_a, self.number_a), (self.ids_b, self.number_b))[side]
        return number[positions(known, ids)] if len(ids) else np.zeros(0, np.int64)


def by_heirs(objects: Objects) -> Neurons:
    """Objects as neurons: an object of a and its heir are one."""
    nb = len(objects.ids_b)
    alone = objects.heir < 0
    number_a = np.where(alone, nb - 1 + np.cumsum(alone), objects.heir)
    names_a = np.zeros(nb + int(alone.sum()), np.uint64)
    names_a[number_a] = objects.ids_a
    names_b = np.concatenate([objects.ids_b, np.zeros(int(alone.sum()), np.uint64)])
    return Neurons(names_a, names_b, number_a, np.arange(nb), objects.ids_a, objects.ids_b)


def by_name(a: Revision, b: Revision) -> Neurons:
    """Neurons of an imported graph: the same id is the same neuron."""
    ids = [np.sort(read(r, "graph", "neuron", ["neuron"])["neuron"].to_numpy()) for r in (a, b)]
    every = np.union1d(*ids)
    number = [positions(every, i) for i in ids]
    names = [np.where(np.isin(every, i), every, np.uint64(0)) for i in ids]
    return Neurons(names[0], names[1], number[0], number[1], ids[0], ids[1])


def neuron_changes(neurons: Neurons, why: Attribution) -> pa.Table:
    """Neurons that are in one revision only, of an imported graph."""
    gone, new = neurons.names_a[neurons.names_b == 0], neurons.names_b[neurons.names_a == 0]
    n = len(gone) + len(new)
    reasons = _of_the_graph(n, why)
    return pa.table(
        {
            "kind": pa.array(["vanished"] * len(gone) + ["appeared"] * len(new), pa.string()),
            "neuron": np.concatenate([gone, new]),
            "causes": why.sets.lists(reasons.causes),
            "certain": pa.array(reasons.certain),
        }
    )


def compare_edges(a: Revision, b: Revision, neurons: Neurons, synapses: Synapses | None, why: Attribution) -> pa.Table:
    """Connections whose number of synapses differs; without `synapses`, for what the graph as a whole has otherwise."""
    base = len(neurons.names_a)
    sides = [_edges(r, neurons, k, base) for k, r in enumerate((a, b))]
    keys = np.union1d(sides[0][0], sides[1][0])
    before, after = (np.bincount(positions(keys, key), weight, len(keys)).astype(np.int64) for key, weight in sides)
    rows = np.flatnonzero(before != after)
    reasons = _of_the_graph(len(rows), why)
    if synapses is not None:
        reasons = _reasons(keys[rows], base, neurons, synapses, why)
    kind = np.select(
        [before[rows] == 0, after[rows] == 0, after[rows] > before[rows]], ["gained", "lost", "stronger"], "weaker"
    )
    columns: dict[str, pa.Array] = {"kind": pa.array(kind.tolist(), pa.string())}
    ends = keys[rows] // base, keys[rows] % base
    for suffix, names in (("", neurons.names_b), ("_a", neurons.names_a)):
        for end, number in zip(("pre", "post"), ends, strict=True):
            columns[end + suffix] = pa.array(names[number], mask=names[number] == 0)
    columns |= {"synapses_a": pa.array(before[rows]), "synapses_b": pa.array(after[rows])}
    columns["causes"] = why.sets.lists(reasons.causes)
    columns["certain"], columns["indirect"] = pa.array(reasons.certain), pa.array(reasons.indirect)
    return pa.table(columns)


def _edges(revision: Revision, neurons: Neurons, side: int, base: int) -> tuple[I64, I64]:
    """(pre * base + post, synapses) of every connection."""
    rows = read(revision, "graph", "connection", ["pre", "post", "synapses"])
    pre, post = (neurons.numbers(side, rows[c].to_numpy()) for c in ("pre", "post"))
    return pre * base + post, rows["synapses"].to_numpy().astype(np.int64)


def _of_the_graph(n: int, why: Attribution) -> Reasons:
    cause = why.sets.union_all(why.stages["graph"].total)
    certain = len(why.sets.ids(cause)) == 1
    return Reasons(np.full(n, cause), np.full(n, certain), np.zeros(n, bool))


def _reasons(keys: I64, base: int, neurons: Neurons, synapses: Synapses, why: Attribution) -> Reasons:
    """From the synapses that count in the connection in one revision and not in the other."""
    in_side = []
    for side in (0, 1):
        pre, post, counted = synapses.neurons(side)
        key = np.full(len(pre), -1, dtype=np.int64)
        key[counted] = neurons.numbers(side, pre[counted]) * base + neurons.numbers(side, post[counted])
        in_side.append(key)
    differs = np.flatnonzero(in_side[0] != in_side[1])
    edge = np.concatenate([positions(keys, key[differs]) for key in in_side])
    synapse = np.tile(differs, 2)[edge >= 0]
    edge = edge[edge >= 0]
    causes = why.sets.gather(edge, synapses.reasons.causes[synapse], len(keys))
    certain, indirect = np.ones(len(keys), bool), causes == NOTHING
    np.logical_and.at(certain, edge, synapses.reasons.certain[synapse])
    np.logical_or.at(indirect, edge, synapses.reasons.indirect[synapse])
    causes = np.where(causes == NOTHING, why.sets.union_all(why.stages["graph"].total), causes)
    return Reasons(causes, certain & ~indirect, indirect)
