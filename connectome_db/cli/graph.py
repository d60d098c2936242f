"""Commands that measure the graph: the group `graph`."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from connectome_db.cli.asof import RevisionOption, tables_at
from connectome_db.cli.console import ERR, OUT, ProjectOption, root_of, show
from connectome_db.cli.plot import PlotOption, check_plot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import pyarrow as pa

    from connectome_db.plots.picture import Picture
    from connectome_db.query.database import Database
    from connectome_db.query.graph.nulls import Nulls
    from connectome_db.query.graph.wiring import Wiring

graph_app = typer.Typer(no_args_is_help=True, help="Measures of the graph, against chance: motifs, rich club, …")
LeastOption = Annotated[int, typer.Option("--min-synapses", min=1, help="Leave out weaker connections.")]
NullsOption = Annotated[int, typer.Option("--nulls", min=0, help="Random graphs to compare with.")]
ModelOption = Annotated[
    Literal["degree", "spatial"],
    typer.Option("--null-model", help="degree keeps every neuron's partners, spatial also the lengths."),
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the random graphs and searches.")]
JsonOption = Annotated[bool, typer.Option("--json", help="All rows as JSON; ids are strings.")]
MethodOption = Annotated[
    Literal["louvain", "leiden"], typer.Option("--method", help="leiden is faster and needs the extra igraph.")
]


@contextmanager
def _graph(project: Path | None, rev: str | None, min_synapses: int) -> Iterator[tuple[Database, Wiring]]:
    from connectome_db.query.graph.wiring import read_wiring

    with tables_at(root_of(project), rev) as db:
        yield db, read_wiring(db, min_synapses=min_synapses)


def _chance(db: Database, wiring: Wiring, n: int, model: str, seed: int) -> Nulls:
    from connectome_db.query.graph.nulls import Nulls
    from connectome_db.query.graph.wiring import read_places

    return Nulls(n, model, seed, read_places(db, wiring) if model == "spatial" else None)


def _give(rows: pa.Table, as_json: bool, title: str = "", limit: int = 80) -> None:
    if not as_json:
        told = [
            c for c in ("nulls", "null_model", "seed") if c in rows.column_names and len(set(rows[c].to_pylist())) == 1
        ]
        show(rows.drop_columns([*told, *(["meaning"] if "motif" in rows.column_names else [])]), title, limit)
        if told:
            OUT.print(f"[dim]{' · '.join(f'{c} {rows[c][0].as_py()}' for c in told)}[/]", highlight=False)
        return
    wide = {f.name for f in rows.schema if str(f.type) == "uint64"}  # readers of JSON hold numbers as doubles
    plain = [{k: str(v) if k in wide and v is not None else v for k, v in r.items()} for r in rows.to_pylist()]
    sys.stdout.write(json.dumps(plain, indent=1) + "\n")


def _draw(path: Path | None, db: Database, min_synapses: int, draw: Callable[[str], Picture]) -> None:
    if path is None:
        return
    from connectome_db.plots.about import about_of, at_least
    from connectome_db.plots.picture import save

    picture = draw(about_of(db, at_least(min_synapses)))
    ERR.print(f"[dim]{save(picture, path)}: {picture.says}[/]", highlight=False, soft_wrap=True)


@graph_app.command("summary")
def summary(
    min_synapses: LeastOption = 1,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """What the graph is, in numbers: size, degrees, reciprocity, clustering, paths. `connectome graph summary`"""
    from connectome_db.query.graph import measures

    check_plot(plot)
    with _graph(project, rev, min_synapses) as (db, wiring):
        _give(measures.summary(wiring, seed=seed), as_json)
        if plot is not None:
            from connectome_db.plots.degrees import degrees

            _draw(plot, db, min_synapses, lambda about: degrees(measures.degrees(wiring), about))


@graph_app.command("motifs")
def motifs(
    pattern: Annotated[
        str | None, typer.Argument(help="A pattern in dotmotif's language, ; between its lines; none: all triads.")
    ] = None,
    min_synapses: LeastOption = 1,
    nulls: NullsOption = 20,
    model: ModelOption = "degree",
    seed: SeedOption = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Occurrences of a pattern to look for.")] = 1000,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Triads against random graphs; or where a pattern occurs.

    Examples:

        connectome graph motifs --nulls 100 --seed 1 --plot motifs.png

        connectome graph motifs "A -> B [synapses >= 10]; B -> C; C -> A" --limit 20
    """
    from connectome_db.errors import QueryError
    from connectome_db.query.graph import motifs as search

    check_plot(plot)
    with _graph(project, rev, min_synapses) as (db, wiring):
        if pattern is not None:
            if plot is not None:
                raise QueryError("--plot draws the table of all triads: leave out the pattern")
            from connectome_db.query.graph.networks import connectome_graph

            graph = connectome_graph(db, min_synapses=min_synapses)
            _give(search.find_motif(graph, pattern.replace(";", "\n"), limit=limit), as_json)
            return
        rows = search.triads(wiring, _chance(db, wiring, nulls, model, seed))
        _give(rows, as_json)
        if plot is not None:
            from connectome_db.plots.motifs import motif_table

            _draw(plot, db, min_synapses, lambda about: motif_table(rows, about))


