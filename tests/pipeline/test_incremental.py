"""Whatever was edited, in whatever order: what is made incrementally is what is made from scratch, byte for byte."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from connectome_db import config
from connectome_db.config import Project
from connectome_db.stages.pipeline import STAGES
from tests import edits
from tests.pipeline.conftest import copy_of, differing
from tests.versioned import run_all

EXAMPLES = int(os.environ.get("INCREMENTAL_EXAMPLES", "3"))
"""From scratch costs 20 s an example: three here, hundreds with INCREMENTAL_EXAMPLES=200."""

REGIONAL = {
    "montage": ("shape_prior", st.sampled_from([0.1, 0.5])),
    "match": ("min_agreement", st.sampled_from([0.3, 0.5])),
    "render": ("feather_px", st.sampled_from([8.0, 24.0])),
    "mask": ("fold_grey", st.sampled_from([40.0, 60.0])),
    "segment": ("seed_window_nm", st.sampled_from([25.0, 60.0, 80.0])),
    "overlap": ("accept_share", st.sampled_from([0.5, 0.9])),
    "synapses": ("high", st.sampled_from([0.85, 0.95])),
}
"""Per stage that a region can change: a parameter and values other than its default."""
GLOBAL = {
    **REGIONAL,
    "align": ("stiffness", st.sampled_from([0.2, 0.4])),
    "agglomerate": ("threshold", st.sampled_from([0.3, 0.6])),
    "graph": ("duplicate_nm", st.sampled_from([100.0, 400.0])),
}

boxes = st.tuples(
    st.integers(-2, 6), st.integers(0, 150), st.integers(0, 150),
    st.integers(1, 6), st.integers(1, 120), st.integers(1, 120),
).map(lambda b: (b[0], b[1], b[2], b[0] + b[3], b[1] + b[4], b[2] + b[5]))  # fmt: skip


def _parameter(table: dict) -> st.SearchStrategy:  # type: ignore[type-arg]
    return st.sampled_from(sorted(table)).flatmap(lambda s: st.tuples(st.just((s, table[s][0])), table[s][1]))


edit = st.one_of(
    st.tuples(st.just("region"), st.sampled_from(["a", "b"]), boxes, _parameter(REGIONAL)),
    st.tuples(st.just("parameter"), _parameter(GLOBAL)),
    st.tuples(st.just("tile"), st.integers(0, 9), st.integers(0, 9), st.tuples(st.integers(0, 90), st.integers(0, 90))),
    st.tuples(st.just("section"), st.integers(0, 3)),
    st.tuples(st.just("model"), st.sampled_from(["everywhere", "region"]), st.sampled_from([0.8, 1.2]), boxes),
)


def apply(root: Path, change: tuple) -> None:  # type: ignore[type-arg]
    """Make one drawn edit."""
    match change:
        case ("region", region, box, ((stage, name), value)):
            edits.set_in_region(root, region, box, stage, name, value)
        case ("parameter", ((stage, name), value)):
            edits.set_parameter(root, stage, name, value)
        case ("tile", section, index, corner):
            edits.change_tile(root, section, index, corner)
        case ("section", seed):
            edits.append_section(root, seed)
        case ("model", "everywhere", scale, _):
            edits.add_model(root, "phantom-affinity", "trained-further", scale)
            edits.set_parameter(root, "segment", "model", "trained-further")
        case ("model", _, scale, box):
            edits.add_model(root, "phantom-cleft", "cleft-further", scale)
            edits.set_in_region(root, "m", box, "synapses", "model", "cleft-further")


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 3,  # the same few in every CI run; more of them are drawn anew each time
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
@given(changes=st.lists(edit, min_size=1, max_size=4))
def test_random_edits_one_after_another_equal_from_scratch(
    done: Project,
    tmp_path_factory,
    changes: list[tuple],  # type: ignore[type-arg,no-untyped-def]
) -> None:
    folder = tmp_path_factory.mktemp("edits")
    project = copy_of(done.root, folder / "p", with_work=True)
    for change in changes:
        apply(project.root, change)
        run_all(config.load(project.root, STAGES))
    scratch = copy_of(project.root, folder / "scratch")
    run_all(scratch)
    assert differing(project.root / "data", scratch.root / "data") == [], changes
    assert sum(o.computed for o in run_all(config.load(project.root, STAGES)).values()) == 0
    shutil.rmtree(folder)


def test_a_line_of_code_redoes_its_stage_alone_and_a_comment_nothing(done: Project, tmp_path: Path) -> None:
    """In copies of the package: a comment in a kernel, then a statement that changes nothing, then one that does."""
    line = "    contacts = _gather("
    source = "kernels.contact"
    project = copy_of(done.root, tmp_path / "p", with_work=True)
    units = {s.name: len(pq.read_table(done.data(s.name) / "units.parquet")) for s in STAGES}
    text = (Path(edits.registry.__file__).parents[1] / "kernels" / "contact.py").read_text()
    line = next(s for s in text.splitlines() if s.startswith("    return ") and text.count(s) == 1)

    comment = edits.package_with(tmp_path / "comment", source, line, f"    # a remark\n{line}  # another")
    assert sum(edits.run_with(comment, project.root).values()) == 0

    idle = edits.package_with(tmp_path / "idle", source, line, f"    _ = 1 + 1\n{line}")
    computed = edits.run_with(idle, project.root)
    assert computed["score"] == units["score"]
    assert {s for s, n in computed.items() if n} == {"score"}  # equal content: everything below is reused

    merge = (Path(edits.registry.__file__).parents[1] / "stages" / "agglomerate.py").read_text()
    assert merge.count("params.threshold") >= 1
    real = edits.package_with(tmp_path / "real", "stages.agglomerate", *_sharper(merge))
    computed = edits.run_with(real, project.root)
    assert computed["agglomerate"] == 1
    assert {s for s, n in computed.items() if n} <= {"agglomerate", "graph", "score", "measure_graph", "flag"}
    scratch = copy_of(project.root, tmp_path / "scratch")
    edits.run_with(real, scratch.root)
    assert differing(project.root / "data", scratch.root / "data") == []
    assert differing(project.root / "data" / "agglomerate", done.root / "data" / "agglomerate") != []


def _sharper(text: str) -> tuple[str, str]:
    """An edit of the merge threshold in the code itself."""
    first = next(line for line in text.splitlines() if "params.threshold" in line and text.count(line) == 1)
    return first, first.replace("params.threshold", "(params.threshold + 0.2)", 1)
