"""The back ends that `peers` asks the same questions: each loads the same Parquet files in its own way.

What a back end cannot be asked in one query is left out. Every answer is reduced to
a short tuple, so that the answers of all back ends can be compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Box = tuple[float, float, float, float, float, float]
"""z0, y0, x0, z1, y1, x1 in nm."""
Answer = tuple[int, ...]
TOP = 10


class Backend:
    """One way to hold a connectome. `build` loads it; the questions are asked afterwards, on what `connect` left.

    Questions are methods named as in `QUESTIONS` of `peers`; one that is not there cannot be asked in one query:
    `partners(neuron)` and `among(neurons)` give (how many connections, their synapses), `two_hop(neuron)` the ten
    neurons with the largest sum of w1*w2 over paths of two connections (ties by id, not itself), `hops(pair)` the
    length of a shortest path (-1: none), `in_box(box)` (synapses,), `aggregate(None)` (connections, synapses).
    """

    name = ""
    says = ""
    """What it is and how it holds the data, for the table."""
    stays = True
    """What is built stays on disk, and is opened again before it is asked."""

    def __init__(self, project: Path, work: Path) -> None:
        self.project, self.work = project, work
        self.connections = project / "data" / "graph" / "connection.parquet"
        self.neurons = project / "data" / "graph" / "neuron.parquet"
        self.synapses = project / "data" / "listing" / "listed_synapse.parquet"

    def build(self) -> None:
        """Load the data; nothing for a back end that reads the project's own files."""

    def connect(self) -> None:
        """Open what was built."""

    def close(self) -> None:
        """Let go of it."""


