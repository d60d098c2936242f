"""`plan` on toy stages: what it says before a run, against boxes compared by hand and against the run itself."""

from __future__ import annotations

import itertools
import json
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from connectome_db import config, runner
from connectome_db.config import Project
from connectome_db.errors import ConfigError, ConnectomeError, RunError
from connectome_db.geometry import Box
from connectome_db.versions.plan import report, stored
from connectome_db.versions.plan.forecast import Span, between, forecast
from connectome_db.versions.plan.foresee import PERHAPS, REUSED, STORED, SURE, Foresight, foresee
from connectome_db.versions.plan.picture import draw
from tests.framework.conftest import make_project, run_all, tree
from tests.framework.toy import BLOCK, STAGES

SIZE = (8, 64, 64)
PARAMS = f"dataset: {{name: toy, voxel_nm: [30, 8, 8]}}\npaint: {{size_vx: {list(SIZE)}}}\ncounts: {{}}\n"
REGION = Box((0, 0, 0), (2, 20, 10))
OVERRIDE = f"regions: {{corner: {{box_vx: {list(REGION.flat())}}}}}\noverrides: {{paint: {{corner: {{base: 5}}}}}}\n"


@pytest.fixture
def toy(tmp_path: Path) -> Project:
    """A finished toy project of 2 x 4 x 4 blocks."""
    project = make_project(tmp_path / "p", PARAMS)
    run_all(project)
    return project


def with_params(project: Project, text: str) -> Project:
    (project.root / "params.yaml").write_text(text)
    return config.load(project.root, STAGES)


def blocks() -> list[Box]:
    """All blocks of the toy volume, made without the planner."""
    corners = itertools.product(*(range(0, n, b) for n, b in zip(SIZE, BLOCK, strict=True)))
    return [Box(c, (c[0] + BLOCK[0], c[1] + BLOCK[1], c[2] + BLOCK[2])) for c in corners]


def states(seen: Foresight) -> dict[str, tuple[int, int, int, int]]:
    """Per stage: reused, from the store, perhaps, sure."""
    return {s.stage: tuple(s.count(k) for k in (REUSED, STORED, PERHAPS, SURE)) for s in seen.stages}  # type: ignore[misc]


def check_against_run(seen: Foresight, outcomes: dict[str, runner.Outcome]) -> None:
    """A run computes at least what is sure and at most that and what is perhaps."""
    for s in seen.stages:
        computed = outcomes[s.stage].computed
        assert len(s.plan) == outcomes[s.stage].total, s.stage
        assert s.count(SURE) <= computed <= s.count(SURE) + s.count(PERHAPS), s.stage


def test_a_finished_project_has_nothing_to_compute_and_is_not_touched(toy: Project) -> None:
    before = tree(toy.root)
    seen = foresee(toy, deep=True)
    assert states(seen) == {"paint": (32, 0, 0, 0), "counts": (32, 0, 0, 0), "summing": (1, 0, 0, 0)}
    assert report.hints(seen, forecast(seen)) == ["Nothing to compute: all is current."]
    assert tree(toy.root) == before


def test_an_override_in_a_corner(toy: Project) -> None:
    changed = [b for b in blocks() if b.touches(REGION)]
    readers = [b for b in blocks() if any(b.grow((1, 4, 4)).touches(c) for c in changed)]
    assert (len(changed), len(readers)) == (2, 12)  # neither nothing nor everything
    project = with_params(toy, PARAMS + OVERRIDE)
    before = tree(toy.root)
    seen = foresee(project)
    assert tree(toy.root) == before
    assert states(seen) == {"paint": (30, 0, 0, 2), "counts": (20, 0, 12, 0), "summing": (0, 0, 1, 0)}
    paint, counts, _ = seen.stages
    assert {tuple(c) for c in paint.plan.cores[paint.stale].tolist()} == {b.flat() for b in changed}
    assert {tuple(c) for c in counts.plan.cores[counts.stale].tolist()} == {b.flat() for b in readers}
    assert paint.reasons.combinations() == {"parameter": 2}
    assert [report.change_text(c) for c in paint.reasons.change_counts()] == ["base 1 → 5 in corner"]
    assert report.why(counts, ()) == ["input: paint"]
    outcomes = run_all(project)
    check_against_run(seen, outcomes)
    assert [o.computed for o in outcomes.values()] == [2, 12, 1]  # nothing turned out equal here


