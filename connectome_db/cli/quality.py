"""The command that makes the page of a dataset's quality, and the note for its release."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connectome_db.cli.console import ERR, OUT, ProjectOption, open_project


def qa(
    out: Annotated[Path | None, typer.Option(help="The page; default: qa/report.html of the project.")] = None,
    release_note: Annotated[
        Path | None, typer.Option(help="The note for a methods section; default: qa/release-note.md of the project.")
    ] = None,
    rev: Annotated[str | None, typer.Option(help="A branch, tag or commit; default: the working tree.")] = None,
    project: ProjectOption = None,
) -> None:
    """One page (HTML, one file, works offline) on the quality of the whole dataset, and a note for its release.

    Of the working tree, the flags are also written to qa/flags.json: `connectome regions add NAME --from-flag FLAG`.

    Examples:

        connectome qa

        connectome qa --rev v1 --out v1.html --release-note v1.md
    """
    from connectome_db.diagnosis.pages import dataset_page, flag_list, measured
    from connectome_db.diagnosis.pages import release_note as note
    from connectome_db.diagnosis.pages.shares import shares
    from connectome_db.revisions import open_revision

    p = open_project(project)
    usual = dataset_page.default_paths(p.root)
    quality = measured.read(open_revision(p.root, rev))
    counted = shares(quality)
    written = [
        flag_list.write_text(out or usual[0], dataset_page.quality_page(p, quality, counted)),
        flag_list.write_text(release_note or usual[1], note.release_note(p.dataset.name, quality, counted)),
    ]
    if quality.flags is not None and quality.revision.commit is None:
        written.append(flag_list.write_flags(p.root, quality.flags))
    OUT.print(dataset_page.headline(quality), highlight=False, markup=False, soft_wrap=True)
    for path in written:
        OUT.print(str(path), highlight=False, markup=False, soft_wrap=True)
    if not quality.metrics:
        ERR.print("[yellow]note:[/] nothing was measured yet: `dvc repro` runs the stages that measure", soft_wrap=True)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(qa)
