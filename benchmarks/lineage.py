"""How long the lineage of one edge takes in an open database: median and 95th percentile over many edges.

    python -m benchmarks.lineage --project DIR [--edges 200]

`DIR` is a project of any sort; `python -m benchmarks.ledger --folder DIR --units 100000 --only make` makes one of 10^5
units. The first edge is answered from the files; before the second, small tables are read into memory (`held`); both
are told apart from the rest. CPU s are those of all threads: on a machine that others use, they say more than the wall.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from connectome_db.query.database import open_database
from connectome_db.query.lineage import trace_edge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--project", type=Path, required=True)
    parser.add_argument("--edges", type=int, default=200)
    options = parser.parse_args()
    edges = pq.read_table(options.project / "data" / "graph" / "connection.parquet", columns=["pre", "post"])
    chosen = np.random.default_rng(0).choice(edges.num_rows, size=options.edges + 2)
    wall, cpu = [], []
    with open_database(options.project) as db:
        for i in chosen.tolist():
            pre, post = edges["pre"][i].as_py(), edges["post"][i].as_py()
            start = time.perf_counter(), time.process_time()
            trace_edge(db, pre, post)
            wall.append(time.perf_counter() - start[0])
            cpu.append(time.process_time() - start[1])
    for name, seconds in (("wall", wall), ("CPU", cpu)):
        median, p95 = np.percentile(seconds[2:], [50, 95]) * 1e3
        print(f"{name}: first {seconds[0] * 1e3:.0f} ms, second {seconds[1] * 1e3:.0f} ms")
        print(f"{name}: then median {median:.1f} ms, p95 {p95:.1f} ms over {options.edges} edges")
    print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
