"""The command `diagnose`: is a difference biology or an artefact."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from connectome_db.cli.asof import RevisionOption, open_at
from connectome_db.cli.console import OUT, ProjectOption, open_project, root_of


def diagnose(
    metric: Annotated[
        str | None, typer.Option(help="What differs, e.g. out_degree or synapse_density. Default: the wiring.")
    ] = None,
    region: Annotated[
        str | None,
        typer.Option(metavar="NAME|BOX", help="A region, centre, top-left, or z0,y0,x0,z1,y1,x1 in nm; else sought."),
    ] = None,
    reference: Annotated[str, typer.Option(metavar="NAME|BOX", help="What it is held against.")] = "rest",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write it as JSON; - prints it.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write it as a page with pictures.")] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the metrics, and do nothing else.")] = False,
    project: ProjectOption = None,
    rev: RevisionOption = None,
) -> None:
    """Say whether a difference is real, in which layer it enters, and what to do: biology or an artefact?

    Examples:

        connectome diagnose

        connectome diagnose --metric out_degree --region top-left --reference centre

        connectome diagnose --region corner --json diagnosis.json --html diagnosis.html
    """
    from connectome_db.diagnosis import told
    from connectome_db.diagnosis.diagnose import diagnose as look
    from connectome_db.regional.regions import regions

    if list_:
        OUT.print(told.metrics_table())
        return
    revision = open_at(root_of(project), rev)
    p = open_project(project)
    boxes = [(name, r.box_nm(p.voxel_nm)) for name, r in regions(p).items()]
    params = {name: values.model_dump() for name, values in p.params.items()}
    found = look(revision.root, metric=metric, region=region, reference=reference, params=params, regions=boxes)
    plain = told.to_json(found, p.dataset.name, revision.commit)
    text = json.dumps(plain, indent=1, ensure_ascii=False) + "\n"
    if json_file == Path("-"):
        sys.stdout.write(text)
    else:
        for part in told.report(found):
            OUT.print(part, highlight=False, soft_wrap=isinstance(part, str) or hasattr(part, "plain"))
        if json_file is not None:
            _write(json_file, text)
    if html is not None:
        from connectome_db.diagnosis.pages.diagnosis_page import diagnosis_page

        _write(html, diagnosis_page(plain, revision.root, revision))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".tmp")
    new.write_text(text, encoding="utf-8")
    new.replace(path)
    OUT.print(f"wrote {path}", highlight=False)


def register(app: typer.Typer) -> None:
    """Add this command."""
    app.command()(diagnose)
