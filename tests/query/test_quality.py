"""Quality at synapses and connections, against the same worked out in plain Python."""

from __future__ import annotations

import math
import shutil
from collections import defaultdict
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from random import Random
from statistics import median, pstdev
from typing import Any

import pyarrow.parquet as pq
import pytest

from connectome_db.errors import QueryError
from connectome_db.query.database import Database, Other, open_database
from connectome_db.query.lineage import trace_synapse
from connectome_db.query.named import run_query
from connectome_db.query.receipts.normal import normal_form
from connectome_db.query.trace import to_dot
from connectome_db.schema.imported import IMPORTED_CONNECTION
from connectome_db.schema.quality import FLAG, METRICS, QUALITY_GRAPH, QUALITY_RAW, QUALITY_VOLUME
from connectome_db.schema.quality_views import FUNCTIONS, LOCAL, SHOWN, VIEWS
from connectome_db.spec import Table
from tests.tiny_project import table_of
from tests.tiny_rows import BLOCK_A, ONCE, VOXEL_NM, s1

Row = dict[str, Any]
NEURONS = [11, 12, 13, 14]


def _box(low: tuple[float, float, float], size: tuple[float, float, float]) -> Row:
    ends = {f"{a}0_nm": low[k] for k, a in enumerate("zyx")}
    return ends | {f"{a}1_nm": low[k] + size[k] for k, a in enumerate("zyx")}


def _measured(metric: str, box: Row, value: float, weight: float, **more: Any) -> Row:
    m = METRICS[metric]
    return {"unit": BLOCK_A, "layer": m.layer, "metric": metric, **box, "value": value, "weight": weight,
            "measure": m.measure, **more}  # fmt: skip


def _rows(rng: Random) -> tuple[list[Row], list[Row]]:
    """Patches of uneven size that overlap and leave gaps, and cells of a lattice; two metrics say nothing."""
    raw, volume = [], []
    for metric in ("raw_membrane_contrast", "raw_contrast_to_noise", "raw_sharpness"):
        for section in (0, 1):
            for i in range(12):
                low = (section * 40.0, rng.uniform(-50, 900), rng.uniform(-50, 900))
                box = _box(low, (40.0, rng.uniform(40, 400), rng.uniform(40, 400)))
                raw.append(_measured(metric, box, rng.gauss(20, 3), rng.randint(1, 50), section=section, tile=f"t{i}"))
    for metric in ("alignment_residual", "section_continuity", "affinity_certainty"):
        for y in range(0, 960, 160):
            for x in range(0, 960, 240):
                value = rng.gauss(1, 0.2) + (3 if rng.random() < 0.05 else 0)
                volume.append(_measured(metric, _box((0.0, y, x), (80.0, 160.0, 240.0)), value, rng.randint(1, 9)))
    # Most cells are as good as can be: the spread is the standard deviation. All are equal: the metric says nothing.
    for k, y in enumerate(range(0, 960, 160)):
        box = _box((0.0, float(y), 0.0), (80.0, 160.0, 240.0))
        volume.append(_measured("contact_ambiguous", box, 0.0 if k < 4 else 0.4 + k / 100, 5.0))
        volume.append(_measured("synapse_confidence", box, 0.9, 1.0))
    volume.append(
        _measured("section_continuity", _box((0.0, 0.0, 0.0), (80.0, 960.0, 960.0)), 77.0, 0.0)
    )  # no weight: no value
    return raw, volume


def _flags() -> list[Row]:
    def flag(name: str, low: tuple[float, float, float], size: tuple[float, float, float], **more: Any) -> Row:
        return {"unit": ONCE, "flag": name, **_box(low, size), "severity": "warning", "worse": True, **more}

    return [
        flag("a/local/1", (0, 0, 0), (80, 480, 480)),
        flag("b/trend/1", (0, 300, 300), (40, 660, 660), severity="info"),
        flag("c/step/1", (40, 0, 0), (40, 960, 500), worse=False),
        flag("d/local/1", (0, 700, 700), (80, 100, 100), severity="serious"),
    ]


def _write(project: Path, stage: str, table: Table, rows: list[Row]) -> None:
    (project / "data" / stage).mkdir(exist_ok=True)
    pq.write_table(table_of(table.name, rows, table), project / "data" / stage / f"{table.name}.parquet")