@graph_app.command("rich-club")
def rich_club(
    min_synapses: LeastOption = 1,
    nulls: NullsOption = 100,
    model: ModelOption = "degree",
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Whether neurons with many partners prefer each other. `connectome graph rich-club --plot club.png`"""
    from connectome_db.query.graph import richclub

    check_plot(plot)
    with _graph(project, rev, min_synapses) as (db, wiring):
        rows = richclub.rich_club(wiring, _chance(db, wiring, nulls, model, seed))
        _give(rows, as_json)
        if plot is not None:
            from connectome_db.plots.against_null import rich_club as picture

            _draw(plot, db, min_synapses, lambda about: picture(rows, about))


@graph_app.command("communities")
def communities(
    method: MethodOption = "louvain",
    resolution: Annotated[float, typer.Option(min=0.0, help="Above 1: more and smaller communities.")] = 1.0,
    members: Annotated[bool, typer.Option("--members", help="A row per neuron instead of one per community.")] = False,
    nulls: NullsOption = 0,
    model: ModelOption = "degree",
    min_synapses: LeastOption = 1,
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Groups of neurons that are wired to each other; with --nulls, whether more than by chance.

    Examples:

        connectome graph communities --method leiden --seed 1 --plot communities.png

        connectome graph communities --nulls 20
    """
    from connectome_db.query.graph import communities as groups

    check_plot(plot)
    with _graph(project, rev, min_synapses) as (db, wiring):
        if nulls:
            chance = _chance(db, wiring, nulls, model, seed)
            _give(groups.modularity_against_chance(wiring, chance, method=method, resolution=resolution), as_json)
        found = groups.communities(wiring, method=method, resolution=resolution, seed=seed)
        if not nulls:
            _give(found if members else groups.describe(wiring, found), as_json)
        if plot is not None:
            from connectome_db.plots.communities import communities as picture

            edges = db.rows("SELECT pre, post, synapses FROM connection WHERE synapses >= $n", {"n": min_synapses})
            _draw(plot, db, min_synapses, lambda about: picture(found, about, edges=edges))


@graph_app.command("small-world")
def small_world(
    min_synapses: LeastOption = 1,
    nulls: NullsOption = 20,
    model: ModelOption = "degree",
    seed: SeedOption = 0,
    plot: PlotOption = None,
    as_json: JsonOption = False,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Clustering, path length, reciprocity, sigma against random graphs. `connectome graph small-world --nulls 20`"""
    from connectome_db.query.graph import measures

    check_plot(plot)
    with _graph(project, rev, min_synapses) as (db, wiring):
        rows = measures.small_world(wiring, _chance(db, wiring, nulls, model, seed))
        _give(rows, as_json)
        if plot is not None:
            from connectome_db.plots.against_null import statistics

            _draw(plot, db, min_synapses, lambda about: statistics(rows, about))


@graph_app.command("export")
def export(
    file: Annotated[Path, typer.Argument(help="File to write: .graphml, .gexf, .npz or .csv.")],
    min_synapses: LeastOption = 1,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """The graph as a file for Gephi, Cytoscape, igraph or NumPy. `connectome graph export larva.graphml`"""
    from connectome_db.query.graph import export as files

    with tables_at(root_of(project), rev) as db:
        sys.stdout.write(f"{files.export(db, file, min_synapses=min_synapses)}\n")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(graph_app, name="graph")
