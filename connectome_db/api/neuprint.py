"""The verbs of neuprint-python, answered by a project: thin, with the columns that its users know.

    from connectome_db.api.neuprint import Client
    client = Client("project")
    neurons, roi_counts = client.fetch_neurons({"type": "KC*"})

Criteria are neurons as everywhere here (ids, names, annotations); the argument names are those of neuprint-python.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from connectome_db.api.connectome import Connectome, Who, open_connectome
from connectome_db.api.frames import frame

if TYPE_CHECKING:
    import pandas as pd


class Client:
    """A project as a neuPrint server would answer. `db` is the same project with our own verbs."""

    def __init__(self, project: Path | str | Connectome, rev: str | None = None) -> None:
        """Opens `project` (as of `rev`), or takes one that is open."""
        self.db = project if isinstance(project, Connectome) else open_connectome(project, rev)

    def fetch_neurons(self, criteria: Who = None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(neurons: bodyId, instance, type, pre, post, ...; synapses per region: bodyId, roi, pre, post)."""
        rows = self.db.neurons(criteria)
        names = {"neuron": "bodyId", "name": "instance", "synapses_out": "pre", "synapses_in": "post"}
        neurons = rows.rename(columns=names).rename(columns={"partners_out": "downstream", "partners_in": "upstream"})
        return neurons, self._regions(rows["neuron"])

    def _regions(self, ids: Any) -> pd.DataFrame:
        empty = pa.table({"bodyId": pa.array([], pa.uint64()), "roi": pa.array([], pa.string()),
                          "pre": pa.array([], pa.int64()), "post": pa.array([], pa.int64())})  # fmt: skip
        if not self.db.database.has("listed_synapse"):
            return frame(empty)
        rows = self.db.database.rows(_REGIONS, beside={"asked": pa.table({"id": pa.array(ids, pa.uint64())})})
        return frame(rows.rename_columns(["bodyId", "roi", "pre", "post"]))

    def fetch_simple_connections(
        self, upstream_criteria: Who = None, downstream_criteria: Who = None, min_weight: int = 1
    ) -> pd.DataFrame:
        """bodyId_pre, bodyId_post, weight, and instance and type of both where they are known."""
        kinds = [k for k in ("name", "type") if k == "name" or k in self.db.kinds]
        rows = self.db.connections(upstream_criteria, downstream_criteria, min_count=min_weight, show=kinds)
        rows = rows.rename(columns=_ENDS | {"synapses": "weight"})
        shown: pd.DataFrame = rows[[c for c in (*_ENDS.values(), "weight") if c in rows.columns]]
        return shown

    def fetch_adjacencies(
        self, sources: Who = None, targets: Who = None, min_total_weight: int = 1, rois: list[str] | None = None
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """(neurons that occur: bodyId, instance, type; connections per region: bodyId_pre, bodyId_post, roi, weight).

        Connections below `min_total_weight` are left out; without regions in the project, roi is None.
        """
        totals = self.db.connections(sources, targets, min_count=min_total_weight, as_="arrow")
        parts = []
        regions: list[str | None] = list(rois) if rois else [None]
        for roi in regions:
            some = totals if roi is None else self.db.connections(sources, targets, roi=roi, as_="arrow")
            some = some.select(["pre", "post", "synapses"]).append_column(
                "roi", pa.array([roi] * len(some), pa.string())
            )
            kept = some.join(totals.select(["pre", "post"]), ["pre", "post"], join_type="left semi")
            parts.append(kept.select(["pre", "post", "roi", "synapses"]))
        rows = pa.concat_tables(parts).sort_by([("pre", "ascending"), ("post", "ascending"), ("roi", "ascending")])
        ids = pa.compute.unique(pa.concat_arrays([*rows["pre"].chunks, *rows["post"].chunks])) if len(rows) else []
        neurons = self.db.neurons(ids).rename(columns={"neuron": "bodyId", "name": "instance"})
        shown = neurons[[c for c in ("bodyId", "instance", "type") if c in neurons.columns]]
        return shown, frame(rows.rename_columns(["bodyId_pre", "bodyId_post", "roi", "weight"]))

    def fetch_synapse_connections(
        self, source_criteria: Who = None, target_criteria: Who = None, batch_size: int | None = None
    ) -> pd.DataFrame:
        """A row per synapse: bodyId_pre, bodyId_post, x, y, z (in nm), confidence, roi. `batch_size` is not needed."""
        del batch_size  # there is no server to spare
        rows = self.db.synapses(source_criteria, target_criteria)
        found: pd.DataFrame = rows.rename(columns=_ENDS | {"x_nm": "x", "y_nm": "y", "z_nm": "z"})
        return found

    def fetch_shortest_paths(self, upstream_bodyId: Who, downstream_bodyId: Who, min_weight: int = 1) -> pd.DataFrame:  # noqa: N803  # neuprint-python's names
        """All shortest paths: path, bodyId, weight (0 at the first neuron)."""
        rows = self.db.paths(upstream_bodyId, downstream_bodyId, min_count=min_weight)
        rows = rows.rename(columns={"neuron": "bodyId", "synapses": "weight"})
        rows["weight"] = rows["weight"].fillna(0).astype("int64")
        found: pd.DataFrame = rows[["path", "bodyId", "weight"]]
        return found

    def fetch_common_connectivity(self, criteria: Who, search_direction: str = "upstream", min_weight: int = 1) -> Any:
        """Partners of all of the neurons: partner, synapses, weakest. search_direction: upstream or downstream."""
        way = {"upstream": "in", "downstream": "out"}.get(search_direction, search_direction)
        return self.db.common_partners(criteria, way, min_count=min_weight)

    def fetch_custom(self, sql: str, **values: Any) -> pd.DataFrame:
        """SQL where neuPrint takes Cypher."""
        rows: pd.DataFrame = self.db.sql(sql, values)
        return rows


_ENDS = {
    "pre": "bodyId_pre", "post": "bodyId_post", "pre_name": "instance_pre", "post_name": "instance_post",
    "pre_type": "type_pre", "post_type": "type_post",
}  # fmt: skip
_REGIONS = """
SELECT neuron, roi, sum(o)::BIGINT AS pre, sum(i)::BIGINT AS post FROM (
  SELECT pre AS neuron, roi, synapses AS o, 0 AS i FROM listed_synapse UNION ALL
  SELECT post, roi, 0, synapses FROM listed_synapse
) WHERE roi IS NOT NULL AND neuron IN (SELECT id FROM asked) GROUP BY neuron, roi ORDER BY neuron, roi
"""
