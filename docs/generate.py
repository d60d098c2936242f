"""Write docs/reference/ from the code: tables, parameters, commands, queries, stages, models.

python docs/generate.py            write the pages that are not current
python docs/generate.py --check    only say which are not (exit code 1)
"""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
from pydantic import BaseModel

from connectome_db import codedigest
from connectome_db.cli.main import app
from connectome_db.config import Dataset, Launch, RegionSpec
from connectome_db.lists.specs import AnnotationList, SkeletonFolder, SynapseList
from connectome_db.networks import registry
from connectome_db.prepare import code_roots
from connectome_db.query import reference
from connectome_db.schema.all import FLOODED, SORTED, TABLES
from connectome_db.schema.all import IMPORTED as MADE_ELSEWHERE
from connectome_db.schema.function import Function
from connectome_db.schema.graph_functions import GRAPH_FUNCTIONS
from connectome_db.schema.provenance import PROVENANCE
from connectome_db.schema.quality_views import FUNCTIONS, VIEWS
from connectome_db.spec import RAW, AnyStage, Table, Volume
from connectome_db.stages import imported
from connectome_db.stages.flood import STAGE as FLOOD
from connectome_db.stages.pipeline import STAGES
from connectome_db.stages.resegment import STAGE as RESEGMENT

IMPORTED = {
    "dataset.synapses": SynapseList,
    "dataset.annotations (a list of these)": AnnotationList,
    "dataset.skeletons": SkeletonFolder,
}
FOLDER = Path(__file__).resolve().parent / "reference"
NOTE = "<!-- Written by docs/generate.py from the code. Change the code, then run it again. -->\n"
KINDS = {"grid": "blocks", "sections": "sections", "pairs": "pairs", "faces": "faces", "once": "once"}
UNITS = {
    "blocks": "one per block of the volume",
    "sections": "one per section",
    "pairs": "one per pair of sections",
    "faces": "one per face between two neighbouring blocks",
    "once": "one for the whole dataset",
}
AUTHOR = r"[A-Z][\w'’-]+"
CITATION = re.compile(
    rf"(?P<who>{AUTHOR}(?:(?:, {AUTHOR})*,? (?:and|&) {AUTHOR}| et al\.)?) \(?(?P<year>(?:19|20)\d\d)\b"
    r"(?:\)?, (?:doi:)?(?P<doi>arXiv:[\d.]+\d|10\.\d{4}/[\w./-]*\w))?"
)


def cell(text: object) -> str:
    """Text that fits in a cell of a Markdown table."""
    return " ".join(str(text).split()).replace("|", "\\|")


