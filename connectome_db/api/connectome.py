"""A project in Python: `db = connectome_db.open("project")`. Answers are pandas DataFrames, or Arrow on request.

Everything is read-only and goes through the same doors as the commands: the same SQL, lineage, receipts and versions.
Neurons may be given as ids, names or annotations (see `selection`). Columns carry their units in their names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from connectome_db.api import rows as tables_of
from connectome_db.api.frames import As, bound, shown
from connectome_db.api.routes import paths
from connectome_db.api.selection import Neurons
from connectome_db.api.show import Answered, Changes, Lineage, Scene, changes, table_html
from connectome_db.errors import QueryError
from connectome_db.query import named
from connectome_db.query.adjacency import Adjacency
from connectome_db.query.database import Database, open_database

if TYPE_CHECKING:
    import networkx as nx
    from scipy.sparse import csr_array

    from connectome_db.query.graph.wiring import Wiring
    from connectome_db.revisions import Revision

U64 = np.typing.NDArray[np.uint64]
Who = Any
"""An id, a name, a list of them, a DataFrame with a column `neuron`, or {kind: value} of the annotations."""


class Connectome:
    """An open project, or a version of it. Use as a context manager, or call `close`."""

    def __init__(self, project: Path, rev: str | None, database: Database) -> None:
        """Made by `connectome_db.open`."""
        self.project = project
        self.rev = rev
        self.database = database
        self._neurons = Neurons(database)

    def __enter__(self) -> Connectome:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    @cached_property
    def revision(self) -> Revision:
        """The version that is open: a commit's, or the working tree's."""
        from connectome_db.revisions import open_revision

        return open_revision(self.project, self.rev)

    @cached_property
    def facts(self) -> dict[str, object]:
        """Dataset, version, and how much of everything there is."""
        told: dict[str, object] = {"project": str(self.project), "version": self.rev or "working tree"}
        told["kind"] = "imported" if self.database.has("listed_synapse") else "made from raw tiles"
        for name, text in (
            ("neurons", "SELECT count(*) AS n FROM neuron"),
            ("connections", "SELECT count(*) AS n FROM connection"),
            ("synapses", "SELECT coalesce(sum(synapses), 0)::BIGINT AS n FROM connection"),
        ):
            table = "neuron" if name == "neurons" else "connection"
            told[name] = self.database.fetch(text)[0]["n"] if self.database.has(table) else None
        return told

    def __repr__(self) -> str:
        f = self.facts
        counts = ", ".join(f"{f[n]:,} {n}" for n in ("neurons", "connections", "synapses") if f[n] is not None)
        return f"Connectome({self.project.name!r}, {f['version']}: {counts or 'no graph yet: run `dvc repro`'})"

    def _repr_html_(self) -> str:
        told = {k: f"{v:,}" if isinstance(v, int) else v for k, v in self.facts.items()}
        return table_html(self.project.name, told | {"tables": ", ".join(self.database.tables)})

    def tables(self, *, as_: As = "pandas") -> Any:
        """Tables that SQL can read: table, meaning."""
        found = self.database.tables.values()
        return shown(pa.table({"table": [t.name for t in found], "meaning": [t.doc for t in found]}), as_)

    def describe(self, table: str, *, as_: As = "pandas") -> Any:
        """Columns of a table: column, type, unit, meaning. Raises QueryError naming the nearest table."""
        return shown(self.database.describe(table), as_)

    @property
    def kinds(self) -> list[str]:
        """Kinds of annotation, such as type or hemisphere: conditions that neurons can be chosen by."""
        return self._neurons.kinds()

    def ids(self, who: Who) -> U64:
        """Ids of the neurons that are meant, ascending. Raises QueryError naming the nearest for an unknown one."""
        return self._neurons.find(who)

    def neurons(self, who: Who = None, *, name: Any = None, as_: As = "pandas", **annotations: Any) -> Any:
        """Neurons: neuron, name, a column per kind of annotation, partners and synapses in both directions, size.

        Without arguments all of them; `db.neurons(type="KC*", hemisphere="left")` those that annotations say.
        """
        said = {**({"name": name} if name is not None else {}), **annotations}
        chosen = None if who is None else self._neurons.find(who)
        if said:
            these = self._neurons.find(said)
            chosen = these if chosen is None else np.intersect1d(chosen, these)
        text = "SELECT * EXCLUDE (unit) FROM neuron"
        beside = {}
        if chosen is not None:
            text += " SEMI JOIN asked USING (neuron)"
            beside["asked"] = pa.table({"neuron": chosen})
        rows = tables_of.without_unknown(self.database, self.database.rows(text + " ORDER BY neuron", beside=beside))
        return shown(self._described(rows), as_)

    def _described(self, rows: pa.Table) -> pa.Table:
        """The rows with the name and the annotations of column `neuron` behind it; several values have ; between."""
        ids = rows["neuron"].to_numpy()
        place = 1
        if self.database.has("neuron_name"):
            rows = rows.add_column(place, "name", pa.array(self._neurons.names(ids), pa.string()))
            place += 1
        for kind in self._neurons.kinds():
            if kind in rows.column_names:
                continue
            rows = rows.add_column(place, kind, pa.array(self._said(kind, ids), pa.string()))
            place += 1
        return rows

    def _said(self, kind: str, ids: U64) -> list[str | None]:
        text = (
            "SELECT neuron, string_agg(value, '; ' ORDER BY value) AS value FROM annotation SEMI JOIN asked "
            "USING (neuron) WHERE kind = $kind GROUP BY neuron"
        )
        rows = self.database.rows(text, {"kind": kind}, beside={"asked": pa.table({"neuron": ids})})
        known = dict(zip(rows["neuron"].to_pylist(), rows["value"].to_pylist(), strict=True))
        return [known.get(n) for n in ids.tolist()]

    def connections(
        self,
        pre: Who = None,
        post: Who = None,
        *,
        min_count: int = 1,
        min_quality: float | None = None,
        exclude_flagged: bool = False,
        roi: str | None = None,
        show: Sequence[str] = (),
        as_: As = "pandas",
    ) -> Any:
        """Connections, strongest first: pre, post, synapses, and what is known of each (sizes, confidence ...).

        `pre` and `post` choose neurons; `min_count` counted synapses are needed. `min_quality` (0-1) and
        `exclude_flagged` count the synapses again, where the images are good enough; `roi` counts those in a region.
        `show=("name", "type")` adds pre_name, post_name, pre_type, post_type.
        """
        ends = [None if who is None else self._neurons.find(who, side) for who, side in ((pre, "pre"), (post, "post"))]
        rows = tables_of.connections(
            self.database, ends[0], ends[1], min_count=min_count, min_quality=min_quality,
            exclude_flagged=exclude_flagged, roi=roi,
        )  # fmt: skip
        return shown(self._ends_described(rows, show), as_)

    def _ends_described(self, rows: pa.Table, show: Sequence[str]) -> pa.Table:
        for what in [show] if isinstance(show, str) else show:
            if what != "name" and what not in self._neurons.kinds():
                self._neurons.find({what: "?"})  # raises: there is no such kind
            for side in ("pre", "post"):
                ids = rows[side].to_numpy()
                told = self._neurons.names(ids) if what == "name" else self._said(what, ids)
                rows = rows.append_column(f"{side}_{what}", pa.array(told, pa.string()))
        return rows

    def synapses(
        self,
        pre: Who = None,
        post: Who = None,
        *,
        box_nm: Sequence[Any] | None = None,
        min_quality: float | None = None,
        min_confidence: float | None = None,
        limit: int | None = None,
        as_: As = "pandas",
    ) -> Any:
        """Synapses (of an imported list: its rows) with their places in nm, by id.

        `box_nm` is ((z0, y0, x0), (z1, y1, x1)), half-open. Those that count for no connection are left out.
        """
        ends = [None if who is None else self._neurons.find(who, side) for who, side in ((pre, "pre"), (post, "post"))]
        found = tables_of.synapses(
            self.database, ends[0], ends[1], box_nm, min_quality=min_quality, min_confidence=min_confidence, limit=limit
        )
        return shown(found, as_)

    @cached_property
    def index(self) -> Adjacency:
        """The connections as memory-mapped arrays: partners, paths and neighbourhoods in microseconds."""
        return Adjacency.open(self.database.project)

    def partners(self, who: Who, direction: str = "both", *, min_count: int = 1, as_: As = "pandas") -> Any:
        """Partners, strongest first: neuron, direction (out: it is presynaptic), partner, synapses, partner_name."""
        if direction not in {"both", "out", "in"}:
            raise QueryError(f"direction {direction!r}: wanted 'out', 'in' or 'both'")
        parts = []
        for neuron in self._neurons.find(who).tolist():
            for way in ("out", "in") if direction == "both" else (direction,):
                found, counts = self.index.partners(neuron, way, min_synapses=min_count)
                n = len(found)
                told = {"neuron": pa.array([neuron] * n, pa.uint64()), "direction": pa.array([way] * n, pa.string())}
                parts.append(pa.table({**told, "partner": found, "synapses": np.asarray(counts, np.int64)}))
        if not parts:
            return shown(pa.table({"neuron": pa.array([], pa.uint64())}), as_)
        order = [
            ("neuron", "ascending"),
            ("synapses", "descending"),
            ("direction", "ascending"),
            ("partner", "ascending"),
        ]
        rows = pa.concat_tables(parts).sort_by(order)
        if self.database.has("neuron_name"):
            names = self._neurons.names(rows["partner"].to_numpy())
            rows = rows.append_column("partner_name", pa.array(names, pa.string()))
        return shown(rows, as_)

    def common_partners(self, who: Who, direction: str = "out", *, min_count: int = 1, as_: As = "pandas") -> Any:
        """Partners that all of these neurons have: partner, synapses (of all), weakest (of one)."""
        ids = self._neurons.find(who)
        rows = self.partners(ids, direction, min_count=min_count, as_="arrow")
        found = rows.group_by("partner").aggregate(
            [("neuron", "count_distinct"), ("synapses", "sum"), ("synapses", "min")]
        )
        found = found.filter(pa.compute.equal(found["neuron_count_distinct"], len(ids)))
        found = found.rename_columns({"synapses_sum": "synapses", "synapses_min": "weakest"})
        found = found.select(["partner", "synapses", "weakest"])
        return shown(found.sort_by([("synapses", "descending"), ("partner", "ascending")]), as_)

    def adjacency(self, pre: Who, post: Who = None, *, min_count: int = 1) -> Any:
        """Matrix of synapses as a DataFrame: a row per neuron of `pre`, a column per one of `post` (default: those)."""
        import pandas as pd

        rows = self._neurons.find(pre, "pre")
        columns = rows if post is None else self._neurons.find(post, "post")
        if len(rows) * len(columns) > 50_000_000:
            raise QueryError(
                f"{len(rows):,} × {len(columns):,} is too large to be dense: use db.csr() or db.connections()"
            )
        a, b, synapses = self.index.adjacency(rows, columns)
        strong = synapses >= min_count
        filled = np.zeros((len(rows), len(columns)), np.int64)
        filled[np.searchsorted(rows, a[strong]), np.searchsorted(columns, b[strong])] = synapses[strong]
        return pd.DataFrame(filled, pd.Index(rows, name="pre"), pd.Index(columns, name="post"))

    def paths(
        self, pre: Who, post: Who, *, max_steps: int | None = None, weight: str = "steps", min_count: int = 1,
        limit: int = 1000, as_: As = "pandas",
    ) -> Any:  # fmt: skip
        """Paths from one neuron to another: path, step, neuron, synapses of the connection that leads to it.

        All shortest ones; with `max_steps` all up to that many steps; with weight "synapses" (1 / synapses a step) or
        "share" (-log of the share of the target's input) the one best. At most `limit`. No rows: there is none.
        """
        a, b = self._one(pre, "pre"), self._one(post, "post")
        found = paths(self.index, a, b, max_steps=max_steps, weight=weight, min_count=min_count, limit=limit)
        return shown(found, as_)

    def _one(self, who: Who, what: str) -> int:
        ids = self._neurons.find(who, what)
        if len(ids) != 1:
            raise QueryError(f"{what}: wanted one neuron, {who!r} are {len(ids)}")
        return int(ids[0])

    def graph(self, *, min_count: int = 1, quality: bool = False) -> nx.DiGraph:
        """A networkx graph with everything known of neurons and connections; the edge's `unit` leads to its lineage."""
        from connectome_db.query.graph.networks import connectome_graph

        return connectome_graph(self.database, min_synapses=min_count, quality=quality)

    def wiring(self, *, min_count: int = 1) -> Wiring:
        """The graph as arrays: what the measures of `connectome_db.query.graph` work on."""
        from connectome_db.query.graph.wiring import read_wiring

        return read_wiring(self.database, min_synapses=min_count)

    def csr(self, *, min_count: int = 1, direction: str = "out") -> tuple[csr_array, U64]:
        """(matrix of synapses [N, N], neuron ids [N]): row k of the matrix is neuron ids[k]."""
        wiring = self.wiring(min_count=min_count)
        return wiring.csr(direction=direction), wiring.neurons

    def igraph(self, *, min_count: int = 1) -> Any:
        """An igraph graph; vertex attribute `neuron` is the id as text. Needs the extra `igraph`."""
        from connectome_db.query.graph.igraphs import as_igraph

        return as_igraph(self.wiring(min_count=min_count))

    def trace(self, pre: Who, post: Who, *, limit: int | None = 10) -> Lineage:
        """What a connection was made from, down to raw tiles, or to the rows and file of a list."""
        from connectome_db.query.lineage import trace_edge

        return Lineage(trace_edge(self.database, self._one(pre, "pre"), self._one(post, "post"), limit=limit))

    def trace_synapse(self, synapse: int) -> Lineage:
        """What a synapse was made from."""
        from connectome_db.query.lineage import trace_synapse

        return Lineage(trace_synapse(self.database, int(synapse)))

    def sql(self, text: str, params: Mapping[str, Any] | None = None, *, as_: As = "pandas", **values: Any) -> Any:
        """Rows of one SELECT; `$name` in it takes the argument of that name. Read-only."""
        return shown(self.database.sql(text, bound({**(params or {}), **values})), as_)

    def hold(self, *tables: str) -> None:
        """Keep tables in memory, such as connection: each of many small questions then takes a fraction of the time."""
        self.database.hold(*tables)

    def query(self, name: str, *, as_: As = "pandas", **arguments: Any) -> Any:
        """Rows of a named query; `db.queries()` lists them."""
        return shown(named.run_query(self.database, name, arguments, project=self.project), as_)

    def queries(self, *, as_: As = "pandas") -> Any:
        """Named queries: query, title, usage."""
        found = named.list_queries(self.project).values()
        columns = {"query": [q.name for q in found], "title": [q.title for q in found]}
        return shown(pa.table({**columns, "usage": [named.usage(q) for q in found]}), as_)

    def receipt(self, query: str, path: Path | str | None = None, *, as_: As = "pandas", **values: Any) -> Answered:
        """Rows of a named query or a SELECT, and a receipt of what was asked of which data, kept at `path`."""
        from connectome_db.query.receipts.receipt import refuse_existing, write
        from connectome_db.versions.receipts import ask_named, ask_sql

        if path is not None:
            refuse_existing(Path(path), force=False)
        if " " not in query.strip():
            rows, made = ask_named(self.project, query, {k: str(v) for k, v in values.items()}, {"main": self.revision})
        else:
            rows, made = ask_sql(self.project, query, {"main": self.revision}, bound(values))
        if path is not None:
            write(made, Path(path))
        return Answered(shown(rows, as_), made)

    def diff(self, rev: str, *, only: str | None = None) -> Changes:
        """What differs between the earlier version `rev` and this one; only: units, objects, synapses or edges."""
        from connectome_db.revisions import open_revision
        from connectome_db.versions.compare.diff import compare

        before = open_revision(self.project, rev)
        found = compare(before, self.revision, only=only)
        return changes(before.name, self.revision.name, found.tables, found.notes)

    def view(self, neurons: Who = (), *, synapse: int | None = None, region: str | None = None) -> Scene:
        """A view for Neuroglancer of a project made from raw tiles: `.state`, `.link`, `.serve()`."""
        if self.database.has("listed_synapse"):
            raise QueryError("an imported connectome has no volumes to show; `connectome plot neuron` draws its places")

        from connectome_db.config import load, stages_of
        from connectome_db.viewing.viewer import open_view

        objects = self._neurons.find(neurons).tolist() if not isinstance(neurons, tuple) or neurons else []
        project = load(self.project, stages_of(self.project))
        return Scene(open_view(project, self.rev, objects=objects, synapse=synapse, region=region))


def open_connectome(
    project: Path | str,
    rev: str | None = None,
    *,
    memory_limit: str = "4GB",
    threads: int = 2,
    timeout_s: float = 600.0,
) -> Connectome:
    """Open the project in (or above) a folder, as it lies there or as of a git revision `rev`.

    Raises ConnectomeError when there is none, or the revision is unknown or not at hand.
    """
    folder = Path(project).expanduser()
    if not folder.is_dir():
        raise QueryError(f"{project}: no such folder; give the folder of a project")
    root = folder.resolve()
    if rev is not None or not (root / "data").is_dir():  # what is loaded here takes longer than all the rest
        from connectome_db.config import find_root
        from connectome_db.revisions import open_revision

        root = find_root(root)
        revision = open_revision(root, rev)
        there, at = revision.root, revision.name if revision.commit else None
    else:
        there, at = root, None
    database = open_database(there, at=at, memory_limit=memory_limit, threads=threads, timeout_s=timeout_s)
    return Connectome(root, at, database)
