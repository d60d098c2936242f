"""What is drawn is what the tables hold: values, places, widths and orders, read back from the figures."""

from __future__ import annotations

import shutil
from pathlib import Path

import networkx as nx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from matplotlib.collections import LineCollection
from matplotlib.patches import PathPatch

from connectome_db.errors import QueryError
from connectome_db.plots import about, places
from connectome_db.plots.against_null import rich_club, statistics
from connectome_db.plots.bars import bars, changes
from connectome_db.plots.choose import choice_of, picture_of
from connectome_db.plots.communities import communities
from connectome_db.plots.curves import binned, stability
from connectome_db.plots.degrees import ccdf, degrees
from connectome_db.plots.density import density
from connectome_db.plots.distribution import distribution, label_of
from connectome_db.plots.matrix import groups, matrix, of_rows
from connectome_db.plots.motifs import TRIADS, edges_of_motif, motif_table
from connectome_db.plots.neuron import neuron
from connectome_db.plots.paths import between, paths
from connectome_db.plots.picture import Picture
from connectome_db.plots.sankey import flow_of, sankey
from connectome_db.query import named
from connectome_db.query.database import Database, open_database
from tests.query.tiny_imported import A, B, C, D


def image_of(picture: Picture) -> np.ma.MaskedArray:
    return picture.figure.axes[0].images[0].get_array()


def labels(picture: Picture, axis: int = 0) -> list[str]:
    return [t.get_text() for t in picture.figure.axes[axis].get_yticklabels()]


def texts(picture: Picture) -> str:
    return " ".join(t.get_text() for ax in picture.figure.axes for t in ax.texts)


def test_a_title_says_dataset_version_and_filter(db: Database) -> None:
    picture = matrix(db, by="id", min_synapses=2)
    assert picture.about == "tiny worm · working tree · connections of at least 2 synapses · sorted by id"
    assert picture.title == "Connectivity matrix: 2 neurons, 2 connections, 5 synapses"
    assert {picture.title, picture.about} <= {t.get_text() for t in picture.figure.texts}


def test_a_matrix_holds_every_synapse_where_it_belongs(db: Database) -> None:
    picture = matrix(db, by="id")
    values, ids = image_of(picture).filled(0), sorted([A, B, C, D])
    assert labels(picture) == about.shortened([str(n) for n in ids])
    at = {n: k for k, n in enumerate(ids)}
    assert values[at[A], at[B]] == 2
    assert values[at[B], at[A]] == 3
    assert values[at[C], at[D]] == 1
    assert values.sum() == 8


def test_a_matrix_is_sorted_by_type_the_largest_first_and_unknown_last(db: Database) -> None:
    by_type = labels(matrix(db))
    assert by_type[:2] == about.shortened([str(A), str(B)])  # both PN, as many synapses: by id
    assert by_type[3] == about.shortened([str(D)])[0]
    assert "sorted by type" in matrix(db).about
    assert "community (Louvain, seed 3)" in matrix(db, by="community", seed=3).about
    with pytest.raises(QueryError, match="cannot be sorted by 'typ'; did you mean 'type'"):
        matrix(db, by="typ")
    with pytest.raises(QueryError, match="nothing to draw: there are no connections"):
        matrix(db, min_synapses=1000)


def test_a_project_without_types_is_sorted_otherwise(native: Database) -> None:
    assert "sorted by community" in matrix(native).about
    with pytest.raises(QueryError, match="no annotation that says their type; sort by one of community, size, id"):
        matrix(native, by="type")


def test_ids_above_two_to_the_53_are_told_apart() -> None:
    close = [2**60 + 1, 2**60 + 2]
    rows = pa.table({"pre": pa.array(close, pa.uint64()), "post": pa.array([5, 5], pa.uint64()), "synapses": [3, 4]})
    assert image_of(of_rows(rows)).filled(0).tolist() == [[3], [4]]
    drawn = paths(rows)
    assert {t for t in texts(drawn).split() if t.startswith("115")} == {str(n) for n in close}


