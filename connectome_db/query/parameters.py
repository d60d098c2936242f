"""Values of named queries: their types, what they are parsed from, and how they are bound.

A value comes as text, as typed by a user, or as a value of its type. It is bound to a `$name` of the query, never
pasted into its text, so what it holds is never read as SQL.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

from connectome_db.errors import QueryError, nearest
from connectome_db.spec import NM3

BOX_ENDS = ("z0", "z1", "y0", "y1", "x0", "x1")
_NUMBER = r"-?\d+(?:\.\d+)?"
_BOX = re.compile(
    rf"\s*({_NUMBER}):({_NUMBER}),\s*({_NUMBER}):({_NUMBER}),\s*({_NUMBER}):({_NUMBER})\s*(nm|vx)\s*", re.ASCII
)
_WHOLE = re.compile(r"\s*[+-]?\d{1,20}\s*", re.ASCII)
_ONE_OF = re.compile(r"one of ((?:\w+ ?)+)")
_LONGEST = 100_000


@dataclass(frozen=True)
class Parameter:
    """A parameter: its type by name, its unit of measure, and its default as text (None: it must be given)."""

    name: str
    type: str
    doc: str
    default: str | None
    unit: str = ""

    @property
    def bound(self) -> tuple[tuple[str, ...], ...]:
        """The names under which the SQL may ask for it, all of one group: `$name`; a box as six numbers in nm or vx."""
        if self.type != "box":
            return ((self.name,),)
        return tuple(tuple(f"{self.name}_{end}_{unit}" for end in BOX_ENDS) for unit in ("nm", "vx"))

    @property
    def form(self) -> str:
        """How a value is written."""
        choices = _choices(self.type)
        return ", ".join(choices) if choices else _FORMS[self.type]

    def values(self, value: Any, used: frozenset[str], voxel_nm: Callable[[], NM3]) -> dict[str, Any]:
        """What is bound for `value`, by those names of `bound` that are `used`.

        Raises QueryError naming what was wanted. `voxel_nm` is asked only when a box is given in another unit than the
        SQL wants.
        """
        choices = _choices(self.type)
        parsed: Any
        try:
            parsed = _one_of(value, choices) if choices else _TYPES[self.type](value)
        except (ValueError, TypeError, OverflowError):
            shown = repr(value) if len(repr(value)) <= 100 else f"{repr(value)[:100]}..."
            near = nearest(value, choices) if isinstance(value, str) and choices else ""
            unit = f" in {self.unit}" if self.unit else ""
            raise QueryError(
                f"parameter {self.name}: wanted {self.type}{unit} ({self.form}), got {shown}{near}"
            ) from None
        if self.type != "box":
            return {self.name: parsed}
        return _box_values(self.bound, parsed, used, voxel_nm)


def _box_values(
    names: tuple[tuple[str, ...], ...], box: tuple[list[float], str], used: frozenset[str], voxel_nm: Callable[[], NM3]
) -> dict[str, float]:
    """A box in nm from the corner of voxel (0, 0, 0), or in vx as tables count them: 0 is a centre."""
    ends, unit = box
    nm, vx = names
    bound = {}
    if used & {*nm}:
        size = (1.0, 1.0, 1.0) if unit == "nm" else voxel_nm()
        bound = {name: v * size[i // 2] for i, (name, v) in enumerate(zip(nm, ends, strict=True))}
    if used & {*vx}:
        size = (1.0, 1.0, 1.0) if unit == "vx" else voxel_nm()
        bound |= {name: v / size[i // 2] - 0.5 for i, (name, v) in enumerate(zip(vx, ends, strict=True))}
    return bound


def known_type(name: str) -> str | None:
    """Why `name` is no type of a parameter; None when it is one."""
    if name in _TYPES or _choices(name):
        return None
    return f"unknown type {name!r}{nearest(name, _TYPES)}"


def _choices(name: str) -> tuple[str, ...]:
    """The words of the type "one of WORDS"; none for other types."""
    found = _ONE_OF.fullmatch(name)
    return tuple(found[1].split()) if found else ()


def _one_of(value: Any, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise ValueError
    return str(value)


def _whole(value: Any, least: int, most: int) -> int:
    """A whole number from text or an integer. Not from a float: an id that went through one may have lost digits."""
    written = isinstance(value, str) and _WHOLE.fullmatch(value)
    if not written and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError
    number = int(value)
    if not least <= number <= most:
        raise ValueError
    return number


def _uint64(value: Any) -> int:
    return _whole(value, 0, (1 << 64) - 1)


def _int(value: Any) -> int:
    return _whole(value, -(1 << 63), (1 << 63) - 1)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, str | Real):
        raise TypeError
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    if len(value) > _LONGEST or "\0" in value:
        raise ValueError
    value.encode()  # half a pair of UTF-16 is a ValueError
    return value


def _ids(value: Any) -> list[int]:
    words = value.split(",") if isinstance(value, str) else list(value)
    return [_uint64(w) for w in words if not (isinstance(w, str) and not w.strip())]


def _texts(value: Any) -> list[str]:
    words = [w.strip() for w in value.split(",")] if isinstance(value, str) else list(value)
    return [_text(w) for w in words if w != ""]


def _box(value: Any) -> tuple[list[float], str]:
    found = _BOX.fullmatch(_text(value))
    if found is None:
        raise ValueError
    ends = [float(v) for v in found.groups()[:6]]
    if any(hi <= lo for lo, hi in zip(ends[::2], ends[1::2], strict=True)):
        raise ValueError
    return ends, found[7]


_TYPES: Mapping[str, Callable[[Any], Any]] = {
    "uint64": _uint64, "int": _int, "float": _float, "text": _text, "bool": _bool, "list of uint64": _ids,
    "list of text": _texts, "box": _box,
}  # fmt: skip
_FORMS = {
    "uint64": "an id, a whole number of 0 or more",
    "int": "a whole number",
    "float": "a number",
    "text": "text",
    "bool": "true or false",
    "list of uint64": "ids with commas between",
    "list of text": "texts with commas between",
    "box": '"z0:z1,y0:y1,x0:x1 nm", or vx for voxels; each end above its start',
}