def test_there_and_back_takes_all_from_the_store(toy: Project) -> None:
    run_all(with_params(toy, PARAMS + OVERRIDE))
    back = with_params(toy, PARAMS)
    seen = foresee(back)
    assert states(seen) == {"paint": (30, 2, 0, 0), "counts": (20, 12, 0, 0), "summing": (0, 1, 0, 0)}
    assert report.hints(seen, forecast(seen))[0].startswith("Nothing to compute: 15 units are taken from the store")
    assert [o.computed for o in run_all(back).values()] == [0, 0, 0]
    assert states(foresee(back))["counts"] == (32, 0, 0, 0)


def test_what_turns_out_equal_is_only_perhaps(toy: Project) -> None:
    project = with_params(toy, PARAMS.replace("paint: {", "paint: {broken: harmless, "))
    seen = foresee(project)
    assert states(seen) == {"paint": (0, 0, 0, 32), "counts": (0, 0, 32, 0), "summing": (0, 0, 1, 0)}
    outcomes = run_all(project)
    check_against_run(seen, outcomes)
    assert [o.computed for o in outcomes.values()] == [32, 0, 0]


def test_a_project_never_run_and_one_run_half_way(tmp_path: Path) -> None:
    project = make_project(tmp_path / "p", PARAMS)
    seen = foresee(project)
    assert states(seen) == {"paint": (0, 0, 0, 32), "counts": (0, 0, 0, 32), "summing": (0, 0, 0, 1)}
    times = forecast(seen)
    assert times.unknown == ("paint", "counts", "summing")
    assert seen.stages[1].reasons.combinations() == {"new": 32}
    runner.run_units(project, "paint", part=(0, 4))
    half = foresee(project)
    assert states(half)["paint"] == (0, 8, 0, 24)
    assert states(half)["counts"] == (0, 0, 0, 32)
    check_against_run(half, run_all(project))


def test_parameters_never_used_before_make_a_unit_sure_though_its_input_is_unknown(toy: Project) -> None:
    """`counts` never ran with this floor, so no key that the store has can be its key, whatever `paint` gives."""
    text = (PARAMS + OVERRIDE).replace("counts: {}", "counts: {floor: 7}")
    project = with_params(toy, text)
    seen = foresee(project)
    assert states(seen)["counts"] == (0, 0, 0, 32)
    assert seen.stages[1].reasons.combinations() == {"parameter": 20, "input+parameter": 12}
    check_against_run(seen, run_all(project))
    # now it did: with another `paint` again, the keys may be there
    third = with_params(toy, text.replace("base: 5", "base: 6"))
    assert states(foresee(third))["counts"] == (20, 0, 12, 0)


def test_a_record_that_no_ledger_explains_leaves_its_unit_in_doubt(toy: Project) -> None:
    text = (PARAMS + OVERRIDE).replace("counts: {}", "counts: {floor: 7}")
    shutil.rmtree(toy.store / "ledgers" / "counts")  # as if these units were of a run that was never finished
    assert states(foresee(with_params(toy, text)))["counts"] == (0, 0, 12, 20)


def test_units_lost_from_the_store_are_computed_again_where_their_stage_has_to_run(toy: Project) -> None:
    keys = pq.read_table(toy.data("paint") / "units.parquet")["unit_key"].to_pylist()
    (toy.store / "keys" / "paint" / f"{keys[31]}.json").unlink()
    assert states(foresee(toy))["paint"] == (32, 0, 0, 0)  # nothing makes it run
    deep = foresee(toy, deep=True)
    assert states(deep) == {"paint": (31, 0, 0, 1), "counts": (32, 0, 0, 0), "summing": (1, 0, 0, 0)}
    assert deep.stages[0].reasons.combinations() == {"missing": 1}
    project = with_params(toy, PARAMS + OVERRIDE)
    seen = foresee(project)
    assert seen.stages[0].reasons.combinations() == {"parameter": 2, "missing": 1}
    outcomes = run_all(project)
    check_against_run(seen, outcomes)
    assert outcomes["paint"].computed == 3


def test_a_damaged_file_is_found_by_deep(toy: Project) -> None:
    record = next((toy.store / "keys" / "counts").glob("*.json"))
    blob = json.loads(record.read_text())["outputs"]["count"]["blob"]
    shutil.rmtree(toy.store / "blobs" / blob[:2] / blob)
    assert states(foresee(toy, deep=True))["counts"][SURE] >= 1
    assert states(foresee(toy))["counts"] == (32, 0, 0, 0)