def test_groups_add_up(db: Database) -> None:
    rows, kind = flow_of(db)
    assert kind == "type"
    values = image_of(groups(rows)).filled(0)
    assert values.sum() == 8
    assert {(r["source"], r["target"]): r["synapses"] for r in rows.to_pylist()} == {
        ("PN", "PN"): 5,
        ("PN", "KC"): 2,
        ("KC", "(none)"): 1,
    }


def test_bands_of_a_flow_are_as_wide_as_their_synapses() -> None:
    rows = pa.table({"source": ["a", "a", "b", None], "target": ["x", "y", "y", "y"], "synapses": [60, 20, 15, 5]})
    picture = sankey(rows)
    bands = [p.get_path().vertices for p in picture.figure.axes[0].patches if isinstance(p, PathPatch)]
    wide = np.array(sorted(float(v[7, 1] - v[0, 1]) for v in bands))
    assert np.allclose(wide / wide[0], [1, 3, 4, 12])
    assert "a  80 (80 %)" in texts(picture)
    assert "(none)  5 (5 %)" in texts(picture)
    assert "60, goes from a to x" in picture.says
    assert "(others)" in texts(sankey(rows, most=2))
    with pytest.raises(QueryError, match="two columns of text"):
        sankey(pa.table({"synapses": [1]}))


def test_degrees_are_complementary_sums(db: Database) -> None:
    x, share = ccdf(np.array([0.0, 1, 1, 4]))
    assert x.tolist() == [1, 4]
    assert share.tolist() == [0.75, 0.25]
    picture = degrees(db)
    out = picture.figure.axes[0].lines[0].get_xydata()
    assert out.tolist() == [[1, 0.75], [2, 0.5]]  # A and B have two partners, C one, D none
    counted = pa.table({"direction": ["out", "out"], "partners": [1, 4], "neurons": [3, 1]})
    assert degrees(counted).figure.axes[0].lines[0].get_xydata().tolist() == [[1, 1], [4, 0.25]]
    with pytest.raises(QueryError, match="needs partners_out"):
        degrees(pa.table({"a": [1]}))


def test_icons_of_triads_are_those_triads() -> None:
    for name in TRIADS:
        graph = nx.DiGraph()
        graph.add_nodes_from("ABC")
        graph.add_edges_from(edges_of_motif(name))
        assert nx.triad_type(graph) == name
    assert edges_of_motif("", "A -> B -> C") == [("A", "B"), ("B", "C")]
    assert set(edges_of_motif("", "A <-> B")) == {("A", "B"), ("B", "A")}
    assert edges_of_motif("x", "A>B B>C A>C") == [("A", "B"), ("B", "C"), ("A", "C")]


def test_a_motif_table_shows_counts_and_z() -> None:
    rows = pa.table(
        {"motif": ["030T", "030C"], "observed": [120, 3], "null_mean": [100.0, 9.0], "null_sd": [5.0, 2.0],
         "nulls": [20, 20], "seed": [7, 7]}
    )  # fmt: skip
    picture = motif_table(rows, "worm")
    assert picture.about == "worm · 20 random graphs, seed 7"
    assert picture.figure.axes[1].lines[0].get_xdata().tolist() == [120, 3]
    assert "+4.0" in texts(picture)
    assert "−3.0" in texts(picture)
    assert len(picture.figure.axes[0].patches) == 6  # two triangles of arrows
    assert len(motif_table(rows.select(["motif", "observed"])).figure.axes) == 2


def test_a_rich_club_and_statistics_show_their_null_models() -> None:
    null = {"null_mean": [0.1, 0.1], "null_sd": [0.01, 0.01]}
    club = rich_club(pa.table({"degree": [1, 2], "observed": [0.1, 0.3]} | null))
    assert club.figure.axes[1].lines[-1].get_ydata().tolist() == pytest.approx([1.0, 3.0])
    assert "is 3 times the null models" in club.says
    told = statistics(pa.table({"measure": ["clustering", "path_length"], "observed": [0.3, 2.0]} | null))
    assert "clustering 0.3 (null 0.1, z 20.0)" in told.says


