"""Digests and keys: what a value is, what a unit is made of.

Every pre-image starts with the kind of thing it is, so that equal bytes that mean different things differ. Tables and
arrays are hashed by *decoded values*, never by file bytes, which change with library versions.

What is deliberately left out of a unit's key: times, hosts, users, git commits, package versions, rank counts, paths.
They are recorded beside the result (see `environment`), not hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.spec import NM3, Array, Plan

FORMAT = 1
"""Meaning of keys and of what the runner hands to `compute`. Bumped when that changes; it redoes everything."""

Digests = npt.NDArray[np.uint8]
"""SHA-256 digests as rows of 32 bytes."""


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no white space; floats as Python prints them, so equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(kind: str, value: Any) -> str:
    """Hex SHA-256 of a JSON value. Stable across processes, machines and dict order."""
    return hashlib.sha256(kind.encode() + b"\0" + canonical_json(value)).hexdigest()


def array_digest(array: Array) -> str:
    """Hex SHA-256 of an array's type, shape and values in C order, little-endian."""
    a = np.ascontiguousarray(array)
    if a.dtype.byteorder == ">":
        a = a.astype(a.dtype.newbyteorder("<"))
    h = hashlib.sha256(b"array\0" + canonical_json([a.dtype.str, list(a.shape)]))
    h.update(a.reshape(-1).view(np.uint8).data)
    return h.hexdigest()


def _column_bytes(column: pa.ChunkedArray) -> Iterable[bytes]:
    """The values of a column as bytes: null mask, then values (-0.0 as 0.0, one NaN, strings with their lengths)."""
    nulls = column.is_null().to_numpy().astype(np.uint8)
    yield nulls.tobytes() if nulls.any() else b"-"
    if pa.types.is_string(column.type):
        filled = pc.fill_null(column, "")
        yield pc.binary_length(filled).to_numpy().astype("<i4").tobytes()
        yield b"".join(_text(chunk) for chunk in filled.chunks)
        return
    filled = pc.fill_null(column, False if pa.types.is_boolean(column.type) else 0)
    values = filled.to_numpy()
    if pa.types.is_floating(column.type):
        values = np.where(np.isnan(values), np.array(np.nan, values.dtype), values + values.dtype.type(0))
    yield np.ascontiguousarray(values).tobytes()


def _text(strings: pa.StringArray) -> memoryview:
    """The bytes of all strings of an array without nulls, one after the other."""
    _, ends, data = strings.buffers()
    if data is None or len(strings) == 0:
        return memoryview(b"")
    where = np.frombuffer(ends, np.int32)[strings.offset : strings.offset + len(strings) + 1]
    return memoryview(data)[int(where[0]) : int(where[-1])]


def table_digest(table: pa.Table) -> str:
    """Hex SHA-256 of a table's column names, types and values in row order."""
    h = hashlib.sha256(b"table\0" + canonical_json([[f.name, str(f.type)] for f in table.schema] + [table.num_rows]))
    for name in table.column_names:
        for piece in _column_bytes(table[name]):
            h.update(piece)
    return h.hexdigest()


def slice_digests(table: pa.Table, edges: Sequence[int]) -> list[str]:
    """`table_digest` of the rows edges[i]:edges[i + 1], for every i: the same digests, the columns read once."""
    columns = [_sliceable(table[name], table.num_rows) for name in table.column_names]
    head = [[f.name, str(f.type)] for f in table.schema]
    begun = {n: hashlib.sha256(b"table\0" + canonical_json([*head, n])) for n in {b - a for a, b in pairwise(edges)}}
    found = []
    for a, b in pairwise(edges):
        h = begun[b - a].copy()
        for nulls, values, width, ends, text in columns:
            mask = nulls[a:b]
            h.update(mask if 1 in mask else b"-")
            h.update(values[a * width : b * width])
            if ends:
                h.update(text[ends[a] : ends[b]])
        found.append(h.hexdigest())
    return found


def _sliceable(column: pa.ChunkedArray, rows: int) -> tuple[bytes, memoryview, int, list[int], memoryview]:
    """The bytes of a column, to be cut by rows: null mask, values and their width, and for text its ends and bytes."""
    nulls, values, *text = _column_bytes(column)
    ends = np.concatenate([[0], np.cumsum(np.frombuffer(values, "<i4"), dtype=np.int64)]).tolist() if text else []
    width = len(values) // max(rows, 1)
    return (b"" if nulls == b"-" else nulls), memoryview(values), width, ends, memoryview(text[0] if text else b"")


def merkle(codes: npt.NDArray[np.uint64], digests: Sequence[str]) -> str:
    """One digest for many parts: SHA-256 over (unit code, content digest), ascending by code."""
    order = np.argsort(codes, kind="stable")
    h = hashlib.sha256(b"merkle\0")
    h.update(_with_codes(codes[order], from_hex([digests[i] for i in order])).tobytes())
    return h.hexdigest()


def from_hex(digests: Sequence[str]) -> Digests:
    """Hex digests -> uint8 (N, 32)."""
    return np.frombuffer(bytes.fromhex("".join(digests)), dtype=np.uint8).reshape(-1, 32)


def _with_codes(codes: npt.NDArray[np.uint64], digests: Digests) -> npt.NDArray[np.uint8]:
    raw = np.ascontiguousarray(codes.astype("<u8")).view(np.uint8).reshape(-1, 8)
    return np.ascontiguousarray(np.concatenate([raw, digests], axis=1))


