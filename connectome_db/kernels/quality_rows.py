"""Values per cell -> rows of a table of quality."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.schema.quality import METRICS

NM3 = tuple[float, float, float]
I64 = npt.NDArray[np.int64]
F64 = npt.NDArray[np.float64]
Values = tuple[str, I64, F64, F64]
"""(metric, boxes (n, 6) in voxels, values (n,), weights (n,))."""


def quality_rows(values: Sequence[Values], voxel_nm: NM3, schema: pa.Schema) -> pa.Table:
    """Rows of `schema` for all `values`, boxes in nm, rounded to six digits; none where nothing was measured.

    Nothing was measured where the weight is not above 0 or the value is not finite.
    """
    tables = [schema.empty_table()]
    for name, boxes, value, weight in values:
        seen = (weight > 0) & np.isfinite(value)
        n = int(seen.sum())
        box_nm = np.round(boxes[seen] * np.asarray([*voxel_nm, *voxel_nm]), 6)
        metric = METRICS[name]
        columns: dict[str, object] = {
            "layer": pa.repeat(metric.layer, n),
            "metric": pa.repeat(name, n),
            "value": significant(value[seen]),
            "weight": significant(weight[seen]),
            "measure": pa.repeat(metric.measure, n),
        }
        columns |= {f"{axis}{end}_nm": box_nm[:, 3 * end + k] for end in range(2) for k, axis in enumerate("zyx")}
        tables.append(pa.table([columns[field.name] for field in schema], schema=schema))
    return pa.concat_tables(tables).combine_chunks()


def significant(values: F64, digits: int = 6) -> F64:
    """`values` rounded to so many significant decimal digits, below 1e-17 to 0: what is left of sums is not data."""
    size = np.abs(values)
    exponent = digits - 1 - np.floor(np.log10(np.where(size > 0, size, 1.0)))
    # Powers of ten are exact up to 10**22 and their inverses are not.
    up, down = 10.0 ** np.clip(exponent, 0, 22), 10.0 ** np.clip(-exponent, 0, 22)
    return np.asarray(np.rint(values * up / down) / up * down + 0.0, dtype=np.float64)
