"""The same Parquet files read by an engine that runs past one machine: Dask, against DuckDB, on one project.

    python -m benchmarks.distributed --project DIR [--workers 2]

Two questions that read everything: all edges summed from the synapses, and the degree of every neuron. The answers
must be equal in every row. `s` is the time of the question, with Dask's workers already there; they are processes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import dask
import dask.dataframe as dd
import pandas as pd
from distributed import Client, LocalCluster

from connectome_db.query.database import open_database

EDGES_SQL = """
SELECT pre, post, sum(synapses)::BIGINT AS synapses, count(*) AS "rows" FROM listed_synapse GROUP BY ALL ORDER BY ALL
"""
LINKS_SQL = """
SELECT pre, post, count(*) AS synapses, count(*) AS "rows" FROM link WHERE counted GROUP BY ALL ORDER BY ALL
"""
DEGREES_SQL = """
SELECT neuron, partners_out, synapses_out, partners_in, synapses_in FROM neuron ORDER BY neuron
"""


def read(project: Path, stage: str, table: str, columns: list[str]) -> dd.DataFrame:
    """A table of a project as a Dask data frame: one partition per row groups that fit its block size."""
    path = project / "data" / stage / f"{table}.parquet"
    return dd.read_parquet(path, columns=columns, split_row_groups="adaptive", blocksize="64 MiB")


def edges(project: Path, *, partitions: int = 8) -> pd.DataFrame:
    """pre, post, synapses, rows: the synapses of every edge, summed from the rows of the list or the links."""
    if (project / "data" / "listing").is_dir():
        found = read(project, "listing", "listed_synapse", ["pre", "post", "synapses"])
    else:
        found = read(project, "graph", "link", ["pre", "post", "counted"])
        found = found[found["counted"]].assign(synapses=1)
    summed = found.groupby(["pre", "post"]).agg({"synapses": ["sum", "count"]}, split_out=partitions)
    rows = summed.compute().reset_index()
    rows.columns = ["pre", "post", "synapses", "rows"]
    return rows.sort_values(["pre", "post"], ignore_index=True)


def degrees(project: Path) -> pd.DataFrame:
    """neuron, partners and synapses in both directions, from the connections; as the table `neuron` has them."""
    found = read(project, "graph", "connection", ["pre", "post", "synapses"])
    sides = []
    for side, name in (("pre", "out"), ("post", "in")):
        summed = found.groupby(side).agg({"synapses": ["count", "sum"]}).compute()
        summed.columns = [f"partners_{name}", f"synapses_{name}"]
        sides.append(summed)
    # ids are the index, and only counts are filled in: a neuron that has one side alone keeps its id exactly
    joined = pd.concat(sides, axis=1).fillna(0).astype("int64").sort_index()
    return joined.rename_axis("neuron").reset_index()


def same(ours: pd.DataFrame, theirs: pd.DataFrame) -> bool:
    """True when both hold the same rows; neurons without connections are in ours alone."""
    if "partners_out" in ours:
        ours = ours[(ours["partners_out"] + ours["partners_in"]) > 0].reset_index(drop=True)
    return ours.astype(theirs.dtypes.to_dict()).equals(theirs)


def _timed(ask: Callable[[], pd.DataFrame]) -> tuple[pd.DataFrame, float]:
    start = time.perf_counter()
    return ask(), time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    edge_sql = EDGES_SQL if (options.project / "data" / "listing").is_dir() else LINKS_SQL
    with (
        dask.config.set({"dataframe.convert-string": False}),
        LocalCluster(n_workers=options.workers, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        open_database(options.project) as db,
    ):
        for name, sql, ask in (("edges", edge_sql, edges), ("degrees", DEGREES_SQL, degrees)):
            ours, ours_s = _timed(lambda sql=sql: db.sql(sql).to_pandas())
            theirs, theirs_s = _timed(lambda ask=ask: ask(options.project))
            print(f"{name}: {len(theirs):,} rows, DuckDB {ours_s:.1f} s, Dask {theirs_s:.1f} s, "
                  f"{'equal' if same(ours, theirs) else 'DIFFERENT'}")  # fmt: skip


if __name__ == "__main__":
    main()