def batches(path: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The columns of a Parquet file, a million rows at a time."""
    yield from pq.ParquetFile(path).iter_batches(batch_size=1 << 20, columns=list(columns))


def best(totals: Sequence[tuple[int, int]]) -> Answer:
    return tuple(v for pair in sorted(((-s, n) for n, s in totals))[:TOP] for v in (pair[1], -pair[0]))


TWO_HOP = """
SELECT b.post, sum(a.synapses * b.synapses) AS score FROM {c} a JOIN {c} b ON b.pre = a.post
WHERE a.pre = {n} AND b.post <> {n} GROUP BY b.post ORDER BY score DESC, b.post LIMIT 10
"""

TWO_HOP_BY_FUNCTIONS = """
SELECT b.partner, sum(a.synapses * b.synapses) AS score FROM outputs_of($n) a, outputs_of(a.partner) b
WHERE b.partner <> $n GROUP BY b.partner ORDER BY score DESC, b.partner LIMIT 10
"""


class OursTables(Backend):
    """The project's own Parquet files under DuckDB, by way of the read-only guard."""

    name, says = "connectome_db, SQL on tables", "DuckDB over the sorted Parquet files, guard and limits included"

    def build(self) -> None:
        """Load the library, as the other back ends do when they are built."""
        import connectome_db.query.database  # noqa: F401

    def connect(self) -> None:
        from connectome_db.query.database import open_database

        self.db = open_database(self.project)

    def close(self) -> None:
        self.db.close()

    def _rows(self, sql: str, **params: Any) -> list[dict[str, Any]]:
        return self.db.sql(sql, params).to_pylist()

    def partners(self, neuron: int) -> Answer:
        rows = self._rows("SELECT post, synapses FROM connection WHERE pre = $n", n=neuron)
        return len(rows), sum(r["synapses"] for r in rows)

    def among(self, neurons: Sequence[int]) -> Answer:
        inside = "IN (SELECT unnest($n::UBIGINT[]))"
        sql = f"SELECT pre, post, synapses FROM connection WHERE pre {inside} AND post {inside}"
        rows = self.db.sql(sql, {"n": list(neurons)})
        return rows.num_rows, int(np.sum(rows["synapses"].to_numpy()))

    def two_hop(self, neuron: int) -> Answer:
        rows = self._rows(TWO_HOP.format(c="connection", n="$n"), n=neuron)
        return best([(r["post"], int(r["score"])) for r in rows])

    def in_box(self, box: Box) -> Answer:
        sql = (
            "SELECT count(*) AS n FROM listed_synapse_by_place WHERE z_vx >= $a AND z_vx < $d AND y_vx >= $b "
            "AND y_vx < $e AND x_vx >= $c AND x_vx < $f"
        )
        return (self._rows(sql, **dict(zip("abcdef", box, strict=True)))[0]["n"],)

    def aggregate(self, _: object) -> Answer:
        sql = "SELECT count(*) AS n, sum(k) AS s FROM (SELECT count(*) AS k FROM listed_synapse GROUP BY pre, post)"
        row = self._rows(sql)[0]
        return row["n"], int(row["s"])


class OursSql(OursTables):
    """The same SQL with the functions that go by the adjacency index; tables for what is no question about partners."""

    name, says = "connectome_db, SQL", "DuckDB with functions on the memory-mapped CSR, guard and limits included"

    def partners(self, neuron: int) -> Answer:
        rows = self._rows("FROM outputs_of($n)", n=neuron)
        return len(rows), sum(r["synapses"] for r in rows)

    def among(self, neurons: Sequence[int]) -> Answer:
        rows = self.db.sql("FROM connections_among($n)", {"n": list(neurons)})
        return rows.num_rows, int(np.sum(rows["synapses"].to_numpy()))

    def two_hop(self, neuron: int) -> Answer:
        rows = self._rows(TWO_HOP_BY_FUNCTIONS, n=neuron)
        return best([(r["partner"], int(r["score"])) for r in rows])


class OursIndex(Backend):
    """The memory-mapped adjacency index that `finish` makes beside the tables."""

    name, says = "connectome_db, index", "memory-mapped CSR in both directions, made with the tables"

    def build(self) -> None:
        """Load the library, as the other back ends do when they are built."""
        import connectome_db.query.adjacency  # noqa: F401

    def connect(self) -> None:
        from connectome_db.query.adjacency import Adjacency

        self.index = Adjacency.open(self.project)

    def partners(self, neuron: int) -> Answer:
        _, synapses = self.index.partners(neuron)
        return len(synapses), int(synapses.sum())

    def among(self, neurons: Sequence[int]) -> Answer:
        synapses = self.index.adjacency(neurons, neurons)[2]
        return len(synapses), int(np.sum(synapses))

    def two_hop(self, neuron: int) -> Answer:
        found, score = self.index.two_hop(neuron, top=TOP)
        return best([(int(n), int(s)) for n, s in zip(found, score, strict=True)])

    def hops(self, pair: tuple[int, int]) -> Answer:
        path = self.index.shortest_path(*pair)
        return (-1 if path is None or len(path) == 0 else len(path) - 1,)


class Kuzu(Backend):
    """An embedded graph database with its own columnar storage."""

    name, says = "kuzu", "embedded graph database, Cypher; neurons and connections"

    def build(self) -> None:
        self.connect()
        run = self.con.execute
        run("CREATE NODE TABLE Neuron(id INT64, PRIMARY KEY (id))")
        run("CREATE REL TABLE C(FROM Neuron TO Neuron, synapses INT64)")
        neurons, edges = self.work / "n.parquet", self.work / "e.parquet"
        pq.write_table(
            pa.table({"id": pq.read_table(self.neurons, columns=["neuron"])["neuron"].cast("int64")}), neurons
        )
        with pq.ParquetWriter(edges, pa.schema([(n, pa.int64()) for n in ("pre", "post", "synapses")])) as writer:
            for b in batches(self.connections, ("pre", "post", "synapses")):
                writer.write_table(pa.Table.from_batches([b]).cast(writer.schema))
        run(f"COPY Neuron FROM '{neurons}'")
        run(f"COPY C FROM '{edges}'")
        neurons.unlink()
        edges.unlink()

    def connect(self) -> None:
        import kuzu

        self.db = kuzu.Database(str(self.work / "kuzu.db"), buffer_pool_size=4 << 30)
        self.con = kuzu.Connection(self.db, num_threads=os.cpu_count() or 1)

    def close(self) -> None:
        self.con.close()
        self.db.close()

    def _rows(self, text: str, **params: Any) -> list[list[Any]]:
        return self.con.execute(text, params).get_all()

    def partners(self, neuron: int) -> Answer:
        rows = self._rows("MATCH (a:Neuron)-[c:C]->(b:Neuron) WHERE a.id = $n RETURN b.id, c.synapses", n=neuron)
        return len(rows), sum(r[1] for r in rows)

    def among(self, neurons: Sequence[int]) -> Answer:
        text = "MATCH (a:Neuron)-[c:C]->(b:Neuron) WHERE a.id IN $n AND b.id IN $n RETURN a.id, b.id, c.synapses"
        rows = self._rows(text, n=list(neurons))
        return len(rows), sum(r[2] for r in rows)

    def two_hop(self, neuron: int) -> Answer:
        text = (
            "MATCH (a:Neuron)-[c:C]->(:Neuron)-[d:C]->(b:Neuron) WHERE a.id = $n AND b.id <> $n "
            "RETURN b.id, sum(c.synapses * d.synapses) AS s ORDER BY s DESC, b.id LIMIT 10"
        )
        return best([(r[0], int(r[1])) for r in self._rows(text, n=neuron)])

    def hops(self, pair: tuple[int, int]) -> Answer:
        text = "MATCH p = (a:Neuron)-[:C* SHORTEST 1..12]->(b:Neuron) WHERE a.id = $a AND b.id = $b RETURN length(p)"
        rows = self._rows(text, a=pair[0], b=pair[1])
        return (int(rows[0][0]) if rows else -1,)


class Memory(Backend):
    """What igraph and networkx share: the whole graph is built in memory, and again in each session."""

    stays = False

    def _edges(self) -> tuple[Any, Any, Any, Any]:
        neurons = pq.read_table(self.neurons, columns=["neuron"])["neuron"].to_numpy()
        table = pq.read_table(self.connections, columns=["pre", "post", "synapses"])
        pre, post = (np.searchsorted(neurons, table[c].to_numpy()).astype(np.int32) for c in ("pre", "post"))
        return neurons, pre, post, table["synapses"].to_numpy()


class Igraph(Memory):
    """A graph library in C."""

    name, says = "igraph", "C library, the graph in memory"

    def connect(self) -> None:
        import igraph

        neurons, pre, post, synapses = self._edges()
        self.ids, self.place = neurons, {int(n): i for i, n in enumerate(neurons)}
        self.graph = igraph.Graph(n=len(neurons), edges=np.stack([pre, post], axis=1), directed=True)
        self.weight = synapses
        self.graph.neighbors(0, mode="out")  # builds its own index once

    build = connect

    def _out(self, i: int) -> tuple[Any, Any]:
        edges = self.graph.incident(i, mode="out")
        return np.asarray(self.graph.neighbors(i, mode="out")), self.weight[edges]

    def partners(self, neuron: int) -> Answer:
        _, weight = self._out(self.place[neuron])
        return len(weight), int(weight.sum())

    def among(self, neurons: Sequence[int]) -> Answer:
        inside = np.sort([self.place[n] for n in neurons])
        count = total = 0
        for i in inside.tolist():
            to, weight = self._out(i)
            if len(to):
                hit = np.isin(to, inside)
                count, total = count + int(hit.sum()), total + int(weight[hit].sum())
        return count, total

    def two_hop(self, neuron: int) -> Answer:
        start, score = self.place[neuron], np.zeros(len(self.ids), np.int64)
        to, weight = self._out(start)
        order = np.argsort(to)
        for i, w in zip(to[order].tolist(), weight[order].tolist(), strict=True):
            second, w2 = self._out(i)
            if len(second):
                np.add.at(score, second, w * w2)
        score[start] = 0
        first = np.argsort(-score, kind="stable")[:TOP]
        return best([(int(self.ids[i]), int(score[i])) for i in first if score[i]])

    def hops(self, pair: tuple[int, int]) -> Answer:
        path = self.graph.get_shortest_path(self.place[pair[0]], self.place[pair[1]], mode="out", output="vpath")
        return (len(path) - 1 if path else -1,)


class Networkx(Memory):
    """A graph library in Python."""

    name, says = "networkx", "Python library, the graph as dictionaries in memory"

    def connect(self) -> None:
        import networkx as nx

        neurons, pre, post, synapses = self._edges()
        ids = neurons.tolist()
        self.graph = nx.DiGraph()
        self.graph.add_nodes_from(ids)
        for first in range(0, len(pre), 1 << 20):
            part = slice(first, first + (1 << 20))
            rows = zip(neurons[pre[part]].tolist(), neurons[post[part]].tolist(), synapses[part].tolist(), strict=True)
            self.graph.add_weighted_edges_from(rows, weight="w")

    build = connect

    def partners(self, neuron: int) -> Answer:
        out = self.graph[neuron]
        return len(out), sum(d["w"] for d in out.values())

    def among(self, neurons: Sequence[int]) -> Answer:
        inside = set(neurons)
        found = [d["w"] for n in neurons for m, d in self.graph[n].items() if m in inside]
        return len(found), sum(found)

    def two_hop(self, neuron: int) -> Answer:
        score: dict[int, int] = {}
        for m, d in self.graph[neuron].items():
            for t, e in self.graph[m].items():
                score[t] = score.get(t, 0) + d["w"] * e["w"]
        score.pop(neuron, None)
        return best(list(score.items()))

    def hops(self, pair: tuple[int, int]) -> Answer:
        import networkx as nx

        try:
            return (nx.shortest_path_length(self.graph, *pair),)
        except nx.NetworkXNoPath:
            return (-1,)
