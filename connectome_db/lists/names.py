"""Names and numbers of neurons as lists write them -> ids, exactly: nothing is rounded, guessed or dropped.

A neuron called by a whole number from 1 to 2**63 - 1 keeps it as its id. Any other name gets the first 62 bits of its
SHA-256, so that a neuron has one id in every list that calls it by the same name. Only distinct names are looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from connectome_db.errors import SourceError

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]
EXACT = float(1 << 53)
"""From here on a floating-point number may stand for several whole ones."""
LARGEST = (1 << 63) - 1
NOBODY = frozenset({"", "nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "none"})
"""Words, in lower case, by which files say that there is no value."""

EMPTY = "is empty; wanted the name or number of a neuron"
DECIMAL = "is a neuron written as a decimal number: digits may be lost; export it as an integer or as text"
BEYOND = "is a floating-point number so large that its digits may be lost; export it as an integer or as text"
EXPONENT = "is a neuron written with an exponent: its digits are lost; export it as an integer or as text"
NEGATIVE = "is negative; wanted a whole number from 1 to 2**63 - 1, or a name"
ZERO = "is 0, which is background and no neuron"
SIGN = "has a sign: write the number without it"
ZEROS = "has leading zeros: write the number without them"
LARGE = "is larger than 2**63 - 1; it would be another neuron if it were cut or rounded"
CONTROL = "holds control characters"
NAME_AMONG_NUMBERS = "is a name in a column of numbers; if that is meant, give --mixed-names"
NUMBER_AMONG_NAMES = "is a number in a column of names; if that is meant, give --mixed-names"


def digest_id(name: str) -> int:
    """The id of a neuron that is called by a name: 1 to 2**62 - 1."""
    digest = hashlib.sha256(b"neuron\0" + name.encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2 or 1


def neuron_ids(names: Sequence[str]) -> dict[str, int]:
    """The id of each name. Raises SourceError for a number that is no id, and when two names would share one."""
    given = list(dict.fromkeys(names))
    found = Names(mixed=True).resolve("neuron", pa.chunked_array([pa.array(given, pa.string())]))
    for reason, mask in found.faults:
        for name in (n for n, bad in zip(given, mask.tolist(), strict=True) if bad):
            raise SourceError(f"neuron {name!r} {reason}; wanted a whole number from 1 to 2**63 - 1, or a name")
    return dict(zip(given, found.ids.tolist(), strict=True))


@dataclass
class Resolved:
    """Ids of a column's rows (0 where there is a fault), names where they are no numbers, and which rows are faulty."""

    ids: U64
    names: pa.Array
    faults: list[tuple[str, Mask]] = field(default_factory=list)
    notes: dict[str, int] = field(default_factory=dict)


class Names:
    """The neurons of one list: remembers the ids of names, and of which sort (numbers, names) each column is."""

    def __init__(self, *, mixed: bool) -> None:
        self.mixed = mixed
        self._ids: dict[str, int] = {}
        self._owner: dict[int, str] = {}
        self._sort: dict[str, bool] = {}

    def resolve(self, column: str, values: pa.ChunkedArray) -> Resolved:
        """Ids of the rows of `column`. Raises SourceError for a type that names no neuron, and two names of one id."""
        kind = values.type
        if pa.types.is_dictionary(kind):
            values = values.cast(kind.value_type)
            kind = values.type
        if pa.types.is_integer(kind):
            return self._checked(column, _whole(values))
        if pa.types.is_floating(kind):
            return self._checked(column, _float(values))
        if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
            return self._checked(column, self._text(values.cast(pa.string())))
        raise SourceError(f"column {column!r}: neurons are numbers or text, got a column of {kind}")

    def _checked(self, column: str, found: Resolved) -> Resolved:
        """Refuses the rarer of numbers and names, and a number that is also the digest of a name."""
        good = found.ids != 0
        named = np.asarray(pc.is_valid(found.names))
        if self._owner and (~named & good).any():
            numbers = np.unique(found.ids[~named & good])
            for i in numbers[np.isin(numbers, np.fromiter(self._owner, np.uint64))].tolist():
                self._own(i, str(i))
        if self.mixed or not good.any():
            return found
        names_here = self._sort.setdefault(column, bool((named & good).sum() * 2 > good.sum()))
        odd = good & (named != names_here)
        if odd.any():
            found.faults.append((NUMBER_AMONG_NAMES if names_here else NAME_AMONG_NUMBERS, odd))
            found.ids[odd] = 0
        return found

    def _own(self, number: int, name: str) -> None:
        if self._owner.setdefault(number, name) != name:
            raise SourceError(
                f"neurons {self._owner[number]!r} and {name!r} would both have the id {number}; rename one"
            )

    def _text(self, values: pa.ChunkedArray) -> Resolved:
        encoded = pc.fill_null(values, "").combine_chunks().dictionary_encode()
        if isinstance(encoded, pa.ChunkedArray):
            encoded = encoded.combine_chunks()
        index = encoded.indices.to_numpy()
        written = encoded.dictionary
        distinct = pc.utf8_trim_whitespace(written)
        ids, reasons, whole_float = _numbers(distinct)
        is_name = reasons == ""
        texts = distinct.to_pylist() if is_name.any() else []
        for k in np.flatnonzero(is_name).tolist():
            ids[k] = self._name(texts[k])
        names = pc.if_else(pa.array(is_name), distinct, pa.nulls(len(distinct), pa.string()))
        found = Resolved(ids[index], names.take(encoded.indices))
        for reason in dict.fromkeys(r for r in reasons.tolist() if r):
            found.faults.append((reason, (reasons == reason)[index]))
        for what, mask in {
            "blanks around names were removed": np.asarray(pc.not_equal(written, distinct)),
            "whole numbers were written with .0": whole_float,
        }.items():
            if count := int(mask[index].sum()) if len(mask) else 0:
                found.notes[what] = count
        return found

    def _name(self, name: str) -> int:
        if name not in self._ids:
            number = digest_id(name)
            self._own(number, name)
            self._ids[name] = number
        return self._ids[name]


