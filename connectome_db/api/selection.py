"""Which neurons are meant: ids, names, or what annotations say of them; never a number that went through a float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from connectome_db.errors import QueryError, nearest
from connectome_db.query.database import Database

U64 = np.typing.NDArray[np.uint64]

_FORMS = "wanted an id, a name, a list of them, or {kind: value} of the annotations"
_SOME_NAME = "SELECT 1 FROM annotation WHERE kind = 'name' LIMIT 1"
_SAID = """
SELECT DISTINCT neuron FROM annotation WHERE kind = $kind AND (list_contains($values, value) OR
  list_has_any([value GLOB p FOR p IN $globs::VARCHAR[]], [true]))
"""


class Neurons:
    """The neurons of an open project, and what they are called."""

    def __init__(self, db: Database) -> None:
        """Reads nothing yet."""
        self._db = db
        self._ids: U64 | None = None

    @property
    def ids(self) -> U64:
        """All ids, ascending, uint64[N]. Raises QueryError when there is no table of neurons."""
        if self._ids is None:
            rows = self._db.rows("SELECT neuron FROM neuron ORDER BY neuron")
            self._ids = np.asarray(rows["neuron"].to_numpy(), dtype=np.uint64)
        return self._ids

    def find(self, who: Any, what: str = "neurons") -> U64:
        """Ids of those that are meant, ascending, each once. `what` names the argument in messages.

        `who` is an id, a name (with * for any text), a list, array or column of them, a table with a column `neuron`,
        or a mapping of annotations: {"type": "KC*", "hemisphere": ["left", "right"]} are those that meet all.
        Raises QueryError for a neuron that is not there, naming the nearest, and for decimal numbers.
        """
        if isinstance(who, Mapping):
            return self._annotated(who)
        numbers, names = self._words(who, what)
        found = [self._known(numbers)]
        found += [self._called(name) for name in names]
        return np.unique(np.concatenate(found)) if found else np.zeros(0, np.uint64)

    def names(self, ids: U64) -> list[str | None]:
        """What each of `ids` is called: in the list, or in an annotation of kind `name` where the list has numbers."""
        known: dict[int, str] = {}
        for table, text in (
            ("neuron_name", "SELECT neuron, name FROM neuron_name SEMI JOIN asked USING (neuron)"),
            ("annotation", "SELECT neuron, min(value) AS name FROM annotation SEMI JOIN asked USING (neuron) "
                           "WHERE kind = 'name' GROUP BY neuron"),
        ):  # fmt: skip
            if table in self._naming:
                rows = self._db.rows(text, beside={"asked": pa.table({"neuron": ids})})
                for neuron, name in zip(rows["neuron"].to_pylist(), rows["name"].to_pylist(), strict=True):
                    if known.get(neuron, str(neuron)) == str(neuron):
                        known[neuron] = name
        return [known.get(n) for n in ids.tolist()]

    @cached_property
    def _naming(self) -> set[str]:
        """Tables in which names can be found; asked once, because most answers want names."""
        tests = {"neuron_name": "SELECT 1 FROM neuron_name LIMIT 1", "annotation": _SOME_NAME}
        return {t for t, text in tests.items() if self._db.has(t) and self._db.rows(text).num_rows}

    def kinds(self) -> list[str]:
        """Kinds of annotation that there are, sorted."""
        if not self._db.has("annotation"):
            return []
        return [r["kind"] for r in self._db.fetch("SELECT DISTINCT kind FROM annotation ORDER BY kind")]

    def _words(self, who: Any, what: str) -> tuple[U64, list[str]]:
        """What was given, as ids and names."""
        if isinstance(who, pa.Table):
            who = who["neuron"] if "neuron" in who.column_names else None
        elif hasattr(who, "columns"):
            who = who["neuron"] if "neuron" in who.columns else None
        if isinstance(who, str | int | np.integer) and not isinstance(who, bool):
            who = [who]
        if isinstance(who, pa.Array | pa.ChunkedArray):
            who = who.to_pylist()
        if who is None or isinstance(who, bytes | bool) or not isinstance(who, Iterable):
            raise QueryError(f"{what}: {_FORMS}, got {who!r}")
        values = np.asarray(who) if hasattr(who, "dtype") else None
        if values is not None and values.dtype.kind in "ui":
            if values.size and values.min() < 0:
                raise QueryError(f"{what}: {int(values.min())} is no id: wanted whole numbers of 0 or more")
            return values.astype(np.uint64), []
        numbers, names = [], []
        for word in who:
            if isinstance(word, str):
                names.append(word)
            elif isinstance(word, int | np.integer) and not isinstance(word, bool) and 0 <= int(word) < 1 << 64:
                numbers.append(int(word))
            else:
                raise QueryError(
                    f"{what}: {word!r} is no id: {_FORMS}. Decimal numbers lose the last digits of ids: read them as "
                    "uint64 or as text"
                )
        return np.array(numbers, np.uint64), names

    def _known(self, ids: U64) -> U64:
        """The same ids; raises QueryError naming the nearest when one is not there."""
        everyone = self.ids
        at = np.searchsorted(everyone, ids)
        there = np.zeros(len(ids), np.bool_)
        inside = at < len(everyone)
        there[inside] = everyone[at[inside]] == ids[inside]
        if not there.all():
            k = int(np.flatnonzero(~there)[0])
            close = everyone[max(int(at[k]) - 2, 0) : int(at[k]) + 2].tolist()
            near = [str(n) for n in close]
            rounded = [n for n in close if float(n) == float(ids[k])]
            if rounded:
                raise QueryError(
                    f"no neuron {int(ids[k])}, but {rounded[0]}: the number went through a float and was rounded. "
                    "Rows of a DataFrame do that (iterrows, iloc): take columns, or itertuples"
                )
            more = f" ({int((~there).sum())} such)" if (~there).sum() > 1 else ""
            raise QueryError(f"no neuron {int(ids[k])}{more}; the nearest of {len(everyone):,} ids: {', '.join(near)}")
        return ids

    def _called(self, name: str) -> U64:
        """Neurons of a name, or of the id that the text is."""
        if self._db.has("neuron_name"):
            rows = self._db.rows("SELECT neuron FROM neuron_name WHERE name = $name", {"name": name})
            if not rows.num_rows and any(c in name for c in "*?["):
                rows = self._db.rows("SELECT neuron FROM neuron_name WHERE name GLOB $name", {"name": name})
            if rows.num_rows:
                return np.asarray(rows["neuron"].to_numpy(), np.uint64)
        if self._db.has("annotation"):
            rows = self._db.rows(_SAID, {"kind": "name", "values": [name], "globs": [name]})
            if rows.num_rows:
                return np.asarray(rows["neuron"].to_numpy(), np.uint64)
        if name.isascii() and name.isdigit() and int(name) < 1 << 64:
            return self._known(np.array([int(name)], np.uint64))
        raise QueryError(f"no neuron is called {name!r}{self._hint(name)}")

    def _hint(self, name: str) -> str:
        if self._db.has("annotation"):
            rows = self._db.fetch("SELECT DISTINCT kind FROM annotation WHERE value = $v ORDER BY kind", {"v": name})
            if rows:
                return f"; it is an annotation: give {{{rows[0]['kind']!r}: {name!r}}}"
        if not self._db.has("neuron_name"):
            return ": neurons have no names in this project; give ids"
        known = [r["name"] for r in self._db.fetch("SELECT name FROM neuron_name")]
        if self._db.has("annotation"):
            known += [r["value"] for r in self._db.fetch("SELECT DISTINCT value FROM annotation WHERE kind = 'name'")]
        return nearest(name, known) if known else ": neurons have no names in this project; give ids"

    def _annotated(self, said: Mapping[str, Any]) -> U64:
        """Neurons that meet every condition; raises QueryError for an unknown kind or value, naming the nearest."""
        found: U64 | None = None
        for kind, value in said.items():
            these = self.find(value, kind) if kind in {"neuron", "name"} else self._of_kind(kind, value)
            found = these if found is None else np.intersect1d(found, these)
        if found is None:
            raise QueryError(f"no condition: {_FORMS}")
        return found

    def _of_kind(self, kind: str, value: Any) -> U64:
        kinds = self.kinds()
        if kind not in kinds:
            why = "" if kinds else ": this project has no annotations; `connectome import --annotations` brings them"
            raise QueryError(f"no annotation of kind {kind!r}{why or nearest(kind, kinds)}")
        values = [str(v) for v in (value if isinstance(value, list | tuple | set) else [value])]
        globs = [v for v in values if any(c in v for c in "*?[")]
        rows = self._db.rows(_SAID + " ORDER BY neuron", {"kind": kind, "values": values, "globs": globs})
        if not rows.num_rows:
            known = self._db.fetch("SELECT DISTINCT value FROM annotation WHERE kind = $kind", {"kind": kind})
            raise QueryError(
                f"no neuron has {kind} {', '.join(values)!r}{nearest(values[0], [r['value'] for r in known])}"
            )
        return np.asarray(rows["neuron"].to_numpy(), np.uint64)
