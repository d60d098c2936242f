"""Which keys a store holds, and the records of some of them; records that are not asked for are not parsed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db import ledger
from connectome_db.errors import StoreError
from connectome_db.provenance import Digests, from_hex
from connectome_db.store import Record, Store, parse_record
from connectome_db.versions.plan.present import I64, U64, Flags, labels_of

BATCH = 1 << 16
"""Records that are looked at together."""
UNEXPLAINED = 20_000
"""So many records of unfinished runs are opened to see which units they are of; with more, all count as made."""
CORE = tuple(f"core_{c}" for c in ("z0", "y0", "x0", "z1", "y1", "x1"))


def rows_of(wanted: Digests, among: Digests) -> I64:
    """Per digest of `wanted` (N, 32), a row of `among` (K, 32) that equals it, or -1: int64[N]."""
    if len(wanted) == 0 or len(among) == 0:
        return np.full(len(wanted), -1, dtype=np.int64)
    head, heads = (np.ascontiguousarray(d[:, :8]).view(np.uint64).reshape(-1) for d in (wanted, among))
    order = np.argsort(heads)
    at = order[np.minimum(np.searchsorted(heads[order], head), len(heads) - 1)]
    return np.where((among[at] == wanted).all(axis=1), at, -1)


def _singles(store: Store, stage: str) -> list[str]:
    folder = store.root / "keys" / stage
    names = os.listdir(folder) if folder.is_dir() else []
    return sorted(n.removesuffix(".json") for n in names if len(n) == 69 and n.endswith(".json"))


def _shards(store: Store, stage: str) -> list[Path]:
    return sorted((store.root / "shards" / stage).glob("*.parquet"))


def _shard_keys(shard: Path) -> Digests:
    try:
        pieces = [from_hex(b["key"].to_pylist()) for b in pq.ParquetFile(shard).iter_batches(BATCH, columns=["key"])]
    except (pa.ArrowInvalid, OSError, ValueError) as e:
        raise StoreError(f"{shard}: the keys in it cannot be read ({e}); `connectome verify` says what is lost") from e
    return np.concatenate(pieces) if pieces else np.zeros((0, 32), np.uint8)


def all_keys(store: Store, stage: str) -> Digests:
    """Every key of a stage that the store holds, uint8 (K, 32), in no order. Says nothing about their files."""
    return np.concatenate([from_hex(_singles(store, stage)), *(_shard_keys(s) for s in _shards(store, stage))])


def records(store: Store, stage: str, wanted: Digests) -> Iterator[tuple[int, Record]]:
    """(row of `wanted`, record) of each wanted key (N, 32) that the store holds; damaged records are passed over."""
    seen = np.zeros(len(wanted), dtype=bool)
    singles = _singles(store, stage)
    at = rows_of(from_hex(singles), wanted)
    for k in np.flatnonzero(at >= 0).tolist():
        try:
            record = parse_record((store.root / "keys" / stage / f"{singles[k]}.json").read_text())
        except (StoreError, OSError):
            continue
        seen[at[k]] = True
        yield int(at[k]), record
    for shard in _shards(store, stage) if len(wanted) else ():
        at = rows_of(_shard_keys(shard), wanted)
        at[(at >= 0) & seen[at]] = -1
        if (at >= 0).any():
            seen[at[at >= 0]] = True
            yield from _shard_records(shard, at)


def _shard_records(shard: Path, at: I64) -> Iterator[tuple[int, Record]]:
    first = 0
    for batch in pq.ParquetFile(shard).iter_batches(BATCH, columns=["record"]):
        mine = at[first : first + batch.num_rows]
        first += batch.num_rows
        hits = np.flatnonzero(mine >= 0)
        texts = batch["record"].take(pa.array(hits)).to_pylist() if len(hits) else []
        for k, text in zip(hits.tolist(), texts, strict=True):
            try:
                yield int(mine[k]), parse_record(text)
            except StoreError:
                continue


def model_mark(model_id: str | None) -> str:
    """What a model's id says of its content: networks that differ here have different digests."""
    return (model_id or "").rpartition("@")[2]


def ever_made(
    store: Store, stage: str, codes: U64, cores: I64, variant: I64, variants: Sequence[tuple[str, str | None]]
) -> Flags:
    """Which units the store may hold, whatever they read: bool[N].

    `codes`, `cores` int64[N, 6]; `variant` says which of `variants` (digest of parameters, model id) each has. The
    store's keys do not say what went into them, but the ledgers of finished trees do. A unit is held to be made when a
    ledger has it with the same core, parameters and model under a key that the store still holds, or when the store
    holds a record of it that no ledger explains.
    """
    stock = all_keys(store, stage)
    explained = np.zeros(len(stock), dtype=bool)
    made = np.zeros(len(codes), dtype=bool)
    try:
        ledgers = [one for one in ledger.all_ledgers(store.root, stage) if one.whole]
    except StoreError:
        ledgers = []  # nothing is explained then
    for one in ledgers:
        table = pq.read_table(one.units, columns=["unit", *CORE, "unit_key", "params_digest", "model_id"])
        at = rows_of(from_hex(table["unit_key"].to_pylist()), stock)
        explained[at[at >= 0]] = True
        table = table.filter(pa.array(at >= 0))
        known = table["unit"].to_numpy()
        row = np.minimum(np.searchsorted(known, codes), max(len(known) - 1, 0))
        if len(known):
            params, models = labels_of(table["params_digest"]), labels_of(table["model_id"])
            same_params = np.asarray([[p == v for p in params.values] for v, _ in variants])
            same_model = np.asarray([[model_mark(m) == model_mark(v) for m in models.values] for _, v in variants])
            same = same_params[variant, params.index[row]] & same_model[variant, models.index[row]]
            core = np.stack([table[c].to_numpy() for c in CORE], axis=1)[row]
            made |= same & (known[row] == codes) & (core == cores).all(axis=1)
    left = stock[~explained]
    if len(left) > UNEXPLAINED:
        return np.ones(len(codes), dtype=bool)
    units = [record.unit for _, record in records(store, stage, left)]
    return made | np.isin(codes, np.asarray(units, dtype=np.uint64))
