"""What holds for every stage by its declaration alone. A new stage gets these without a line of its own."""

from __future__ import annotations

import pickle
import tomllib

import pytest

from connectome_db.prepare import stage_code
from connectome_db.schema.all import FLOODED as WITH_FLOOD
from connectome_db.schema.all import OUTPUTS as USUAL
from connectome_db.spec import RAW, AnyStage, Rows, Table
from connectome_db.stages.flooded import STAGES as FLOODED
from connectome_db.stages.imported import STAGES as IMPORTED
from connectome_db.stages.pipeline import STAGES
from tests.docs.pages import ROOT

ADDED = tuple(stage for stage in FLOODED if stage not in STAGES)
TABLES = {table.name: table for tables in WITH_FLOOD.values() for table in tables}
every_stage = pytest.mark.parametrize(
    "stage", [*STAGES, *ADDED], ids=lambda s: s.name + ("" if s in STAGES else " (flooded)")
)


@every_stage
def test_its_inputs_are_made_before_it(stage: AnyStage) -> None:
    pipeline = STAGES if stage in STAGES else FLOODED
    earlier = pipeline[: pipeline.index(stage)]
    made = {RAW, *(f"{s.name}.{o.name}" for s in earlier for o in s.outputs)}
    assert set(stage.inputs) <= made


def tables_of(stage: AnyStage) -> tuple[Table, ...]:
    return (USUAL if stage in STAGES else WITH_FLOOD)[stage.name]


@every_stage
def test_its_tables_are_entered_in_the_schema(stage: AnyStage) -> None:
    assert tuple(o.table for o in stage.outputs if isinstance(o, Rows)) == tables_of(stage)


@every_stage
def test_its_parameters_have_defaults_and_say_what_they_mean(stage: AnyStage) -> None:
    stage.params()
    assert [n for n, f in stage.params.model_fields.items() if not f.description] == []


@every_stage
def test_its_columns_say_what_they_mean(stage: AnyStage) -> None:
    for table in tables_of(stage):
        assert table.doc.endswith(".")
        assert set(table.key) <= {c.name for c in table.columns}
        assert [c.name for c in table.columns if not c.doc] == []
        for column, target in table.foreign.items():
            other, _, theirs = target.partition(".")
            assert column in {c.name for c in table.columns}
            assert theirs in {c.name for c in TABLES[other].columns}


@every_stage
def test_it_can_be_sent_to_a_worker(stage: AnyStage) -> None:
    again = pickle.loads(pickle.dumps(stage))
    assert (again.name, again.compute, again.params()) == (stage.name, stage.compute, stage.params())


@every_stage
def test_its_code_has_a_digest(stage: AnyStage) -> None:
    assert len(stage_code(stage)) == 64


@every_stage
def test_a_network_is_named_by_a_parameter(stage: AnyStage) -> None:
    assert ("model" in stage.params.model_fields and stage.params.model_fields["model"].annotation is str) == bool(
        stage.network
    )


def test_the_import_contract_names_every_stage() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    apart = next(c["modules"] for c in contracts if c["name"] == "Stages never import each other")
    assert set(apart) == {s.compute.__module__ for s in (*STAGES, *ADDED, *IMPORTED)}
