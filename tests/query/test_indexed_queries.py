"""Named queries that go by the adjacency, against the same asked of the tables alone."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, open_database
from connectome_db.query.named import run_query
from tests.query.test_indexed import NOBODY, add_arrays, edges, write

TWO_HOP = """
WITH side AS (
  SELECT pre AS a, post AS b, synapses FROM connection WHERE $direction = 'out' AND synapses >= $min_synapses
  UNION ALL SELECT post, pre, synapses FROM connection WHERE $direction = 'in' AND synapses >= $min_synapses
),
pair AS (
  SELECT y.b AS neuron, x.b AS via, least(x.synapses, y.synapses) AS strength FROM side x JOIN side y ON y.a = x.b
  WHERE x.a = $neuron
)
SELECT neuron, count(*) AS via, sum(strength)::BIGINT AS strength, arg_max(via, (strength, via)) AS strongest_via
FROM pair WHERE neuron <> $neuron GROUP BY neuron ORDER BY strength DESC, neuron LIMIT $limit
"""
ADJACENCY = """
SELECT a.pre, b.post, coalesce(c.synapses, 0) AS synapses
FROM (SELECT DISTINCT unnest($pre::UBIGINT[]) AS pre) a CROSS JOIN (SELECT DISTINCT unnest($post::UBIGINT[]) AS post) b
LEFT JOIN connection c ON c.pre = a.pre AND c.post = b.post ORDER BY a.pre, b.post
"""
REACH = """
WITH RECURSIVE walk(neuron, steps) AS (
  SELECT $neuron::UBIGINT, 0
  UNION SELECT c.post, w.steps + 1 FROM walk w JOIN connection c ON c.pre = w.neuron
  WHERE w.steps < $steps AND c.synapses >= $min_synapses
)
SELECT neuron, min(steps) AS steps, any_value(n.synapses_in) AS synapses_in FROM walk JOIN neuron n USING (neuron)
WHERE neuron <> $neuron GROUP BY neuron ORDER BY min(steps), any_value(n.synapses_in) DESC, neuron
"""
COMMON = """
SELECT 'out' AS direction, x.post AS partner, x.synapses AS synapses_a, y.synapses AS synapses_b
FROM connection x JOIN connection y ON y.post = x.post
WHERE x.pre = $a AND y.pre = $b AND x.synapses >= $min_synapses AND y.synapses >= $min_synapses
UNION ALL
SELECT 'in', x.pre, x.synapses, y.synapses FROM connection x JOIN connection y ON y.pre = x.pre
WHERE x.post = $a AND y.post = $b AND x.synapses >= $min_synapses AND y.synapses >= $min_synapses
ORDER BY least(synapses_a, synapses_b) DESC, direction, partner
"""
PARTNERS = """
WITH edge AS (
  SELECT 'out' AS direction, post AS partner, * FROM connection WHERE pre = $neuron AND $direction <> 'in'
  UNION ALL SELECT 'in', pre, * FROM connection WHERE post = $neuron AND $direction <> 'out'
)
SELECT e.direction, e.partner, e.synapses, e.confidence, e.weakest_merge, n.touches_border AS partner_touches_border
FROM edge e JOIN neuron n ON n.neuron = e.partner WHERE e.synapses >= $min_synapses
ORDER BY e.synapses DESC, e.direction, e.partner
"""
SHORTEST = """
WITH RECURSIVE hop(neuron, previous, synapses, steps) USING KEY (neuron) AS (
  SELECT $pre::UBIGINT, NULL::UBIGINT, NULL::BIGINT, 0
  UNION
  SELECT c.post, arg_max(c.pre, (c.synapses, -c.pre::HUGEINT)), max(c.synapses), any_value(h.steps) + 1
  FROM hop h JOIN connection c ON c.pre = h.neuron
  WHERE h.steps < $max_steps AND c.synapses >= $min_synapses
    AND c.post NOT IN (SELECT neuron FROM recurring.hop) AND $post NOT IN (SELECT neuron FROM recurring.hop)
  GROUP BY c.post
),
back(neuron, previous, synapses, steps) AS (
  SELECT * FROM hop WHERE neuron = $post UNION ALL SELECT h.* FROM back b JOIN hop h ON h.neuron = b.previous
)
SELECT steps AS step, neuron, synapses FROM back ORDER BY step
"""
TABLES = {"two_hop": TWO_HOP, "adjacency": ADJACENCY, "reach": REACH, "common_partners": COMMON, "partners": PARTNERS,
          "shortest_path": SHORTEST}  # fmt: skip


def questions(nodes: list[int], rng: random.Random) -> Iterator[tuple[str, dict[str, Any]]]:
    """Arguments of each query, random ones and odd ones."""
    for _ in range(6):
        least = rng.choice([1, 1, 3, 5])
        a, b = rng.choice(nodes), rng.choice([*nodes, NOBODY])
        for way in ("out", "in"):
            yield "two_hop", {"neuron": b, "direction": way, "min_synapses": least, "limit": rng.choice([3, 100])}
        for way in ("out", "in", "both"):
            yield "partners", {"neuron": b, "direction": way, "min_synapses": least}
        some = rng.sample(nodes, min(7, len(nodes)))
        yield "adjacency", {"pre": [*some, NOBODY, some[0]], "post": rng.sample(nodes, 3)}
        yield "adjacency", {"pre": rng.sample(nodes, 2), "post": some}
        yield "reach", {"neuron": a, "steps": rng.randint(1, 4), "min_synapses": least}
        yield "shortest_path", {"pre": a, "post": b, "min_synapses": least, "max_steps": rng.choice([2, 6])}
        yield "common_partners", {"a": a, "b": b, "min_synapses": least}
    yield "adjacency", {"pre": [], "post": nodes}
    yield "reach", {"neuron": NOBODY, "steps": 3, "min_synapses": 1}
    yield "shortest_path", {"pre": nodes[0], "post": nodes[0], "min_synapses": 1, "max_steps": 6}


@pytest.fixture(scope="module", params=["imported", "reconstructed"])
def project(request: pytest.FixtureRequest, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp(request.param)
    root = write(base / "p", edges(7)) if request.param == "imported" else shutil.copytree(tiny, base / "p")
    add_arrays(root)
    return root


@pytest.fixture(scope="module", params=["arrays", "table"])
def db(request: pytest.FixtureRequest, project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    if request.param == "table":
        older = tmp_path_factory.mktemp("older") / "p"
        project = shutil.copytree(project, older, ignore=shutil.ignore_patterns("adjacency"))
    with open_database(project, timeout_s=60) as opened:
        yield opened


def test_answers_are_those_of_the_tables(db: Database) -> None:
    nodes = db.sql("SELECT neuron FROM neuron ORDER BY neuron")["neuron"].to_pylist()
    answered = dict.fromkeys(TABLES, 0)
    for name, args in questions(nodes, random.Random(11)):
        found = run_query(db, name, args)
        assert found == db.sql(TABLES[name], args), (name, args)
        answered[name] += found.num_rows
    assert all(answered.values()), answered


def test_a_condition_on_quality_is_counted_from_synapses(db: Database) -> None:
    nodes = db.sql("SELECT neuron FROM neuron ORDER BY neuron")["neuron"].to_pylist()
    asked = (("partners", {"neuron": nodes[0]}), ("adjacency", {"pre": nodes[:4], "post": nodes[:4]}))
    for name, args in asked:
        if db.has("listed_synapse"):
            with pytest.raises(QueryError, match="has no images"):
                run_query(db, name, {**args, "min_quality": 0.5})
        else:
            with pytest.raises(QueryError, match="nothing was measured"):
                run_query(db, name, {**args, "min_quality": 0.5})
