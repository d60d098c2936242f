"""params.yaml for a new project: every parameter of every stage with its default and its meaning as a comment."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from connectome_db.config import Dataset
from connectome_db.lists.specs import Origin
from connectome_db.qa.settings import QaParams
from connectome_db.spec import AnyStage

LISTS = {"synapses", "annotations", "skeletons"}
"""What a connectome made elsewhere is imported from."""
HEADER = """What decides the result, and nothing else. Axes are (z, y, x); names carry their units.
Editing a value and running `dvc repro` recomputes the units it touches, and those that read them."""


def _plain(value: Any) -> Any:
    """Lists and dicts as YAML writes them on one line."""
    if isinstance(value, list | tuple):
        seq = CommentedSeq(_plain(v) for v in value)
        seq.fa.set_flow_style()
        return seq
    if isinstance(value, dict):
        entries = CommentedMap((k, _plain(v)) for k, v in value.items())
        entries.fa.set_flow_style()
        return entries
    return value


def said(spec: Origin) -> dict[str, Any]:
    """What was said of a list, table or folder that a connectome is imported from; its origin always."""
    values = spec.model_dump(mode="json")
    default = {k: f.default for k, f in type(spec).model_fields.items()}
    own = {k: v for k, v in values.items() if k not in Origin.model_fields and getattr(spec, k) != default[k]}
    return own | {k: values[k] for k in Origin.model_fields}


def _listed(spec: Origin) -> CommentedMap:
    """The same, a line each."""
    return CommentedMap((k, _plain(v)) for k, v in said(spec).items())


def _section(model: type[BaseModel], values: Mapping[str, Any]) -> CommentedMap:
    out = CommentedMap()
    for name, field in model.model_fields.items():
        if model is Dataset and name in LISTS and not values[name]:
            continue  # only a connectome made elsewhere has lists
        out[name] = _plain(values[name])
        if field.description:
            text = "\n".join(textwrap.wrap(" ".join(field.description.split()), 105))
            out.yaml_set_comment_before_after_key(name, before=text, indent=2)
    return out


def render(dataset: Dataset, stages: tuple[AnyStage, ...], changes: Mapping[str, Mapping[str, Any]]) -> str:
    """params.yaml as text; `changes` maps a stage to parameters that differ from its defaults."""
    document = CommentedMap()
    document.yaml_set_start_comment(HEADER)
    document["dataset"] = _section(Dataset, dataset.model_dump(mode="json"))
    for name in LISTS & document["dataset"].keys():
        spec = getattr(dataset, name)
        document["dataset"][name] = [_listed(s) for s in spec] if isinstance(spec, tuple) else _listed(spec)
    for stage in stages:
        params = stage.params(**changes.get(stage.name, {}))
        document[stage.name] = _section(stage.params, params.model_dump(mode="json"))
        document.yaml_set_comment_before_after_key(stage.name, before=f"\n{stage.name}: {stage.summary}")
    document["qa"] = _section(QaParams, QaParams().model_dump(mode="json"))
    document.yaml_set_comment_before_after_key(
        "qa",
        before="\nqa: What is expected of the data, and when `dvc repro` fails. It changes no data; null turns an "
        "expectation off.",
    )
    document["regions"] = CommentedMap()
    document.yaml_set_comment_before_after_key(
        "regions",
        before="\nNamed boxes, e.g. corner: {box_nm: [0, 0, 0, 600, 2000, 2000], note: weak osmium}. "
        "Boxes are (z0, y0, x0, z1, y1, x1); write box_vx for voxels.",
    )
    document["overrides"] = CommentedMap()
    document.yaml_set_comment_before_after_key(
        "overrides", before="\nParameters that hold in a region only, e.g. segment: {corner: {seed_window_nm: 60}}"
    )
    yaml = YAML()
    yaml.width = 110
    sink = io.StringIO()
    yaml.dump(document, sink)
    return sink.getvalue()
