"""A synthetic fly: a random graph with the degrees of a real one, as a list of synapses with places.

    python benchmarks/synthetic_fly.py DEGREES.parquet OUT.parquet [--edges 15e6] [--synapses 54e6] [--scale 1]

The degrees of every neuron (columns neuron_id, in_degree, out_degree: those of FAFB, thresholded) are scaled to the
wanted number of edges and wired at random (configuration model: Newman, Strogatz & Watts 2001), without self-loops
and without repeated pairs. Synapses per edge are log-normal, from 1. A neuron has a place; a synapse lies between the
places of its two neurons. Rows come in random order, as exports of annotation databases do. Nothing else of a fly is in
it: call every result synthetic.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

VOLUME_NM = np.asarray([270_000, 400_000, 900_000])
"""Size of the brain, (z, y, x)."""
SPREAD_NM = 12_000
BATCH = 1 << 20
I64 = npt.NDArray[np.int64]


def wire(out_degree: I64, in_degree: I64, rng: np.random.Generator, rounds: int = 12) -> tuple[I64, I64]:
    """Edges (pre, post) as indices, each pair once and none to itself; a few stubs that do not fit are left out."""
    pre, post = (np.repeat(np.arange(len(d)), d) for d in (out_degree, in_degree))
    n = min(len(pre), len(post))
    pre, post = rng.permutation(pre)[:n], rng.permutation(post)[:n]
    good = np.zeros(0, np.int64)
    for _ in range(rounds):
        key = pre * len(out_degree) + post
        found, first = np.unique(np.concatenate([good, key]), return_index=True)
        fits = found // len(out_degree) != found % len(out_degree)
        again = np.setdiff1d(np.arange(len(key)), first[fits] - len(good), assume_unique=True)
        good = found[fits]
        if not len(again):
            break
        pre, post = rng.permutation(pre[again]), rng.permutation(post[again])
    return good // len(out_degree), good % len(out_degree)


def weights(edges: int, synapses: int, rng: np.random.Generator) -> I64:
    """Synapses per edge, at least 1, log-normal, with the given sum."""
    extra = rng.lognormal(0.0, 1.2, edges)
    extra *= (synapses - edges) / extra.sum()
    whole = np.floor(extra).astype(np.int64)
    left = synapses - edges - int(whole.sum())
    whole[rng.choice(edges, left, replace=False, p=None)] += 1
    return whole + 1


def degrees(
    path: Path, edges: float, scale: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint64], I64, I64]:
    """Ids, out- and in-degrees of a share `scale` of the neurons, scaled to `edges` * `scale` edges."""
    table = pq.read_table(path)
    n = table.num_rows
    kept = np.sort(rng.choice(n, max(2, round(n * scale)), replace=False))
    ids = table["neuron_id"].to_numpy()[kept].astype(np.uint64)
    out, into = (table[c].to_numpy()[kept].astype(np.float64) for c in ("out_degree", "in_degree"))
    wanted = edges * scale
    scaled = [np.minimum(d * wanted / max(d.sum(), 1), len(kept) - 1) for d in (out, into)]
    whole = [np.floor(d + rng.random(len(d))).astype(np.int64) for d in scaled]
    return ids, whole[0], whole[1]


def write(path: Path, ids: npt.NDArray[np.uint64], pre: I64, post: I64, count: I64, rng: np.random.Generator) -> int:
    """Write one row per synapse, in random order; returns their number."""
    place = rng.random((len(ids), 3)) * VOLUME_NM
    edge = rng.permutation(np.repeat(np.arange(len(pre), dtype=np.int32), count))
    writer: pq.ParquetWriter | None = None
    for start in range(0, len(edge), BATCH):
        mine = edge[start : start + BATCH]
        a, b = pre[mine], post[mine]
        where = (place[a] + place[b]) / 2 + rng.normal(0, SPREAD_NM, (len(mine), 3))
        where = np.clip(np.rint(where), 0, VOLUME_NM - 1).astype(np.int32)
        table = pa.table(
            {
                "pre_pt_root_id": ids[a],
                "post_pt_root_id": ids[b],
                **{f"ctr_pt_{axis}_nm": where[:, k] for k, axis in ((2, "x"), (1, "y"), (0, "z"))},
                "cleft_score": rng.integers(50, 256, len(mine), dtype=np.int16),
            }
        )
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table)
    if writer:
        writer.close()
    return len(edge)


def make(file: Path, out: Path, *, edges: float, synapses: float, scale: float, seed: int) -> tuple[int, int, int]:
    """Make the list; returns neurons, edges and synapses."""
    rng = np.random.default_rng(seed)
    ids, out_degree, in_degree = degrees(file, edges, scale, rng)
    pre, post = wire(out_degree, in_degree, rng)
    count = weights(len(pre), max(len(pre), round(synapses * scale)), rng)
    return len(ids), len(pre), write(out, ids, pre, post, count, rng)


def main() -> None:
    """The command above."""
    parser = argparse.ArgumentParser(description="A synthetic fly from the degrees of a real one.")
    parser.add_argument("degrees", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--edges", type=float, default=15e6)
    parser.add_argument("--synapses", type=float, default=54e6)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    found = make(
        given.degrees, given.out, edges=given.edges, synapses=given.synapses, scale=given.scale, seed=given.seed
    )
    print("synthetic: {:,} neurons, {:,} edges, {:,} synapses".format(*found))


if __name__ == "__main__":
    main()
