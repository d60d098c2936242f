"""SQL back ends for `peers`: SQLite in one file, and PostgreSQL as CAVE and others run it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.peer_backends import TWO_HOP, Answer, Backend, Box, batches, best


class Sqlite(Backend):
    """Tables with B-tree indexes in one file; boxes by a B-tree on cells of 5 um."""

    name, says = "SQLite", "tables with B-tree indexes; boxes by cells of 5 µm"
    cell_nm = 5000.0

    def build(self) -> None:
        self.connect()
        run = self.con.execute
        run("PRAGMA journal_mode = OFF")
        run("PRAGMA synchronous = OFF")
        run("BEGIN")
        run(
            "CREATE TABLE connection(pre INTEGER, post INTEGER, synapses INTEGER, "
            "PRIMARY KEY (pre, post)) WITHOUT ROWID"
        )
        run("CREATE TABLE synapse(cell INTEGER, z REAL, y REAL, x REAL, pre INTEGER, post INTEGER)")
        for b in batches(self.connections, ("pre", "post", "synapses")):
            self.con.executemany(
                "INSERT INTO connection VALUES (?, ?, ?)", zip(*(c.to_pylist() for c in b), strict=True)
            )
        for b in batches(self.synapses, ("z_vx", "y_vx", "x_vx", "pre", "post")):
            z, y, x = (b.column(k).to_numpy() for k in range(3))
            rows = zip(self._cell(z, y, x).tolist(), *(c.to_pylist() for c in b), strict=True)
            self.con.executemany("INSERT INTO synapse VALUES (?, ?, ?, ?, ?, ?)", rows)
        run("CREATE INDEX by_post ON connection(post)")
        run("CREATE INDEX by_cell ON synapse(cell, z, y, x)")
        run("CREATE INDEX by_pre ON synapse(pre, post)")
        self.con.commit()

    def _cell(self, z: Any, y: Any, x: Any) -> Any:
        a, b, c = (np.floor_divide(v, self.cell_nm).astype(np.int64) for v in (z, y, x))
        return (a * 4096 + b) * 4096 + c

    def connect(self) -> None:
        self.con = sqlite3.connect(self.work / "fly.sqlite", isolation_level=None)
        self.con.execute("PRAGMA cache_size = -2000000")
        self.con.execute("PRAGMA mmap_size = 17179869184")

    def close(self) -> None:
        self.con.close()

    def _rows(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        return self.con.execute(sql, args).fetchall()

    def partners(self, neuron: int) -> Answer:
        rows = self._rows("SELECT post, synapses FROM connection WHERE pre = ?", [neuron])
        return len(rows), sum(r[1] for r in rows)

    def among(self, neurons: Sequence[int]) -> Answer:
        marks = ",".join("?" * len(neurons))
        sql = f"SELECT pre, post, synapses FROM connection WHERE pre IN ({marks}) AND post IN ({marks})"
        rows = self._rows(sql, [*neurons, *neurons])
        return len(rows), sum(r[2] for r in rows)

    def two_hop(self, neuron: int) -> Answer:
        return best([(r[0], int(r[1])) for r in self._rows(TWO_HOP.format(c="connection", n="?1"), [neuron])])

    def in_box(self, box: Box) -> Answer:
        low, high = (np.floor_divide(v, self.cell_nm).astype(int) for v in (np.asarray(box[:3]), np.asarray(box[3:])))
        cells = [
            (int(a) * 4096 + int(b)) * 4096 + int(c)
            for a in range(low[0], high[0] + 1) for b in range(low[1], high[1] + 1) for c in range(low[2], high[2] + 1)
        ]  # fmt: skip
        sql = (
            f"SELECT count(*) FROM synapse WHERE cell IN ({','.join('?' * len(cells))}) "
            "AND z >= ? AND y >= ? AND x >= ? AND z < ? AND y < ? AND x < ?"
        )
        return (int(self._rows(sql, [*cells, *box])[0][0]),)

    def aggregate(self, _: object) -> Answer:
        sql = "SELECT count(*), sum(k) FROM (SELECT count(*) AS k FROM synapse GROUP BY pre, post)"
        return tuple(int(v) for v in self._rows(sql)[0])


class Postgres(Backend):
    """A server as CAVE and others use it: B-tree indexes, and GiST on the place of a synapse."""

    name, says = "PostgreSQL", "server on a local socket, B-tree indexes, GiST on (y, x) of synapses"

    @property
    def _bin(self) -> Path:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not found:
            raise RuntimeError("PostgreSQL is not installed: apt-get install postgresql")
        return found[-1]

    def _as_owner(self, *command: str) -> None:
        """Run a server tool; PostgreSQL refuses root, so root runs it as the user of the Debian package."""
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        subprocess.run([*user, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    @property
    def _data(self) -> Path:
        return self.work / "pg"

    def build(self) -> None:
        self.work.chmod(0o755)
        self._data.mkdir()
        if os.geteuid() == 0:
            shutil.chown(self._data, "postgres")
        self._as_owner(str(self._bin / "initdb"), "-D", str(self._data), "-A", "trust", "-U", "bench", "--no-sync")
        self.connect()
        run = self.con.execute
        run("CREATE TABLE connection(pre bigint, post bigint, synapses bigint)")
        run("CREATE TABLE synapse(z float8, place point, pre bigint, post bigint)")
        with self.con.cursor() as cur:
            with cur.copy("COPY connection FROM STDIN") as copy:
                for b in batches(self.connections, ("pre", "post", "synapses")):
                    copy.write(_lines("%d\t%d\t%d\n", b))
            with cur.copy("COPY synapse FROM STDIN") as copy:
                for b in batches(self.synapses, ("z_vx", "y_vx", "x_vx", "pre", "post")):
                    copy.write(_lines("%.17g\t(%.17g,%.17g)\t%d\t%d\n", b))
        run("CREATE UNIQUE INDEX ON connection(pre, post) INCLUDE (synapses)")
        run("CREATE INDEX ON connection(post)")
        run("CREATE INDEX ON synapse USING gist (place)")
        run("CREATE INDEX ON synapse(pre, post)")
        run("VACUUM ANALYZE")

    def connect(self) -> None:
        import psycopg

        if getattr(self, "_sockets", None) is None:
            self._sockets = tempfile.mkdtemp()
            Path(self._sockets).chmod(0o777)
        options = (
            f"-k {self._sockets} -c listen_addresses='' -c shared_buffers=2GB -c work_mem=512MB -c fsync=off "
            "-c maintenance_work_mem=1GB -c max_wal_size=8GB -c autovacuum=off"
        )
        running = (self._data / "postmaster.pid").exists()
        if not running:
            log = str(self._data / "log")
            self._as_owner(str(self._bin / "pg_ctl"), "-D", str(self._data), "-o", options, "-w", "-l", log, "start")
        self.con = psycopg.connect(host=self._sockets, user="bench", dbname="postgres", autocommit=True)

    def close(self) -> None:
        self.con.close()
        self._as_owner(str(self._bin / "pg_ctl"), "-D", str(self._data), "-m", "fast", "-w", "stop")

    def _rows(self, sql: str, args: Sequence[Any] = ()) -> list[Any]:
        return self.con.execute(sql, args).fetchall()

    def partners(self, neuron: int) -> Answer:
        rows = self._rows("SELECT post, synapses FROM connection WHERE pre = %s", [neuron])
        return len(rows), sum(r[1] for r in rows)

    def among(self, neurons: Sequence[int]) -> Answer:
        sql = "SELECT pre, post, synapses FROM connection WHERE pre = ANY(%s) AND post = ANY(%s)"
        rows = self._rows(sql, [list(neurons), list(neurons)])
        return len(rows), sum(r[2] for r in rows)

    def two_hop(self, neuron: int) -> Answer:
        rows = self._rows(TWO_HOP.format(c="connection", n="%(n)s"), {"n": neuron})  # type: ignore[arg-type]
        return best([(r[0], int(r[1])) for r in rows])

    def in_box(self, box: Box) -> Answer:
        z0, y0, x0, z1, y1, x1 = box
        sql = (
            "SELECT count(*) FROM synapse WHERE place <@ box(point(%s, %s), point(%s, %s)) AND z >= %s AND z < %s "
            "AND place[0] >= %s AND place[1] >= %s AND place[0] < %s AND place[1] < %s"
        )
        return (int(self._rows(sql, [y0, x0, y1, x1, z0, z1, y0, x0, y1, x1])[0][0]),)

    def aggregate(self, _: object) -> Answer:
        sql = "SELECT count(*), sum(k) FROM (SELECT count(*) AS k FROM synapse GROUP BY pre, post) t"
        return tuple(int(v) for v in self._rows(sql)[0])


def _lines(form: str, batch: pa.RecordBatch) -> bytes:
    return "".join(form % row for row in zip(*(c.to_pylist() for c in batch), strict=True)).encode()