@pytest.fixture(scope="module")
def rows() -> dict[str, list[Row]]:
    rng = Random(7)
    synapses, links = [], []
    for i in range(1, 301):
        at = {"z_vx": rng.uniform(-0.5, 1.49), "y_vx": rng.uniform(-3, 119), "x_vx": rng.uniform(0, 119)}
        more = {"size_vx": rng.randint(20, 90), "confidence": rng.uniform(0.75, 0.99)}
        synapses.append({"unit": BLOCK_A, "synapse": i, **at, **more})
        pre, post = rng.sample(NEURONS, 2)
        links.append({"unit": ONCE, "synapse": i, "pre": pre, "post": post, "counted": rng.random() < 0.9})
    raw, volume = _rows(rng)
    return {"synapse": synapses, "link": links, "quality_raw": raw, "quality_volume": volume, "flag": _flags()}


@pytest.fixture(scope="module")
def project(tiny: Path, rows: dict[str, list[Row]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("quality") / "project"
    shutil.copytree(tiny, root)
    for stage, name in (("synapses", "synapse"), ("graph", "link")):
        (root / "data" / stage / f"{name}.parquet").unlink()
        pq.write_table(table_of(name, rows[name]), root / "data" / stage / f"{name}.parquet")
    _write(root, "measure_raw", QUALITY_RAW, rows["quality_raw"])
    _write(root, "measure_volume", QUALITY_VOLUME, rows["quality_volume"])
    _write(root, "measure_graph", QUALITY_GRAPH, [])
    _write(root, "flag", FLAG, rows["flag"])
    return root


@pytest.fixture(scope="module")
def measured(project: Path) -> Iterator[Database]:
    with open_database(project, timeout_s=60) as opened:
        yield opened


def _holds(row: Row, at: dict[str, float]) -> bool:
    return all(row[f"{a}0_nm"] <= at[a] < row[f"{a}1_nm"] for a in "zyx")


def _better(metric: str, value: float) -> float:
    return -math.sqrt(value) if METRICS[metric].worse == "high" else value


def _cell_means(found: list[Row], step: tuple[float, ...]) -> dict[tuple[int, ...], float]:
    """Cell -> mean value, by weight and by the share of each box that lies in the cell."""
    total: dict[tuple[int, ...], float] = defaultdict(float)
    share: dict[tuple[int, ...], float] = defaultdict(float)
    for r in found:
        size = [r[f"{a}1_nm"] - r[f"{a}0_nm"] for a in "zyx"]
        for cell in product(range(-1, 3), range(-2, 8), range(-2, 8)):
            common = [
                min(r[f"{a}1_nm"], (cell[k] + 1) * step[k]) - max(r[f"{a}0_nm"], cell[k] * step[k])
                for k, a in enumerate("zyx")
            ]
            if min(common) > 0:
                part = r["weight"] * math.prod(common) / math.prod(size)
                total[cell] += part * r["value"]
                share[cell] += part
    return {cell: total[cell] / s for cell, s in share.items() if s > 0}


@pytest.fixture(scope="module")
def expected(rows: dict[str, list[Row]]) -> dict[int, Row]:
    """`synapse_quality` by going over all cells and boxes."""
    quality = [r for r in rows["quality_raw"] + rows["quality_volume"] if r["weight"] > 0]
    cells = [r for r in rows["quality_volume"] if r["weight"] > 0]
    step = tuple(max(r[f"{a}1_nm"] - r[f"{a}0_nm"] for r in cells) for a in "zyx")
    mean = {m: _cell_means([r for r in quality if r["metric"] == m], step) for m in SHOWN}
    middle, spread = {}, {}
    for m, found in mean.items():
        values = [_better(m, v) for v in found.values()]
        middle[m] = median(values)
        above = [v - middle[m] for v in values if v > middle[m]]
        spread[m] = 1.4826 * median(above) if above else pstdev(values)
    out: dict[int, Row] = {}
    for s in rows["synapse"]:
        at = {a: (s[f"{a}_vx"] + 0.5) * VOXEL_NM[k] for k, a in enumerate("zyx")}
        told: Row = {"at": at}
        for m in SHOWN:
            told[m] = mean[m].get(tuple(math.floor(at[a] / step[k]) for k, a in enumerate("zyx")))
            known = told[m] is not None and spread[m] > 0
            told[f"{m}_dev"] = (_better(m, told[m]) - middle[m]) / spread[m] if known else None
        deviations = {m: told[f"{m}_dev"] for m in LOCAL if told[f"{m}_dev"] is not None}
        told["worst_metric"] = min(deviations, key=lambda m: deviations[m]) if deviations else None
        told["worst_dev"] = min(deviations.values()) if deviations else None
        low = min(told["worst_dev"], 0) if deviations else 0
        told["quality"] = (1 + math.exp(-4)) / (1 + math.exp(-(low + 4))) if deviations else None
        inside = [f for f in rows["flag"] if _holds(f, at)]
        told["flags"] = ", ".join(sorted(f["flag"] for f in inside))
        told["flagged"] = any(f["worse"] and f["severity"] != "info" for f in inside)
        out[s["synapse"]] = told
    return out


def test_each_synapse_has_the_quality_of_its_place(measured: Database, expected: dict[int, Row]) -> None:
    got = {r["synapse"]: r for r in measured.sql("SELECT * FROM synapse_quality").to_pylist()}
    assert got.keys() == expected.keys()
    for synapse, want in expected.items():
        r = got[synapse]
        assert [r[f"{a}_nm"] for a in "zyx"] == pytest.approx([want["at"][a] for a in "zyx"])
        for name in ("quality", "worst_dev", *SHOWN, *(f"{m}_dev" for m in SHOWN)):
            assert r[name] == (None if want[name] is None else pytest.approx(want[name])), (synapse, name)
        assert (r["worst_metric"], r["flags"], r["flagged"]) == tuple(
            want[n] for n in ("worst_metric", "flags", "flagged")
        )
    seen = list(expected.values())
    assert {r["worst_metric"] for r in seen} >= {"raw_sharpness", "alignment_residual", "contact_ambiguous"}
    assert any(r["contact_ambiguous"] is None for r in seen)  # measured in a part only
    assert all(r["synapse_confidence_dev"] is None for r in seen)  # the same everywhere: it says nothing


@pytest.fixture(scope="module")
def edges(rows: dict[str, list[Row]], expected: dict[int, Row]) -> dict[tuple[int, int], list[Row]]:
    """The counted synapses of each connection."""
    edges = defaultdict(list)
    size = {s["synapse"]: s for s in rows["synapse"]}
    for link in rows["link"]:
        if link["counted"]:
            edges[link["pre"], link["post"]].append(size[link["synapse"]] | expected[link["synapse"]])
    return edges


def test_each_connection_has_that_of_its_synapses(measured: Database, edges: dict[tuple[int, int], list[Row]]) -> None:
    got = {(r["pre"], r["post"]): r for r in measured.sql("SELECT * FROM connection_quality").to_pylist()}
    assert got.keys() == edges.keys()
    for edge, synapses in edges.items():
        r, known = got[edge], [s for s in synapses if s["quality"] is not None]
        worst = min(known, key=lambda s: (s["quality"], s["synapse"]))
        assert (r["synapses"], r["measured"]) == (len(synapses), len(known))
        assert r["quality_mean"] == pytest.approx(sum(s["quality"] for s in known) / len(known))
        assert (r["quality_min"], r["worst_metric"]) == (pytest.approx(worst["quality"]), worst["worst_metric"])
        assert r["synapses_flagged"] == sum(s["flagged"] for s in synapses)
        names = {n for s in synapses for n in s["flags"].split(", ") if n}
        assert r["flags"] == ", ".join(sorted(names))


@pytest.mark.parametrize(
    ("call", "low", "unflagged", "least"),
    [
        ("", 0.0, False, 1),
        ("min_quality => 0.8", 0.8, False, 1),
        ("min_quality => 0.8, exclude_flagged => true, min_synapses => 9", 0.8, True, 9),
        ("0.5, true", 0.5, True, 1),
        ("exclude_flagged => true", 0.0, True, 1),
        ("min_quality => NULL", 0.0, False, 1),
    ],
)
def test_connections_count_what_meets_the_condition(
    measured: Database, edges: dict[tuple[int, int], list[Row]], call: str, low: float, unflagged: bool, least: int
) -> None:
    got = {(r["pre"], r["post"]): r for r in measured.sql(f"SELECT * FROM connections({call})").to_pylist()}
    want = {}
    for edge, synapses in edges.items():
        fit = [s for s in synapses if low == 0 or (s["quality"] is not None and s["quality"] >= low)]
        fit = [s for s in fit if not (unflagged and s["flagged"])]
        if len(fit) >= least:
            confidence = sum(s["confidence"] for s in fit) / len(fit)
            want[edge] = (len(fit), len(synapses) - len(fit), sum(s["size_vx"] for s in fit), pytest.approx(confidence))
    told = {e: (r["synapses"], r["left_out"], r["size_vx"], r["confidence"]) for e, r in got.items()}
    assert told == want
    assert not low or any(left for _, left, *_ in want.values())


def test_weighted_connections(measured: Database, edges: dict[tuple[int, int], list[Row]]) -> None:
    """Means and variances from the sums over all numbers of misses, not from their closed form."""
    model = {r["term"]: r["value"] for r in measured.fetch("SELECT * FROM quality_model")}
    got = {(r["pre"], r["post"]): r for r in measured.sql("SELECT * FROM weighted_connections()").to_pylist()}
    for edge, synapses in edges.items():
        expected = mean = variance = 0.0
        for s in synapses:
            d = max(min(s["worst_dev"] if s["worst_dev"] is not None else 0, 0), -model["deep"])
            odds = model["p_true_intercept"] + model["p_true_confidence"] * (s["confidence"] - model["centre"])
            p = 1 / (1 + math.exp(-(odds + model["p_true_deviation"] * d)))
            r = 1 / (1 + math.exp(-(model["p_found_intercept"] + model["p_found_deviation"] * d)))
            chance = [(0, 1 - p), *((n, p * r * (1 - r) ** (n - 1)) for n in range(1, 2000))]
            first = sum(n * c for n, c in chance)
            expected, mean = expected + p, mean + first
            variance += sum(n * n * c for n, c in chance) - first**2
        row = got.pop(edge)
        assert (row["synapses"], row["expected"]) == (len(synapses), pytest.approx(expected))
        assert row["estimate"] == pytest.approx(mean)
        half = 1.96 * math.sqrt(variance)
        assert (row["low"], row["high"]) == (pytest.approx(max(mean - half, 0)), pytest.approx(mean + half))
    assert not got
    assert measured.sql("SELECT * FROM weighted_connections(min_synapses => 1000)").num_rows == 0


def test_all_that_was_measured_is_one_view(measured: Database, rows: dict[str, list[Row]]) -> None:
    got = measured.sql("SELECT * FROM quality").to_pylist()
    assert len(got) == len(rows["quality_raw"]) + len(rows["quality_volume"])
    assert {(r["stage"], r["tile"] is None) for r in got} >= {("ingest", False), ("align", True), ("score", True)}
    metrics = {r["name"]: r for r in measured.sql("SELECT * FROM metric").to_pylist()}
    assert list(metrics) == list(METRICS)
    assert (metrics["degree"]["level"], metrics["raw_noise"]["worse"]) == ("L5", "high")


@pytest.mark.parametrize("table", VIEWS, ids=lambda t: t.name)
def test_columns_are_as_declared(measured: Database, db: Database, table: Table) -> None:
    types = {"uint64": "uint64", "int64": "int64", "float64": "double", "bool": "bool", "string": "string"}
    for database in (measured, db):  # with the tables, and without
        rows = database.sql(f"SELECT * FROM {table.name}")
        assert [(f.name, str(f.type)) for f in rows.schema] == [(c.name, types[c.dtype]) for c in table.columns]
        assert database.describe(table.name)["column"].to_pylist() == rows.column_names


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_functions_are_described(measured: Database, name: str) -> None:
    rows = measured.sql(f"SELECT * FROM {name}()")
    assert rows.column_names == measured.describe(name)["column"].to_pylist()


@pytest.fixture(scope="module")
def unmeasured(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An older project: no stage has measured anything."""
    root = tmp_path_factory.mktemp("older") / "project"
    shutil.copytree(project, root, ignore=shutil.ignore_patterns("measure_*", "flag"))
    with open_database(root, timeout_s=60) as opened:
        yield opened


def test_what_was_not_measured_is_null(unmeasured: Database, measured: Database) -> None:
    rows = unmeasured.sql("SELECT quality, worst_metric, flags, flagged, raw_sharpness FROM synapse_quality")
    assert rows.num_rows == 300
    assert all(rows[c].null_count == 300 for c in rows.column_names)
    edges = unmeasured.sql("SELECT * FROM connection_quality").to_pylist()
    assert {r["measured"] for r in edges} == {0}
    assert {(r["quality_mean"], r["flags"], r["synapses_flagged"]) for r in edges} == {(None, None, None)}
    count = "SELECT pre, post, synapses FROM connections() ORDER BY ALL"
    assert unmeasured.sql(count) == measured.sql(count)


@pytest.mark.parametrize(
    ("sql", "says"),
    [
        ("SELECT * FROM connections(min_quality => 0.5)", "nothing was measured in this project"),
        ("SELECT * FROM connections(exclude_flagged => true)", "no table `flag` in this project: run `dvc repro flag`"),
        ("SELECT * FROM weighted_connections()", "run `dvc repro measure_raw measure_volume`"),
        ("SELECT * FROM connections(min_quality => 1.5)", "min_quality: wanted a number from 0 to 1, got 1.5"),
        ("SELECT * FROM connections(min_qualty => 0.5)", "wanted connections(min_quality => 0, exclude_flagged"),
        ("SELECT qualty FROM synapse_quality", "did you mean 'quality'"),
    ],
)
def test_a_condition_that_cannot_be_met_says_why(unmeasured: Database, sql: str, says: str) -> None:
    with pytest.raises(QueryError) as e:
        unmeasured.sql(sql)
    assert says in str(e.value)
    assert "Traceback" not in str(e.value)


def test_an_imported_list_has_connections_without_quality(tmp_path: Path) -> None:
    (tmp_path / "data" / "listing").mkdir(parents=True)
    _write(tmp_path, "graph", IMPORTED_CONNECTION, [{"unit": ONCE, "pre": 1, "post": 2, "synapses": 3}])
    with open_database(tmp_path) as listed:
        (row,) = listed.sql("SELECT * FROM connections()").to_pylist()
        assert (row["pre"], row["post"], row["synapses"], row["quality_mean"]) == (1, 2, 3, None)
        assert listed.sql("SELECT measured FROM connection_quality").to_pylist() == [{"measured": 0}]
        assert listed.sql("SELECT * FROM connections(min_synapses => 4)").num_rows == 0
        for call in ("connections(0.5)", "connections(exclude_flagged => true)", "weighted_connections()"):
            with pytest.raises(QueryError, match="imported as a list has no images"):
                listed.sql(f"SELECT * FROM {call}")


def test_without_a_graph_the_functions_name_the_stage(tmp_path: Path) -> None:
    with open_database(tmp_path) as nothing, pytest.raises(QueryError, match="stage graph has not been run"):
        nothing.sql("SELECT * FROM connections()")


def test_another_revision_has_its_own_quality(unmeasured: Database, project: Path) -> None:
    with open_database(unmeasured.project, also={"old": Other(project, "v1")}) as both:
        (row,) = both.fetch(
            "SELECT (SELECT count(quality) FROM synapse_quality) AS new, (SELECT count(quality) FROM "
            "old.synapse_quality) AS old, (SELECT count(*) FROM old.connections(min_quality => 0.1)) AS edges"
        )
        assert (row["new"], row["old"] > 200, row["edges"]) == (0, True, 12)
        with pytest.raises(QueryError, match="nothing was measured"):
            both.sql("SELECT * FROM connections(min_quality => 0.1)")


def test_a_trace_tells_the_quality_of_the_place(tmp_path: Path, tiny: Path) -> None:
    root = tmp_path / "project"
    shutil.copytree(tiny, root)
    box = _box((0.0, 0.0, 0.0), (80.0, 960.0, 960.0))
    _write(root, "measure_raw", QUALITY_RAW, [_measured("raw_sharpness", box, 0.5, 1.0, section=0, tile="t")])
    _write(root, "flag", FLAG, [{"unit": ONCE, "flag": "raw_sharpness/local/1", **box, "severity": "info"}])
    with open_database(root) as told, open_database(tiny) as plain:
        assert trace_synapse(told, s1).facts["flags"] == "raw_sharpness/local/1"
        assert "raw_sharpness/local/1" in to_dot(trace_synapse(told, s1))
        assert trace_synapse(plain, s1).facts["quality"] is None


def test_receipts_name_the_tables_that_were_read() -> None:
    read = normal_form("SELECT * FROM connections(min_quality => 0.5) JOIN old.weighted_connections() USING (pre)")
    assert {("main", "quality_raw"), ("main", "flag"), ("main", "link"), ("old", "synapse")} <= set(read.tables)


def test_named_queries_take_a_condition(measured: Database) -> None:
    free = run_query(measured, "strongest_connections", {"limit": 5}).to_pylist()
    assert free == run_query(measured, "strongest_connections", {"limit": 5, "min_quality": 0.0}).to_pylist()
    best = run_query(measured, "connections_by_quality", {"min_quality": "0.8", "limit": 100}).to_pylist()
    want = measured.fetch("SELECT pre, post, synapses FROM connections(min_quality => 0.8)")
    assert {(r["pre"], r["post"], r["synapses"]) for r in best} == {(r["pre"], r["post"], r["synapses"]) for r in want}
