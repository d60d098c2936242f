"""Results as rows: one per expectation, written to `qa/expectations.parquet` with what they were found on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.errors import QueryError
from connectome_db.qa.result import Result
from connectome_db.qa.settings import SEVERITIES, Strict

FOLDER = "qa"
FILE = f"{FOLDER}/expectations.parquet"
RUN = f"{FOLDER}/run.json"
BOX = ("z0_nm", "y0_nm", "x0_nm", "z1_nm", "y1_nm", "x1_nm")

_TYPES = {"success": pa.bool_(), "rows": pa.int64(), "unexpected": pa.int64(), "unexpected_share": pa.float64(),
          "observed": pa.float64(), "unit": pa.uint64()} | dict.fromkeys(BOX, pa.float64())  # fmt: skip
_NULLABLE = {"observed", "unit", *BOX}
SCHEMA = pa.schema(
    [pa.field(f.name, _TYPES.get(f.name, pa.string()), nullable=f.name in _NULLABLE) for f in fields(Result)]
)
"""Columns of `qa/expectations.parquet`."""


def table_digests(paths: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each table's file."""
    found = {}
    for name, path in sorted(paths.items()):
        with path.open("rb") as f:
            found[name] = hashlib.file_digest(f, "sha256").hexdigest()
    return found


def version() -> str:
    """Version of this package."""
    return importlib.metadata.version("connectome-db")


def to_table(results: Sequence[Result], digests: Mapping[str, str]) -> pa.Table:
    """Results as an Arrow table whose metadata names the tables they are about, by digest, and the package."""
    columns = list(zip(*(astuple(r) for r in results), strict=True)) or [()] * len(SCHEMA)
    arrays = [pa.array(c, f.type) for c, f in zip(columns, SCHEMA, strict=True)]
    told = {"connectome_db": version(), "tables": json.dumps(dict(digests), sort_keys=True)}
    return pa.Table.from_arrays(arrays, schema=SCHEMA.with_metadata(told))


def write(root: Path, results: Sequence[Result], digests: Mapping[str, str], commit: str | None, dirty: bool) -> None:
    """Write `qa/expectations.parquet`, which is a function of data and settings alone, and `qa/run.json`.

    The commit is in the latter, so that equal data at two commits has equal results. There is no clock in either.
    """
    (root / FOLDER).mkdir(exist_ok=True)
    path, tmp = root / FILE, root / f"{FILE}.tmp"
    pq.write_table(to_table(results, digests), tmp, compression="zstd")
    tmp.replace(path)
    run = {"commit": commit, "dirty": dirty, "connectome_db": version(), "tables": dict(digests)}
    replace_text(root / RUN, json.dumps(run, sort_keys=True, indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Write a file beside its place and move it there: what lay there may share its bytes with DVC's cache."""
    tmp = path.with_name(f"{path.name}.tmp")
    tmp.write_text(text, encoding="utf-8")
    tmp.replace(path)


def read(root: Path) -> list[Result]:
    """The results that lie in a project. Raises QueryError when there are none, or they cannot be read."""
    path = root / FILE
    if not path.is_file():
        raise QueryError(f"{path} is not there: `connectome check --write` or `dvc repro qa` makes it")
    try:
        table = pq.ParquetFile(path).read()
        return [Result(**row) for row in table.to_pylist()]
    except (pa.ArrowInvalid, OSError, TypeError) as e:
        raise QueryError(f"{path} cannot be read ({e}); `connectome check --write` makes it again") from e


def unmet(results: Sequence[Result], strict: Strict) -> list[Result]:
    """Results that a gate of this strictness does not let pass, the gravest first."""
    if strict == "off":
        return []
    grave = SEVERITIES[: SEVERITIES.index(strict) + 1]
    return [r for s in grave for r in results if not r.success and r.severity == s]
