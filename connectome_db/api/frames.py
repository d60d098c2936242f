"""Arrow tables as pandas, without losing a digit: ids stay uint64, also in a column that has gaps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import QueryError, nearest

As = Literal["pandas", "arrow"]
FORMS = ("pandas", "arrow")

_WITH_GAPS: dict[pa.DataType, Any] = {
    pa.uint64(): pd.UInt64Dtype(), pa.int64(): pd.Int64Dtype(), pa.uint32(): pd.UInt32Dtype(),
    pa.int32(): pd.Int32Dtype(), pa.int16(): pd.Int16Dtype(), pa.int8(): pd.Int8Dtype(), pa.bool_(): pd.BooleanDtype(),
}  # fmt: skip
"""pandas puts whole numbers with a gap into float64, which rounds above 2**53, unless it is told one of these."""


def shown(rows: pa.Table, as_: As = "pandas") -> Any:
    """`rows` as a pandas DataFrame, or as they are for "arrow". Raises QueryError for another form."""
    if as_ not in FORMS:
        raise QueryError(f"as_={as_!r}{nearest(str(as_), FORMS)}")
    rows = _whole(rows)
    return rows if as_ == "arrow" else frame(rows)


def frame(rows: pa.Table) -> pd.DataFrame:
    """A DataFrame: uint64 stays uint64; whole numbers and booleans with gaps become pandas' types that allow them."""
    columns = {}
    for name in rows.column_names:
        column = rows[name]
        if column.null_count and column.type in _WITH_GAPS:
            gaps = column.is_null().to_numpy()
            filled = pc.fill_null(column, pa.scalar(0, column.type) if column.type != pa.bool_() else False).to_numpy()
            columns[name] = _masked(filled, gaps)
        else:
            columns[name] = column.to_pandas()
    return pd.DataFrame(columns, columns=rows.column_names)


def _masked(values: np.ndarray[Any, Any], gaps: np.ndarray[Any, Any]) -> Any:
    kind = pd.arrays.BooleanArray if values.dtype == np.bool_ else pd.arrays.IntegerArray
    return kind(values.copy(), gaps.copy())


def _whole(rows: pa.Table) -> pa.Table:
    """Sums of whole numbers come as decimals of 38 digits: as int64 where they fit."""
    for k, field in enumerate(rows.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            try:
                rows = rows.set_column(k, field.name, rows[k].cast(pa.int64()))
            except pa.ArrowInvalid:
                continue  # beyond 2**63: the decimal is exact
    return rows


def bound(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values for SQL: NumPy scalars, arrays and pandas columns as the Python values they hold, ids exact."""
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
