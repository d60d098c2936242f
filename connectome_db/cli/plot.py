"""Commands that draw: the group `plot`, and the option --plot of commands that answer."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connectome_db.cli.asof import RevisionOption, tables_at
from connectome_db.cli.console import ERR, ProjectOption, root_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from connectome_db.plots.picture import Picture

plot_app = typer.Typer(no_args_is_help=True, help="Pictures of a connectome: .png, .svg, or .html of one file.")
OutOption = Annotated[Path, typer.Option("--out", "-o", metavar="FILE", help="File to write: .png, .svg or .html.")]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE", help="Also draw the rows: .png, .svg or .html. Says which picture it is."),
]
LeastOption = Annotated[int, typer.Option("--min-synapses", min=1, help="Leave out weaker connections.")]
KindOption = Annotated[
    str | None, typer.Option("--by", help="Annotation whose values are the groups; default: the neurons' type.")
]


def check_plot(path: Path | None) -> None:
    """Refuse a file name that no picture can have, before anything is asked."""
    if path is not None:
        from connectome_db.plots.picture import check_path

        check_path(path)


def plot_rows(
    rows: pa.Table, path: Path | None, root: Path, revisions: Sequence[str] | None, asked: str, name: str = ""
) -> None:
    """Draw the rows of an answer with the picture that suits them; says on stderr which.

    `asked` is the question in short, for the title; `name` that of the query, "" for SQL.
    """
    if path is None:
        return
    from connectome_db.plots.about import told
    from connectome_db.plots.choose import picture_of
    from connectome_db.plots.picture import save

    about = told(root, ", ".join(revisions or []) or None, asked if len(asked) <= 90 else f"{asked[:89]}…")
    picture, said = picture_of(rows, about, name)
    save(picture, path)
    ERR.print(f"[dim]{path}: {said}[/]", highlight=False, soft_wrap=True)


def _write(picture: Picture, path: Path) -> None:
    from connectome_db.plots.picture import save

    sys.stdout.write(f"{save(picture, path)}\n")
    ERR.print(f"[dim]{picture.says}[/]", highlight=False, markup=True, soft_wrap=True)


@plot_app.command("matrix")
def plot_matrix(
    out: OutOption,
    by: Annotated[
        str, typer.Option("--by", help="How neurons are sorted: auto, type, community, size, id, or an annotation.")
    ] = "auto",
    min_synapses: LeastOption = 1,
    seed: Annotated[int, typer.Option(help="Seed of the search for communities.")] = 1,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """The connectivity matrix, sorted by type, community or size. `connectome plot matrix --out matrix.png`"""
    from connectome_db.plots.matrix import matrix

    check_plot(out)
    with tables_at(root_of(project), rev) as db:
        _write(matrix(db, by=by, min_synapses=min_synapses, seed=seed), out)


@plot_app.command("degrees")
def plot_degrees(out: OutOption, project: ProjectOption = None, rev: RevisionOption = None) -> None:
    """Degrees and strengths of inputs and outputs, log-log. `connectome plot degrees --out degrees.png`"""
    from connectome_db.plots.degrees import degrees

    check_plot(out)
    with tables_at(root_of(project), rev) as db:
        _write(degrees(db), out)


@plot_app.command("motifs")
def plot_motifs(
    out: OutOption,
    nulls: Annotated[int, typer.Option(min=0, help="Random graphs to compare with; 0: none.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the random graphs.")] = 0,
    min_synapses: LeastOption = 1,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Motifs of three neurons against graphs of the same degrees. `connectome plot motifs --out motifs.png`"""
    from connectome_db.plots.about import about_of, at_least
    from connectome_db.plots.motifs import motif_table
    from connectome_db.query.graph.motifs import triads
    from connectome_db.query.graph.nulls import Nulls
    from connectome_db.query.graph.wiring import read_wiring

    check_plot(out)
    with tables_at(root_of(project), rev) as db:
        rows = triads(read_wiring(db, min_synapses=min_synapses), Nulls(nulls, seed=seed))
        _write(motif_table(rows, about_of(db, at_least(min_synapses))), out)


@plot_app.command("sankey")
def plot_sankey(
    out: OutOption,
    by: KindOption = None,
    groups: Annotated[int, typer.Option(min=2, max=40, help="Largest groups on either side; the rest are one.")] = 12,
    min_synapses: LeastOption = 1,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Flow of synapses from group to group of neurons. `connectome plot sankey --by class --out flow.png`"""
    from connectome_db.plots.about import about_of, at_least
    from connectome_db.plots.sankey import flow_of, sankey

    check_plot(out)
    with tables_at(root_of(project), rev) as db:
        rows, kind = flow_of(db, by, min_synapses=min_synapses)
        _write(sankey(rows, about_of(db, at_least(min_synapses), f"grouped by {kind}"), most=groups), out)


@plot_app.command("neuron")
def plot_neuron(
    neurons: Annotated[list[str], typer.Argument(help="Ids or names of neurons.")],
    out: OutOption,
    synapses: Annotated[bool, typer.Option("--synapses/--no-synapses", help="Draw their synapses.")] = True,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Skeletons and synapses in three views; in .html a model to turn. `connectome plot neuron ID --out n.html`"""
    from connectome_db.plots.neuron import neuron
    from connectome_db.plots.places import ids_of

    check_plot(out)
    with tables_at(root_of(project), rev) as db:
        _write(neuron(db, ids_of(db, neurons), synapses=synapses), out)


@plot_app.command("density")
def plot_density(
    out: OutOption,
    cell_nm: Annotated[
        float | None, typer.Option(min=1, help="Side of a cell, nm; default: 1/120 of the longest side.")
    ] = None,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Synapses per µm² seen along each axis. `connectome plot density --out density.png`"""
    from connectome_db.plots.about import about_of
    from connectome_db.plots.density import density
    from connectome_db.plots.places import cells

    check_plot(out)
    with tables_at(root_of(project), rev) as db:
        _write(density(cells(db, cell_nm=cell_nm), about_of(db)), out)


@plot_app.command("paths")
def plot_paths(
    source: Annotated[str, typer.Argument(metavar="FROM", help="Id or name of the neuron where paths start.")],
    out: OutOption,
    target: Annotated[str | None, typer.Option("--to", help="Where they end; default: whoever is reached.")] = None,
    steps: Annotated[int, typer.Option(min=1, max=8, help="Connections on a path, at most.")] = 2,
    min_synapses: LeastOption = 1,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Whom a neuron reaches step by step, or the paths between two. `connectome plot paths ID --to ID --out p.svg`"""
    from connectome_db.plots.about import about_of, at_least
    from connectome_db.plots.paths import between, names_in, paths
    from connectome_db.plots.places import ids_of

    check_plot(out)
    with tables_at(root_of(project), rev) as db:
        ends = ids_of(db, [source] if target is None else [source, target])
        rows = between(db, ends[0], None if target is None else ends[1], steps, min_synapses)
        title = f"From {source} in {steps} steps" if target is None else f"Paths from {source} to {target}"
        about = about_of(db, f"at most {steps} steps", at_least(min_synapses))
        end = None if target is None else ends[1]
        _write(paths(rows, about, names=names_in(db, rows), title=title, start=ends[0], end=end), out)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.add_typer(plot_app, name="plot")