def test_communities_show_what_stays_inside(db: Database) -> None:
    ids = pa.array([A, B, C, D], pa.uint64())
    edges = db.rows("SELECT pre, post, synapses FROM connection")
    picture = communities(pa.table({"neuron": ids, "community": [0, 0, 1, 1]}), edges=edges)
    share = picture.figure.axes[1].images[0].get_array().filled(0)
    assert share == pytest.approx(np.array([[500 / 7, 200 / 7], [0, 100]]))
    assert "75 % of their synapses stay inside" in picture.says


def test_a_density_counts_each_synapse_once_and_per_area(db: Database) -> None:
    cells = places.cells(db, cell_nm=200)
    assert sum(cells["synapses"].to_pylist()) == 5  # the sixth row of the list has no place
    picture = density(cells)
    mesh = picture.figure.axes[0].collections[0]
    per_um2 = mesh.get_array().filled(0)
    corners = mesh.get_coordinates()
    area = float(np.prod(corners[1, 1] - corners[0, 0]))
    assert per_um2.sum() * area == pytest.approx(5)
    starts = density(pa.table({"z0_nm": [0.0, 0.0], "y0_nm": [0.0, 100.0], "x0_nm": [0.0, 100.0], "synapses": [1, 2]}))
    assert starts.figure.axes[0].collections[0].get_coordinates().min() == pytest.approx(0)
    with pytest.raises(QueryError, match="needs a column z_nm"):
        density(pa.table({"x": [1]}))


def test_synapses_that_count_for_no_connection_are_not_drawn(native: Database, tmp_path: Path) -> None:
    root = shutil.copytree(native.project, tmp_path / "copy")
    path = root / "data" / "graph" / "link.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.set_column(rows.column_names.index("counted"), "counted", [[False, True, True, True]]), path)
    with open_database(root) as db:
        assert sum(places.cells(db, cell_nm=1e6)["synapses"].to_pylist()) == 3
        assert places.synapses(db, [A, B, C]).num_rows == 3


def test_a_neuron_stands_where_its_nodes_and_synapses_are(db: Database) -> None:
    picture = neuron(db, [A])
    ax = picture.figure.axes[0]
    lines = next(c for c in ax.collections if isinstance(c, LineCollection)).get_segments()
    assert sorted(line[0].tolist() for line in lines) == [[0.0, 0.1], [0.2, 0.1]]  # (x, y) in µm
    dots = [c.get_offsets().tolist() for c in ax.collections if not isinstance(c, LineCollection)]
    assert [0.08, 0.08] in dots[1]  # made: row 1 of the list, at y 10, x 10 voxels of 8 nm
    assert dots[0] == [[0.24, 0.72]]  # received: row 5
    wide = picture.figure.get_figwidth()
    scale = [np.ptp(a.get_xlim()) / a.get_position().width / wide for a in picture.figure.axes[:3]]
    assert np.allclose(scale, scale[0])
    assert picture.scene["groups"][0]["lines"][:6] == [0, 100, 0, 0, 0, 0]
    bare = neuron(db, [A], synapses=False).figure.axes[0].collections
    assert all(isinstance(c, LineCollection) or not len(c.get_offsets()) for c in bare)


def test_neurons_that_are_not_there_or_nowhere_are_refused(db: Database, native: Database) -> None:
    with pytest.raises(QueryError, match="no neuron 77"):
        neuron(db, [A, 77])
    with pytest.raises(QueryError, match="no skeleton and no synapse with a place"):
        neuron(db, [D])
    assert "objects" not in neuron(native, [A]).title
    assert neuron(native, [A, B]).figure.axes[0].patches  # the boxes of objects


