"""Lists of synapses or edges made elsewhere: CSV, TSV, Parquet or Feather, one row per synapse or per connection.

Nothing is rounded, guessed or dropped: names are read as text, and a row that cannot be used is an error that names it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from pyarrow import feather

from connectome_db.errors import SourceError, nearest
from connectome_db.lists.specs import SynapseList
from connectome_db.schema.imported import LISTED_SYNAPSE

GUESSES = {
    "pre": ("pre", "source", "from", "pre_id", "presynaptic", "pre_pt_root_id", "bodyid_pre", "axon"),
    "post": ("post", "target", "to", "post_id", "postsynaptic", "post_pt_root_id", "bodyid_post", "dendrite"),
    "weight": ("weight", "synapses", "count", "n_syn", "syn_count"),
    "synapse": ("synapse", "syn_id", "synapse_id", "id"),
}
"""Column names, in lower case, by which lists of the field call these things."""


def read_columns(path: Path) -> pa.Table:
    """The file, every column as text. Raises SourceError when it is missing or not such a file."""
    if not path.is_file():
        raise SourceError(f"{path}: no such file; wanted a list of synapses (CSV, TSV, Parquet or Feather)")
    kind = path.suffix.lower()
    try:
        if kind == ".parquet":
            table = pq.read_table(path)
        elif kind in {".feather", ".arrow"}:
            table = feather.read_table(path)
        elif kind in {".csv", ".tsv", ".txt"}:
            table = _read_text(path, "\t" if kind == ".tsv" else ",")
        else:
            raise SourceError(f"{path}: wanted .csv, .tsv, .txt, .parquet, .feather or .arrow, got {kind or 'none'}")
    except (pa.ArrowInvalid, OSError) as e:
        raise SourceError(f"{path}: cannot be read as {kind}: {e}") from e
    return pa.table({f.name: _as_text(table[f.name]) for f in table.schema})


def _read_text(path: Path, delimiter: str) -> pa.Table:
    with path.open(encoding="utf-8-sig", errors="replace") as f:
        names = f.readline().rstrip("\r\n").split(delimiter)
    types = {n.strip().strip('"'): pa.string() for n in names}
    options = pacsv.ConvertOptions(column_types=types, strings_can_be_null=True, quoted_strings_can_be_null=False)
    return pacsv.read_csv(path, parse_options=pacsv.ParseOptions(delimiter=delimiter), convert_options=options)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.utf8_trim_whitespace(column.cast(pa.string()))
    return column.cast(pa.string())


def guess(columns: Sequence[str]) -> dict[str, str]:
    """Which column says what, by the names that the field uses; what is not recognised is left out."""
    lower = {c.strip().lower(): c for c in columns}
    return {role: lower[n] for role, names in GUESSES.items() for n in names[::-1] if n in lower}


def read_list(spec: SynapseList, root: Path) -> pa.Table:
    """Rows of a list: columns of `listed_synapse`, in file order. Raises SourceError naming the rows it cannot use."""
    path = (root / spec.file).resolve()
    table = read_columns(path)
    named = [spec.pre, spec.post, *([spec.weight] if spec.weight else []), *([spec.synapse] if spec.synapse else [])]
    for column in [*named, *spec.where]:
        if column not in table.column_names:
            raise SourceError(f"{path}: no column {column!r}{nearest(column, table.column_names)}")
    row = pa.array(range(1, table.num_rows + 1), type=pa.uint64())
    keep = pa.chunked_array([pa.array([True] * table.num_rows)])
    for column, value in spec.where.items():
        keep = pc.and_(keep, pc.fill_null(pc.equal(table[column], value), False))
    table = table.append_column("row of the file", row).filter(keep)
    if table.num_rows == 0:
        raise SourceError(f"{path}: no row has {', '.join(f'{c}={v}' for c, v in spec.where.items()) or 'any value'}")
    row = table["row of the file"].combine_chunks()
    for column in (spec.pre, spec.post):
        empty = pc.fill_null(pc.equal(table[column], ""), True)
        _refuse(path, row, empty, column, table[column], "is empty; wanted the name or number of a neuron")
        looks_float = pc.match_substring_regex(table[column], r"^\d+\.\d*$|^\d+(\.\d+)?[eE]\+?\d+$")
        _refuse(
            path, row, looks_float, column, table[column],
            "is a neuron written as a decimal number: digits may be lost; export it as an integer or as text",
        )  # fmt: skip
    pre, post = (table[c].combine_chunks() for c in (spec.pre, spec.post))
    known = neuron_ids(pa.concat_arrays([pre, post]).unique().to_pylist())
    columns = {
        "synapse": row,
        "pre": [known[n] for n in pre.to_pylist()],
        "post": [known[n] for n in post.to_pylist()],
        "pre_name": pc.if_else(pc.utf8_is_digit(pre), None, pre),
        "post_name": pc.if_else(pc.utf8_is_digit(post), None, post),
        "synapses": _weights(path, row, table, spec.weight),
        "source_id": table[spec.synapse] if spec.synapse else pa.nulls(len(row), pa.string()),
    }
    schema = LISTED_SYNAPSE.arrow()
    return pa.table([columns.get(f.name, pa.nulls(len(row), f.type)) for f in schema], schema=schema)


def neuron_ids(names: Sequence[str]) -> dict[str, int]:
    """The id of each name. Raises SourceError for a number that is no id, and when two names would share one."""
    found: dict[str, int] = {}
    owner: dict[int, str] = {}
    for name in names:
        if name.isascii() and name.isdigit():
            number = int(name)
            if not 0 < number < 1 << 63 or str(number) != name:
                raise SourceError(
                    f"neuron {name!r}: wanted a whole number from 1 to 2**63 - 1 without leading zeros, or a name; "
                    "it would be another neuron if it were rounded"
                )
        else:
            digest = hashlib.sha256(b"neuron\0" + name.encode()).digest()
            number = int.from_bytes(digest[:8], "big") >> 2 or 1
        if owner.setdefault(number, name) != name:
            raise SourceError(f"neurons {owner[number]!r} and {name!r} would both have the id {number}; rename one")
        found[name] = number
    return found


def _weights(path: Path, row: pa.Array, table: pa.Table, column: str | None) -> pa.Array:
    if column is None:
        return pa.array([1] * len(row), type=pa.int64())
    whole = pc.fill_null(pc.match_substring_regex(table[column], r"^\d{1,15}(\.0*)?$"), False)
    _refuse(path, row, pc.invert(whole), column, table[column], "is no whole number of synapses")
    return pc.replace_substring_regex(table[column], r"\.0*$", "").cast(pa.int64())


def _refuse(path: Path, row: pa.Array, bad: pa.ChunkedArray, column: str, values: pa.ChunkedArray, says: str) -> None:
    count = pc.sum(bad).as_py() or 0
    if count:
        some = zip(row.filter(bad).to_pylist()[:5], values.filter(bad).to_pylist()[:5], strict=True)
        listing = ", ".join(f"row {r}: {v!r}" for r, v in some)
        raise SourceError(f"{path}: column {column!r} {says}; {count} rows: {listing}{', ...' if count > 5 else ''}")


def source_facts(spec: SynapseList, root: Path) -> dict[str, object]:
    """What a record says of the list: its path, its digest, its columns."""
    path = (root / spec.file).resolve()
    return {**spec.model_dump(mode="json"), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