def _whole(values: pa.ChunkedArray) -> Resolved:
    empty = np.asarray(pc.is_null(values))
    numbers = pc.fill_null(values, 0).to_numpy()
    negative = numbers < 0
    large = numbers > LARGEST if numbers.dtype == np.uint64 else np.zeros(len(numbers), bool)
    zero = (numbers == 0) & ~empty
    ids = np.where(negative | large, 0, numbers).astype(np.uint64)
    faults = [(EMPTY, empty), (NEGATIVE, negative), (ZERO, zero), (LARGE, large)]
    return Resolved(ids, pa.nulls(len(ids), pa.string()), [(r, m) for r, m in faults if m.any()])


def _float(values: pa.ChunkedArray) -> Resolved:
    numbers = pc.fill_null(values.cast(pa.float64()), np.nan).to_numpy()
    empty = np.isnan(numbers)
    beyond = np.abs(numbers) >= _EXACT_BITS[values.type.bit_width]
    small = np.where(empty | beyond, 0.0, numbers)
    decimal = np.floor(small) != small
    negative = ~empty & ~beyond & ~decimal & (numbers < 0)
    zero = numbers == 0
    good = ~(empty | beyond | decimal | negative | zero)
    ids = np.where(good, numbers, 0).astype(np.uint64)
    faults = [(EMPTY, empty), (BEYOND, beyond), (DECIMAL, decimal), (NEGATIVE, negative), (ZERO, zero)]
    notes = {"whole numbers were stored as floating-point numbers": int(good.sum())} if good.any() else {}
    return Resolved(ids, pa.nulls(len(ids), pa.string()), [(r, m) for r, m in faults if m.any()], notes)


def _numbers(distinct: pa.Array) -> tuple[U64, npt.NDArray[np.object_], Mask]:
    """Of distinct trimmed texts: ids of numbers, why others are none (None: one; "": a name), and which had .0."""
    n = len(distinct)
    ids, reasons = np.zeros(n, np.uint64), np.full(n, None, object)
    whole = _matches(distinct, r"^[1-9][0-9]{0,18}$")
    if whole.any():
        ids[whole] = distinct.filter(pa.array(whole)).cast(pa.uint64()).to_numpy()
    whole_float = np.zeros(n, bool)
    if not whole.all():
        rest = np.flatnonzero(~whole)
        some = distinct.take(pa.array(rest))
        kinds = [(_matches(some, pattern), reason) for pattern, reason in _ODD]
        texts = some.to_pylist()
        for k, text in zip(rest.tolist(), texts, strict=True):
            reasons[k] = "" if text.lower() not in NOBODY else EMPTY
        for mask, reason in reversed(kinds):
            for j in np.flatnonzero(mask).tolist():
                reasons[rest[j]] = reason
                if reason == DECIMAL and texts[j].rstrip("0").endswith(".") and 0 < float(texts[j]) < EXACT:
                    ids[rest[j]], reasons[rest[j]], whole_float[rest[j]] = int(float(texts[j])), None, True
    for k in np.flatnonzero(ids > LARGEST).tolist():
        ids[k], reasons[k] = 0, LARGE
    return ids, reasons, whole_float


_EXACT_BITS = {64: EXACT, 32: float(1 << 24), 16: float(1 << 11)}
_ODD = (
    (r"^[+-]?0+$", ZERO),
    (r"^-[0-9]+$", NEGATIVE),
    (r"^\+[0-9]+$", SIGN),
    (r"^0[0-9]+$", ZEROS),
    (r"^[1-9][0-9]*$", LARGE),
    (r"^[+-]?([0-9]+\.[0-9]*|\.[0-9]+)$", DECIMAL),
    (r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][+-]?[0-9]+$", EXPONENT),
    (r"[\x00-\x1f\x7f]", CONTROL),
)
"""What looks like a number and is none that can be an id; the first that fits is said."""


def _matches(texts: pa.Array, pattern: str) -> Mask:
    return np.asarray(pc.match_substring_regex(texts, pattern), dtype=bool)
