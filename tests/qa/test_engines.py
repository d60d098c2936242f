"""Two engines, one meaning: Great Expectations must say of damaged tables what ours says, row by row."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db.qa.checks import check_project
from connectome_db.qa.settings import QaParams
from tests import tiny_project


def _damage(table: pa.Table, rng: np.random.Generator) -> pa.Table:
    """A few cells of every column become null, NaN, negative, huge or a copy of the cell above; two rows swap."""
    columns = []
    for field in table.schema:
        values = table[field.name].to_pylist()
        for i in np.flatnonzero(rng.random(len(values)) < 0.3).tolist():
            kind = int(rng.integers(0, 4))
            if pa.types.is_floating(field.type):
                values[i] = (None, float("nan"), -3.5, 1e9)[kind]
            elif pa.types.is_integer(field.type):
                values[i] = (None, values[i - 1], 0, 99_999 if field.type == pa.int32() else 2**62 + 1)[kind]
            elif pa.types.is_string(field.type):
                values[i] = (None, values[i - 1], "", "other")[kind]
            else:
                values[i] = (None, True, False, None)[kind]
        columns.append(pa.array(values, field.type))
    out = pa.table(columns, names=table.column_names)
    return out.take(pa.array(rng.permutation(out.num_rows)))


@pytest.mark.parametrize("seed", [1, 2])
def test_both_engines_agree_on_damaged_tables(tmp_path: Path, seed: int) -> None:
    project = tiny_project.write(tmp_path)
    rng = np.random.default_rng(seed)
    for path in sorted(project.glob("data/*/*.parquet")):
        if path.stem not in {"units", "reads", "parts"}:
            pq.write_table(_damage(pq.read_table(path), rng), path)
    ours = check_project(project, QaParams())
    theirs = check_project(project, QaParams(), engine="gx")
    assert [r for r, s in zip(ours, theirs, strict=True) if r != s] == []
    assert len({r.expectation for r in ours if not r.success}) >= 5