def touching(
    reads: npt.NDArray[np.int64], parts: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which parts each read box touches: CSR (indptr int64[N + 1], indices int64[nnz], ascending per row).

    Both are boxes int64[., 6]. A grid join: parts are entered in every cell they cover of a lattice as large as the
    largest part, so a part lands in at most 8 cells and a read looks only at cells near it. Linear in reads and parts,
    without a Python loop.
    """
    n = len(reads)
    if n == 0 or len(parts) == 0:
        return np.zeros(n + 1, dtype=np.int64), np.zeros(0, dtype=np.int64)
    lo, hi = parts[:, :3].min(axis=0), parts[:, 3:].max(axis=0)
    cell = np.maximum((parts[:, 3:] - parts[:, :3]).max(axis=0), 1)
    cells = np.maximum(-(-(hi - lo) // cell), 1)

    def enter(boxes: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        a = np.clip((np.maximum(boxes[:, :3], lo) - lo) // cell, 0, cells - 1)
        b = np.clip((np.minimum(boxes[:, 3:], hi) - 1 - lo) // cell, 0, cells - 1)
        real = ((boxes[:, 3:] > boxes[:, :3]) & (boxes[:, :3] < hi) & (boxes[:, 3:] > lo)).all(axis=1)
        extent = np.where(real[:, None], b - a + 1, 0)
        count = extent.prod(axis=1)
        who = np.repeat(np.arange(len(boxes)), count)
        k = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        e = extent[who]
        z = a[who, 0] + k // np.maximum(e[:, 1] * e[:, 2], 1)
        y = a[who, 1] + k // np.maximum(e[:, 2], 1) % np.maximum(e[:, 1], 1)
        x = a[who, 2] + k % np.maximum(e[:, 2], 1)
        return who, (z * cells[1] + y) * cells[2] + x

    part, part_cell = enter(parts)
    order = np.argsort(part_cell, kind="stable")
    part, part_cell = part[order], part_cell[order]
    read, read_cell = enter(reads)
    first = np.searchsorted(part_cell, read_cell, side="left")
    count = np.searchsorted(part_cell, read_cell, side="right") - first
    who = np.repeat(read, count)
    offset = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    candidate = part[np.repeat(first, count) + offset]
    r, p = reads[who], parts[candidate]
    hit = ((r[:, :3] < p[:, 3:]) & (p[:, :3] < r[:, 3:])).all(axis=1)
    pairs = np.sort(who[hit] * len(parts) + candidate[hit])
    if len(part) > len(np.unique(part)):  # some part lies in several cells and may have been met more than once
        pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    rows = pairs // len(parts)
    indptr = np.searchsorted(rows, np.arange(n + 1), side="left")
    return indptr.astype(np.int64), pairs % len(parts)


def upstream_digests(
    reads: npt.NDArray[np.int64] | None,
    n: int,
    codes: npt.NDArray[np.uint64],
    boxes: npt.NDArray[np.int64],
    digests: Digests,
) -> list[bytes]:
    """Per unit, one digest of (unit code, content digest) of exactly the parts that its read box touches."""
    packed = _with_codes(codes, digests)
    if reads is None:
        return [hashlib.sha256(packed.tobytes()).digest()] * n
    indptr, indices = touching(reads, boxes)
    record = np.dtype((np.void, packed.shape[1]))  # one copy per row instead of one per byte
    data = memoryview(np.take(packed.view(record).reshape(-1), indices).tobytes())
    edges = (indptr * packed.shape[1]).tolist()
    return [hashlib.sha256(data[edges[i] : edges[i + 1]]).digest() for i in range(n)]


def unit_keys(
    plan: Plan,
    *,
    stage: str,
    voxel_nm: NM3,
    code_digest: str,
    model_digest: str | None,
    params_digests: Sequence[str],
    upstream: Sequence[tuple[str, list[bytes]]],
) -> list[str]:
    """Hex keys of all units of a plan.

    `params_digests` has one entry per unit; `upstream` one (input name, per-unit digest) per read of the plan, in
    order.
    """
    head = b"unit\0" + canonical_json(
        {
            "format": FORMAT,
            "stage": stage,
            "kind": plan.kind,
            "voxel_nm": list(voxel_nm),
            "code": code_digest,
            "model": model_digest,
            "inputs": [name for name, _ in upstream],
        }
    )
    base = hashlib.sha256(head)
    codes = np.ascontiguousarray(plan.codes.astype("<u8")).view(np.uint8).reshape(-1, 8)
    cores = np.ascontiguousarray(plan.cores.astype("<i8")).view(np.uint8).reshape(-1, 48)
    pieces = [codes, cores]
    for r in plan.reads:
        if r.boxes is not None:
            pieces.append(np.ascontiguousarray(r.boxes.astype("<i8")).view(np.uint8).reshape(-1, 48))
    fixed = memoryview(np.concatenate(pieces, axis=1).tobytes())
    width = sum(p.shape[1] for p in pieces)
    keys = []
    for i in range(len(plan)):
        h = base.copy()
        h.update(fixed[i * width : (i + 1) * width])
        h.update(bytes.fromhex(params_digests[i]))
        for _, per_unit in upstream:
            h.update(per_unit[i])
        keys.append(h.hexdigest())
    return keys


def seed_of(stage: str, code: int) -> int:
    """The seed of one unit: from stage and unit only, so that editing code or parameters does not reshuffle it."""
    return int.from_bytes(hashlib.sha256(f"seed\0{stage}\0{code}".encode()).digest()[:8], "little")


def files_digest(files: Mapping[str, bytes]) -> str:
    """Digest of named byte strings, by name and content."""
    return digest("files", [[name, hashlib.sha256(files[name]).hexdigest()] for name in sorted(files)])