def test_another_environment(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project = with_params(toy, PARAMS + OVERRIDE).launched(same_environment=True)
    for module in ("connectome_db.runner", "connectome_db.versions.plan.foresee"):
        monkeypatch.setattr(f"{module}.environment_facts", lambda: {"python": "of another machine"})
    seen = foresee(project)
    assert seen.stages[0].reasons.combinations() == {"environment": 30, "parameter": 2}
    assert states(seen)["counts"] == (0, 0, 32, 0)
    check_against_run(seen, run_all(project))
    assert states(foresee(with_params(toy, PARAMS + OVERRIDE).launched(same_environment=True)))["paint"][REUSED] == 32


def test_an_upstream_stage_was_run_and_this_one_not(toy: Project) -> None:
    from connectome_db.finish import finish

    project = with_params(toy, PARAMS + OVERRIDE)
    finish(*runner.run_units(project, "paint"))
    seen = foresee(project)
    assert states(seen) == {"paint": (32, 0, 0, 0), "counts": (20, 0, 0, 12), "summing": (0, 0, 1, 0)}
    assert seen.stages[1].reasons.combinations() == {"input": 12}
    assert [o.computed for o in run_all(project).values()] == [0, 12, 1]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_random_edits_one_after_another(tmp_path: Path, seed: int) -> None:
    """Back and forth between few values, so that keys are met again, with parts of runs left over in between."""
    rng = random.Random(seed)
    project = make_project(tmp_path / "p", PARAMS)
    exact = 0
    for _ in range(12):
        size, edge = rng.choice([[8, 32, 32], [8, 32, 48], [4, 32, 32]]), rng.choice([3, 17, 40])
        text = (
            f"dataset: {{name: toy, voxel_nm: [30, 8, 8]}}\n"
            f"paint: {{size_vx: {size}, base: {rng.choice([1, 2])}, broken: '{rng.choice(['', 'harmless'])}'}}\n"
            f"counts: {{floor: {rng.choice([0, 300])}, halo_vx: {rng.choice([[1, 4, 4], [0, 0, 0]])}}}\n"
            f"regions: {{r: {{box_vx: [0, 0, 0, 2, {edge}, {edge}]}}}}\n"
            f"overrides: {rng.choice(['{}', '{paint: {r: {base: 5}}}', '{counts: {r: {floor: 9}}}'])}\n"
        )
        project = with_params(project, text)
        if rng.random() < 0.3:
            runner.run_units(project, "paint", part=(0, 2))
        seen = foresee(project)
        check_against_run(seen, run_all(project))
        exact += not any(s.count(PERHAPS) for s in seen.stages)
        assert all(s.count(REUSED) == len(s.plan) and not len(s.gone) for s in foresee(project).stages)
    assert 0 < exact < 12


def test_a_smaller_volume_drops_units(toy: Project) -> None:
    project = with_params(toy, PARAMS.replace("[8, 64, 64]", "[8, 64, 40]"))
    seen = foresee(project)
    counts = seen.stages[1]
    assert (len(counts.plan), len(counts.gone)) == (24, 8)
    assert "8 units of data/ are dropped" in _printed(report.table(seen, forecast(seen)))
    # blocks that the new border cuts; those beside them read 4 voxels further, which is still inside
    assert counts.reasons.counts()["extent"] == 8
    check_against_run(seen, run_all(project))


def _printed(what: object) -> str:
    from io import StringIO

    from rich.console import Console

    sink = StringIO()
    Console(file=sink, width=160).print(what)
    return sink.getvalue()


def test_a_region_of_interest_counts_what_it_touches(toy: Project) -> None:
    project = with_params(toy, PARAMS + OVERRIDE)
    box = Box((0, 0, 20), (2, 20, 40))
    seen = foresee(project).within(box)
    inside = [b for b in blocks() if b.touches(box)]
    readers = [b for b in inside if b.grow((1, 4, 4)).touches(Box((0, 0, 0), (4, 32, 16)))]
    assert len(seen.stages[1].plan) == len(inside)
    assert 0 < len(readers) < len(inside)
    assert seen.stages[1].count(PERHAPS) == len(readers)
    assert sum(seen.stages[1].reasons.counts().values()) == len(readers)


def test_only_some_stages(toy: Project) -> None:
    seen = foresee(with_params(toy, PARAMS + OVERRIDE), ["counts"])
    assert states(seen) == {"counts": (20, 0, 12, 0)}
    with pytest.raises(ConfigError, match=r"no stage 'conuts'; did you mean 'counts'"):
        foresee(toy, ["conuts"])


def test_an_override_that_a_run_would_refuse_is_refused_before(toy: Project) -> None:
    text = PARAMS + "regions: {r: {box_vx: [0, 0, 0, 2, 2, 2]}}\noverrides: {summing: {r: {}}}\n"
    with pytest.raises(ConnectomeError, match="summing runs once for the whole dataset"):
        foresee(with_params(toy, text))


def test_the_forecast_is_counted_from_recorded_seconds(toy: Project) -> None:
    for stage, seconds in (("paint", [2.0] * 32), ("counts", [1.0] * 24 + [5.0] * 8)):
        path = toy.provenance(stage) / "executions.parquet"
        table = pq.read_table(path)
        column = table.column_names.index("seconds")
        pq.write_table(table.set_column(column, "seconds", pa.array(seconds)), path)
    seen = foresee(with_params(toy, PARAMS + OVERRIDE))
    one = forecast(seen)
    paint, counts, summing = one.stages
    assert paint.work_s == Span(pytest.approx(4.0), pytest.approx(4.0))
    assert counts.work_s == Span(0.0, pytest.approx(12 * 5.0))  # none is sure; nine of ten took at most 5 s
    four = forecast(seen, workers=4, price_per_hour=36.0)
    assert four.stages[0].wall_s == Span(pytest.approx(2.0), pytest.approx(2.0))  # two units, four workers
    assert four.stages[1].wall_s == Span(0.0, pytest.approx(15.0))
    assert summing.wall_s is not None
    wall = 2.0 + 15.0 + summing.wall_s.high
    assert four.wall_s.high == pytest.approx(wall)
    assert four.cost == Span(pytest.approx(2.0 * 4 / 100), pytest.approx(wall * 4 / 100))


def test_seconds_of_smaller_blocks_are_scaled(toy: Project) -> None:
    before = forecast(foresee(with_params(toy, PARAMS.replace("paint: {", "paint: {base: 3, ")))).stages[0]
    cut = PARAMS.replace("[8, 64, 64]", "[8, 64, 56]")  # blocks at the border are half as wide
    after = forecast(foresee(with_params(toy, cut))).stages[0]
    assert before.work_s is not None
    assert after.work_s is not None
    assert after.work_s.low == pytest.approx(before.work_s.low * 56 / 64)


def test_times_for_people() -> None:
    assert [between(Span(*s)) for s in ((0, 0), (0, 4), (3, 12), (0.4, 126), (7200, 7200), (5, 400000))] == [
        "< 0.1 s", "≤ 4.0 s", "3.0–12 s", "0.4 s – 2.1 min", "2.0 h", "5.0 s – 4.6 days",
    ]  # fmt: skip


def test_json_has_ids_as_text_and_the_same_numbers(toy: Project) -> None:
    seen = foresee(with_params(toy, PARAMS + OVERRIDE))
    out = json.loads(json.dumps(report.to_json(seen, forecast(seen), 3)))
    counts = out["stages"][1]
    assert (counts["units"], counts["reused"], counts["sure"], counts["perhaps"]) == (32, 20, 0, 12)
    assert out["total"]["sure"] == 2
    assert [len(counts["list"]), counts["list"][0]["reasons"]] == [3, ["input"]]
    assert counts["list"][0]["unit"] == str(int(seen.stages[1].plan.codes[seen.stages[1].stale[0]]))
    assert out["stages"][0]["changes"] == [{"name": "base", "old": 1, "new": 5, "region": "corner", "units": 2}]


def test_a_picture_of_blocks(toy: Project, tmp_path: Path) -> None:
    import cv2

    seen = foresee(with_params(toy, PARAMS + OVERRIDE))
    image = cv2.imread(str(draw(seen, tmp_path / "new" / "plan.png")))
    assert image is not None
    colours = {tuple(c) for c in image.reshape(-1, 3)[:, ::-1].tolist()}
    assert (0xDF, 0xE4, 0xEA) in colours  # reused
    with pytest.raises(RunError, match="none of these stages works in blocks"):
        draw(foresee(toy, ["summing"]), tmp_path / "none.png")


def test_records_of_shards_are_found_without_parsing_the_others(toy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    from connectome_db.provenance import from_hex
    from connectome_db.store import Store, parse_record

    monkeypatch.setattr("connectome_db.store.GATHER_AT", 1)
    store = Store(toy.store)
    store.gather("paint")
    keys = pq.read_table(toy.data("paint") / "units.parquet")["unit_key"].to_pylist()
    parsed: list[str] = []

    def counted(text: str) -> object:
        parsed.append(text)
        return parse_record(text)

    monkeypatch.setattr(stored, "parse_record", counted)
    wanted = from_hex([keys[5], "0" * 64, keys[2]])
    found = dict(stored.records(store, "paint", wanted))
    assert {k: r.key for k, r in found.items()} == {0: keys[5], 2: keys[2]}
    assert len(parsed) == 2
    assert sorted(d.tobytes().hex() for d in stored.all_keys(store, "paint")) == sorted(keys)