def table(heads: tuple[str, ...], rows: list[tuple[object, ...]]) -> str:
    """A Markdown table."""
    lines = [f"| {' | '.join(heads)} |", f"|{' --- |' * len(heads)}"]
    lines += [f"| {' | '.join(cell(v) for v in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


# Tables -------------------------------------------------------------------------------------------------------------


def _table(t: Table, level: str, *, unit: bool) -> str:
    rows: list[tuple[object, ...]] = [("`unit`", "uint64", "", "Unit (or section) that made the row.")] if unit else []
    for c in t.columns:
        to = f" Refers to `{t.foreign[c.name]}`." if c.name in t.foreign else ""
        maybe = " May be null." if c.nullable else ""
        rows.append((f"`{c.name}`", c.dtype, c.unit, f"{c.doc}{to}{maybe}"))
    key = ", ".join(f"`{k}`" for k in t.key)
    columns = table(("column", "type", "unit", "meaning"), rows)
    return f"{level} {t.name}\n\n{t.doc} Key: {key}.\n\n{columns}"


def _calls(functions: Iterable[Function]) -> str:
    rows: list[tuple[object, ...]] = []
    for f in functions:
        columns = ", ".join(f"`{c.name}`" for c in f.table.columns)
        rows.append((f"`{f.usage}`", f"list of ({columns})" if f.value else columns, f.table.doc))
    return table(("call", "columns", "rows"), rows)


def tables() -> str:
    """Every table and every column."""
    parts = [
        "# Tables\n",
        NOTE,
        "Every table is one DuckDB view: `connectome tables` lists those that are there, `connectome sql` reads them.\n"
        "Coordinates are voxels of the aligned volume, (z, y, x), unless the column says otherwise. Ids are uint64.\n",
    ]
    for stage, made in FLOODED.items():
        parts.append(f"## Made by {stage}\n")
        parts += [_table(t, "###", unit=True) for t in made]
    parts.append(
        "## Other orders\n\n"
        "The rows of large tables lie in other orders too, so that a question by the other side, or by place, reads\n"
        "little. See [Physical design](../physical-design.md). Columns are those of the table.\n"
    )
    parts.append(table(("table", "rows"), [(f"`{t.name}`", t.doc) for t in SORTED.values()]))
    parts.append(
        "## Made from imported lists\n\n"
        "A connectome that was made elsewhere has `neuron` and `connection` with the columns above, and `synapse` and\n"
        "`link` as views of `listed_synapse`; what the lists do not say is null there. It also has these tables.\n"
    )
    parts += [_table(t, "###", unit=True) for made in MADE_ELSEWHERE.values() for t in made if t.name not in TABLES]
    parts.append("## Provenance\n")
    parts.append("These views gather the records of all stages; see [provenance](../provenance.md).\n")
    parts += [_table(t, "###", unit=False) for t in PROVENANCE]
    parts.append(
        "## Quality\n\n"
        "Views that join what was measured to synapses and connections by their place, and two functions for\n"
        "`FROM`. See [Quality in queries](../quality-in-queries.md).\n"
    )
    parts += [_table(t, "###", unit=False) for t in VIEWS]
    parts += [_table(f.table, "###", unit=False) for f in FUNCTIONS.values()]
    parts.append(
        "## Functions of the graph\n\n"
        "They give what `connection` holds, by way of its arrays: in a large graph much faster than the table.\n"
        "Those that give a list stand in `SELECT`, the others in `FROM`. See\n"
        "[Partners in SQL](../queries.md#partners-in-sql).\n"
    )
    parts.append(_calls(GRAPH_FUNCTIONS.values()))
    return "\n".join(parts)


# Parameters ---------------------------------------------------------------------------------------------------------


def type_name(annotation: Any) -> str:
    """A type as a person writes it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is typing.Literal:
        return " or ".join(f"`{a}`" for a in arguments)
    if origin in {typing.Union, types.UnionType}:
        return " or ".join("null" if a is type(None) else type_name(a) for a in arguments)
    if origin in {dict, tuple}:
        return _container(origin, arguments)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"{annotation.__name__}, below"
    return {"str": "text", "bool": "true or false", "int": "integer", "float": "number"}.get(
        getattr(annotation, "__name__", ""), str(annotation)
    )


def _container(origin: type, arguments: tuple[Any, ...]) -> str:
    if origin is dict:
        return f"{type_name(arguments[0])} to {type_name(arguments[1])}"
    if len(set(map(type_name, arguments))) == 1:
        return f"{len(arguments)} × {type_name(arguments[0])}"
    return "list of " + type_name(arguments[0]) if Ellipsis in arguments else "list"


def _default(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "[" + ", ".join(_default(v) for v in value) + "]"
    return str(value) if value != "" else "empty"


def _model(model: type[BaseModel]) -> str:
    rows: list[tuple[object, ...]] = []
    for name, field in model.model_fields.items():
        default = "needed" if field.is_required() else _default(field.default)
        rows.append((f"`{name}`", type_name(field.annotation), default, field.description or ""))
    return table(("name", "type", "default", "meaning"), rows) if rows else "None.\n"


def parameters() -> str:
    """Every key of params.yaml and launch.yaml."""
    parts = [
        "# Parameters\n",
        NOTE,
        "`params.yaml` holds what decides the result, `launch.yaml` what does not. An unknown name in either is an\n"
        "error that names the nearest valid one. Axes are (z, y, x); names end in their unit.\n",
        "## params.yaml: dataset\n",
        _model(Dataset),
        "## params.yaml: what an imported connectome is read from\n",
        "See [A connectome made elsewhere](../imported.md). `connectome import` writes these.\n",
        *(f"### {where}\n\n{model.__doc__}\n\n{_model(model)}" for where, model in IMPORTED.items()),
        *(f"### {s.name} (imported)\n\n{s.summary}\n\n{_model(s.params)}" for s in imported.STAGES),
        "## params.yaml: regions and overrides\n",
        "`regions` maps a name to a box (z0, y0, x0, z1, y1, x1), half-open. Boxes in nm are rounded outward to whole\n"
        "voxels. `overrides` maps a stage to regions, and each to the parameters that hold there; see\n"
        "[regions and overrides](../concepts.md#regions-and-overrides).\n",
        _model(RegionSpec),
    ]
    for stage in (*STAGES, FLOOD, RESEGMENT):
        parts += [f"## params.yaml: {stage.name}\n", f"{stage.summary}\n", _model(stage.params)]
    parts += ["## launch.yaml\n", "Not hashed: nothing here can change a result.\n", _model(Launch)]
    return "\n".join(parts)


# Commands -----------------------------------------------------------------------------------------------------------


def commands(command: Any = None, path: tuple[str, ...] = ("connectome",)) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command of the program that does something, with its path."""
    command = command or typer.main.get_command(app)
    below: Mapping[str, Any] = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, child in below.items():
        yield from commands(child, (*path, name))


def _prose(text: str) -> str:
    """Help text as Markdown; examples become code."""
    text = inspect.cleandoc(text).replace("\b", "")
    text = re.sub(r"\bExample: (connectome .+)$", r"\n\nExample:\n\n\1", text, flags=re.MULTILINE)
    text = re.sub(r"\. `(connectome .+)`$", r".\n\nExample:\n\n\1", text, flags=re.MULTILINE)
    out: list[str] = []
    for paragraph in re.split(r"\n\s*\n", text):
        if paragraph.strip().startswith("connectome "):
            line = re.sub(r"\s+\(then: .*\)$", "", paragraph.strip())
            if out and out[-1].endswith("\n```"):
                out[-1] = out[-1].removesuffix("```") + f"{line}\n```"
            else:
                out.append(f"```console\n{line}\n```")
        elif paragraph.strip():
            out.append(" ".join(paragraph.split()))
    return "\n\n".join(out)


def _command(path: tuple[str, ...], command: Any) -> str:
    usage = [" ".join(path)]
    arguments: list[tuple[object, ...]] = []
    options: list[tuple[object, ...]] = []
    for p in command.params:
        wanted = "" if p.default is None or p.required or callable(p.default) else _default(p.default)
        if p.param_type_name == "argument":
            label = (p.metavar or str(p.name)).upper()
            usage.append((label if p.required else f"[{label}]") + ("…" if p.nargs == -1 else ""))
            arguments.append((f"`{label}`", wanted, p.help or ""))
        elif p.name != "help":
            names = [*p.opts, *p.secondary_opts]
            options.append((" ".join(f"`{n}`" for n in names), wanted, p.help or ""))
    parts = [f"## {' '.join(path)}\n", _prose(command.help or "") + "\n"]
    parts.append(f"Usage: `{' '.join(usage)}{' [OPTIONS]' if options else ''}`\n")
    if arguments:
        parts.append(table(("argument", "default", "meaning"), arguments))
    if options:
        parts.append(table(("option", "default", "meaning"), options))
    return "\n".join(parts)


def cli() -> str:
    """Every command with its arguments and options."""
    parts = [
        "# Commands\n",
        NOTE,
        "A command finds its project by looking for `params.yaml` in the working directory and above it. An error\n"
        "that you can mend prints what was wanted, what came, where, and what to do, and ends with exit code 1.\n",
    ]
    parts += [_command(path, command) for path, command in commands()]
    return "\n".join(parts)


def queries() -> str:
    """Every named query of the package."""
    return f"# Queries\n\n{NOTE}\n{reference.markdown()}"


# Stages -------------------------------------------------------------------------------------------------------------


def kind_of(stage: AnyStage) -> str:
    """The kind of units a stage's plan makes, read from its source."""
    source = inspect.getsource(stage.plan)
    kinds = {KINDS[k] for k in re.findall(r"plans\.(grid|sections|pairs|faces|once)\(", source)}
    if len(kinds) != 1:
        raise SystemExit(f"{stage.name}: cannot tell the kind of its units from its plan: {sorted(kinds)}")
    return kinds.pop()


def _docstring(name: str) -> str:
    return inspect.getdoc(importlib.import_module(f"connectome_db.{name}")) or ""


def _every_docstring(name: str) -> Iterator[str]:
    module = importlib.import_module(f"connectome_db.{name}")
    yield inspect.getdoc(module) or ""
    for _, member in sorted(vars(module).items()):
        own = getattr(member, "__module__", "") == module.__name__
        if own and (inspect.isfunction(member) or inspect.isclass(member)):
            yield inspect.getdoc(member) or ""


def sources_in(name: str) -> list[str]:
    """The publications that the docstrings of a module name, in order, each once."""
    found: list[str] = []
    for text in _every_docstring(name):
        for match in CITATION.finditer(" ".join(text.split())):
            words = f"{match['who']} {match['year']}" + (f", {match['doi']}" if match["doi"] else "")
            if not any(f.startswith(words) for f in found):
                found.append(words)
    return found


def _paragraphs(text: str) -> str:
    """A docstring as Markdown: indented drawings stay as they are."""
    out = []
    for paragraph in re.split(r"\n\s*\n", text):
        out.append(f"```text\n{paragraph}\n```" if paragraph.startswith(" ") else " ".join(paragraph.split()))
    return "\n\n".join(out)


def _stage(heading: str, stage: AnyStage) -> str:
    module = stage.compute.__module__.removeprefix("connectome_db.")
    text = re.sub(rf"^{stage.name}: ", "", _docstring(module))
    kind = kind_of(stage)
    parts = [f"## {heading}\n", f"*{stage.summary}*\n", _paragraphs(text[:1].upper() + text[1:]) + "\n"]
    parts.append(f"**Units**: {kind}, {UNITS[kind]}.\n")
    reads = [f"`{n}`" + (" (the tiles of the manifest)" if n == RAW else "") for n in stage.inputs]
    parts.append(f"**Reads**: {', '.join(reads)}.\n")
    if stage.network:
        parts.append(f"**Network**: a model for `{stage.network}`, named by the parameter `model`.\n")
    rows: list[tuple[object, ...]] = []
    for o in stage.outputs:
        if isinstance(o, Volume):
            rows.append((f"`{stage.name}.{o.name}`", f"volume, {o.dtype}", o.doc))
        else:
            rows.append((f"[`{stage.name}.{o.name}`](tables.md#{o.name})", "table", o.table.doc))
    parts += ["**Makes**\n", table(("output", "what", "meaning"), rows)]
    methods = []
    for m in codedigest.closure(module, *code_roots(stage)[0][1:]):
        if m.name == module or m.name.startswith(("kernels.", "networks.")):
            sources = sources_in(m.name)
            first = "" if m.name == module else " ".join(_docstring(m.name).split("\n\n")[0].split()).rstrip(".:") + "."
            told = f" Sources: {'; '.join(sources)}." if sources else ""
            if first or told:
                methods.append(f"- `{m.name}`: {first}{told}".replace(":  ", ": "))
    if methods:
        parts += ["**Methods**, from the code that its digest covers\n", "\n".join(methods) + "\n"]
    parts.append(f"[Parameters](parameters.md#paramsyaml-{stage.name})\n")
    return "\n".join(parts)


def stages() -> str:
    """Every stage: what it does, on what, with which method."""
    parts = [
        "# Stages\n",
        NOTE,
        "Evidence comes first, then the decision made on it. A stage maps over units; a global solve is a stage of\n"
        "its own, so that changing a threshold redoes no evidence. What follows is taken from the code.\n",
    ]
    told = [_stage(f"{i} {s.name}", s) for i, s in enumerate(STAGES, start=1)]
    told += [_stage(f"{s.name}, in projects with a flood-filling network", s) for s in (FLOOD, RESEGMENT)]
    return "\n".join([*parts, *told])


# Models -------------------------------------------------------------------------------------------------------------


def _score(scores: Mapping[str, Any]) -> str:
    """The held-out scores of one volume that a reader compares models by."""
    told = {
        "adapted Rand error": scores.get("adapted_rand_error"),
        "VI split": scores.get("voi_false_splits"),
        "VI merge": scores.get("voi_false_merges"),
        "polarity right": scores.get("polarity_right"),
    }
    best = scores.get("best")
    if best:
        at = f"at threshold {best['threshold']:g}"
        told |= {f"F1 {at}": best.get("f1"), "precision": best.get("precision"), "recall": best.get("recall")}
    for row in [] if best else scores.get("by_threshold", []):
        told[f"recall at {row['threshold']:g} ({row['components']} components)"] = row["recall"]
    return f"{scores['name']}: " + ", ".join(f"{name} {value:g}" for name, value in told.items() if value is not None)


def models() -> str:
    """The models that come with the package, as their cards say."""
    rows: list[tuple[object, ...]] = []
    scores = []
    for folder in sorted(p.parent for p in registry.BUNDLED.glob("*/card.json")):
        card = registry.read_card(folder)
        voxel = " × ".join(f"{v:g}" for v in card["voxel_nm"])
        rows.append(
            (f"`{registry.model_id(folder)}`", card["task"], voxel, f"{card['parameters_count']:,}", card["source"])
        )
        scores += [f"- `{folder.name}`, {_score(s)}." for s in card["scores_on_held_out_data"]]
    parts = [
        "# Models\n",
        NOTE,
        "Models that come with the package. See [models and training](../models.md).\n",
        table(("model ID", "task", "voxel z × y × x, nm", "weights", "training data"), rows),
        "## Scores on held-out data\n",
        "Measured after training, on data that no weight was fitted to. Affinity: with a plain watershed and the\n"
        "merge threshold of those tried that scores best there: no score of the pipeline. Cleft: a synapse is\n"
        "found where a component of the predicted clefts lies on it. Flood: bodies alone, of all voxels. The cards\n"
        "hold more.\n",
        "\n".join(scores),
    ]
    return "\n".join(parts)


PAGES: Mapping[str, Callable[[], str]] = {
    "models.md": models,
    "tables.md": tables,
    "parameters.md": parameters,
    "cli.md": cli,
    "queries.md": queries,
    "stages.md": stages,
}


def stale(folder: Path = FOLDER) -> dict[str, str]:
    """Pages whose committed text is not what the code says -> the right text."""
    texts = {name: page().rstrip() + "\n" for name, page in PAGES.items()}
    return {n: t for n, t in texts.items() if not (folder / n).is_file() or (folder / n).read_text("utf-8") != t}


def main() -> int:
    """Write or check the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing")
    check = parser.parse_args().check
    old = stale()
    FOLDER.mkdir(exist_ok=True)
    for name, text in old.items():
        if not check:
            (FOLDER / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"docs/reference/{name}: {'is not current' if check else 'written'}\n")
    return 1 if old and check else 0


if __name__ == "__main__":
    sys.exit(main())
