"""Lists of ids as they are read: every digit is kept, and what is no id is reported under its row."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectome_db.errors import QueryError
from connectome_db.versions.identity.lists import read_ids

BAD = [
    "1.15e18",
    "123.0",
    "12345678901234567890123",
    "-5",
    "",
    "0",
    "abc",
    "1,5",
    "0x1f",
    "١٢",
    "1_000",
    "+7",
    "18446744073709551616",
]


def ids_in(text: str, column: str | None = None) -> list[int | None]:
    return [r.id for r in read_ids(text.encode(), "ids.csv", column).rows]


@settings(deadline=None)
@given(st.lists(st.integers(1, 2**64 - 1)))
def test_every_digit_of_every_id_is_kept(values: list[int]) -> None:
    assert ids_in("".join(f"{v}\n" for v in [1, *values])) == [1, *values]
    table = pa.table({"object": pa.array(values, pa.uint64()), "text": [str(v) for v in values]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    for column in ("object", "text"):
        assert [r.id for r in read_ids(sink.getvalue(), "ids.parquet", column).rows] == values


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_what_is_not_an_id_is_reported_under_its_row(bad: str, place: int) -> None:
    rows = ["11", "22", "33"]
    rows[place] = bad
    quoted = "\n".join(f'"{r}"' for r in rows)
    found = read_ids(("object\n" + quoted).encode(), "ids.csv")
    assert [r.id for r in found.rows] == [None if i == place else int(r) for i, r in enumerate(rows)]
    (problem,) = found.problems
    assert (problem.row, problem.line, problem.text) == (place + 1, place + 2, bad)
    assert problem.problem


@pytest.mark.parametrize("bad", [b for b in BAD if b not in ("abc", "١٢", "")])
def test_a_damaged_first_row_is_no_header(bad: str) -> None:
    found = read_ids(f'"{bad}"\n22\n'.encode(), "ids.txt")
    assert [(r.row, r.id) for r in found.rows] == [(1, None), (2, 22)]


@pytest.mark.parametrize(
    ("text", "column", "wanted"),
    [
        ("7\n8\n", None, [7, 8]),
        ("7\n\n8", None, [7, None, 8]),
        ("\n7\n", None, [None, 7]),
        ("7\r\n8\r\n", None, [7, 8]),
        ("\ufeffid\n7\n", None, [7]),
        ("name,neuron_id\na,7\nb,8\n", None, [7, 8]),
        ("name\tNeuron ID\na\t7\n", None, [7]),
        ("a;object\n1;7\n", None, [7]),
        ("pre,post\n1,7\n2,8\n", "post", [7, 8]),
        ("1,7\n2,8\n", "2", [7, 8]),
        ("pre,post\n1\n2,8\n", "post", [None, 8]),
        ('id,note\n7,"two\nlines"\nx,\n', None, [7, None]),
        ("id\n", None, []),
    ],
)
def test_lists_in_many_shapes(text: str, column: str | None, wanted: list[int | None]) -> None:
    assert ids_in(text, column) == wanted


def test_lines_are_those_of_the_file() -> None:
    rows = read_ids(b'id,note\n7,"two\nlines"\nx,\n', "ids.csv").rows
    assert [(r.row, r.line) for r in rows] == [(1, 2), (2, 4)]


@pytest.mark.parametrize(
    ("data", "column", "message"),
    [
        (b"pre,post\n1,2\n", None, "which column holds the ids.*pre, post"),
        (b"object,neuron\n1,2\n", None, "which column"),
        (b"pre,post\n1,2\n", "pots", "no column 'pots'; did you mean 'post'"),
        (b"1,2\n", "3", "no column '3'"),
        (b"", None, "no rows"),
        (b"\xff\x00\x81", None, "neither Parquet nor text"),
        (b'id\n7\n"8\n9\n', None, "line 3"),
        (b"PAR1 cut short", None, "not readable as Parquet"),
    ],
)
def test_lists_that_cannot_be_read(data: bytes, column: str | None, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        read_ids(data, "ids", column)


def test_floats_of_parquet_are_refused_and_nulls_are_rows() -> None:
    def file(array: pa.Array) -> bytes:
        sink = io.BytesIO()
        pq.write_table(pa.table({"id": array}), sink)
        return sink.getvalue()

    with pytest.raises(QueryError, match=r"column 'id' holds double.*digits of large ids are lost"):
        read_ids(file(pa.array([1.0, 2.0])), "ids.parquet")
    found = read_ids(file(pa.array([5, None, -3], pa.int64())), "ids.parquet")
    assert [(r.id, bool(r.problem)) for r in found.rows] == [(5, False), (None, True), (None, True)]
    words = pa.array(["5", "6"]).dictionary_encode()
    assert [r.id for r in read_ids(file(words), "ids.parquet").rows] == [5, 6]