def test_paths_lead_from_the_start_to_the_end(db: Database) -> None:
    rows = between(db, A, C, 2)
    found = set(zip(rows["pre"].to_pylist(), rows["post"].to_pylist(), strict=True))
    assert found == {(A, B), (B, C), (A, C)}
    picture = paths(rows, start=A, end=C)
    assert "3 neurons in 3 layers, 3 connections" in picture.says
    assert {t.get_text() for t in picture.figure.axes[0].texts} >= {"start", "1 step", "2 steps", "2"}
    with pytest.raises(QueryError, match=r"no path from \d+ to \d+ in 1 steps over connections of at least 2"):
        between(db, A, C, 1, 2)
    written = paths(pa.table({"path": [f"{A} > {B} > {C}"], "steps": [2]}))
    assert "3 neurons in 3 layers" in written.says
    stepped = paths(pa.table({"step": [0, 1], "neuron": pa.array([A, D], pa.uint64()), "synapses": [None, 4]}))
    assert "4" in texts(stepped).split()


def test_numbers_are_drawn_and_ids_are_not() -> None:
    rows = pa.table({"neuron": pa.array([1, 2, 3], pa.uint64()), "size_nm2": [1.0, 2.0, None]})
    picture = distribution(rows)
    assert picture.figure.axes[0].get_xlabel() == "size (nm²)"
    assert picture.figure.axes[0].get_title(loc="left") == "median 1.5, 1 unknown"
    assert sum(p.get_height() for p in picture.figure.axes[0].patches) == 2
    assert label_of("density_um3") == label_of("density_per_um3") == "density (µm⁻³)"
    assert label_of("volume_um3") == "volume (µm³)"
    with pytest.raises(QueryError, match="did you mean 'size_nm2'"):
        distribution(rows, column="size_nm")
    with pytest.raises(QueryError, match="ids are names, not numbers"):
        distribution(rows.select(["neuron"]))


def test_thresholds_bins_bars_and_changes() -> None:
    kept = stability(pa.table({"min_synapses": [1, 2], "connections_share": [1.0, 0.4]}))
    assert kept.figure.axes[0].lines[0].get_ydata().tolist() == [100, 40]
    rows = pa.table({"what": ["connection"] * 2, "at_least": [1, 2], "below": [2, 4], "count": [9, 3]})
    assert [p.get_width() for p in binned(rows).figure.axes[0].patches] == [1, 2]
    named_bars = bars(pa.table({"roi": ["EB", "FB"], "synapses": [5, 2]}))
    assert labels(named_bars) == ["EB", "FB"]
    assert [p.get_width() for p in named_bars.figure.axes[0].patches] == [5, 2]
    differ = changes(pa.table({"synapses_a": [0, 3], "synapses_b": [2, 0], "what": ["new", "gone"]}))
    assert differ.says == "1 new, 1 gone, 0 stronger, 0 weaker."


WANTED = {
    "motif_counts": "motif table",
    "degree_distribution": "degree distribution",
    "strength_distribution": "histogram in bins",
    "connection_matrix": "matrix of groups",
    "adjacency": "matrix of neurons",
    "strongest_connections": "matrix of neurons",
    "synapse_density": "map of synapses",
    "synapses_in_box": "map of synapses",
    "shortest_path": "diagram of paths",
    "weighted_path": "diagram of paths",
    "all_paths": "diagram of paths",
    "stability_by_synapses": "curve over a threshold",
    "version_comparison": "connections before and after",
    "completeness_by_type": "bars",
    "synapses_by_region": "bars",
    "stage_runs": None,
    "reach": None,
}


def test_the_right_picture_is_chosen_for_a_query() -> None:
    queries = named.list_queries()
    for name, wanted in WANTED.items():
        found = choice_of(queries[name].columns, name)
        assert (found[0] if found else None) == wanted, name


def test_what_was_chosen_is_said(db: Database) -> None:
    rows = named.run_query(db, "connection_matrix", {"kind": "type"})
    assert (
        picture_of(rows, "", "connection_matrix")[1]
        == "matrix of groups, because the query is called connection_matrix"
    )
    rows = db.sql("SELECT pre, post, synapses FROM connection")
    assert picture_of(rows)[1] == "matrix of neurons, because the rows have pre, post, synapses"
    assert "fit no other picture" in picture_of(rows.select(["synapses"]))[1]
    with pytest.raises(QueryError, match="nothing to draw"):
        picture_of(rows.slice(0, 0))
