"""Trials as DVC experiments: a search that is killed and goes on, its records, its report, and how a model is kept."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import pytest
from typer.testing import CliRunner

from connectome_db.cli.console import OUT
from connectome_db.cli.main import app
from connectome_db.errors import ConfigError, ConnectomeError, RunError
from connectome_db.networks.registry import model_id, read_card
from connectome_db.phantom.tissue import TissueConfig, make_tissue
from connectome_db.plots.picture import to_bytes
from connectome_db.search import report, tasks
from connectome_db.search import spec as specs
from connectome_db.search.experiments import keep_model, record_of, run_experiment, train_trial
from connectome_db.search.folder import Search, baseline, create, git, locked, open_search
from connectome_db.search.loop import Outcome, Trial, finished, search
from connectome_db.search.spec import Parameters
from tests.networks.test_network_training import cells

pytest.importorskip("optuna", reason="the extra `search` is not installed")

VARY = {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}, "features": [2, 3]}
FIXED = {"steps": 1, "depth": 1}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Phantom tissue in the files of AC3, as small as a training patch allows."""
    folder = tmp_path_factory.mktemp("ac3")
    tissue = make_tissue(TissueConfig.model_validate({"seed": 5, "shape_vx": (40, 160, 160)}))
    with h5py.File(folder / "ac3_z000-039.h5", "w") as file:
        file["raw"], file["labels"] = tissue.image, tissue.labels
    head = "z,y,x,seg_label_pre,seg_label_post,psd_size_px\n"
    (folder / "synapses_z000-039.csv").write_text(f"{head}5,50,50,1,2,400\n30,50,50,1,2,400\n")
    return folder


def repository(root: Path) -> Path:
    root.mkdir()
    (root / "params.yaml").write_text("dataset: {name: toy}\n")
    (root / ".gitignore").write_text("/.connectome/\n")
    git(root, "init", "-q")
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q"], cwd=root, check=True)
    git(root, "add", ".")
    git(root, "-c", "user.name=a", "-c", "user.email=a@example.org", "commit", "-q", "-m", "Start")
    return root


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return repository(tmp_path / "project")


def spec_of(folder: Path, **more: Any) -> specs.Spec:
    values = {"task": "affinity", "data": f"ac3={folder}", "threads": 1, "vary": VARY, "set": FIXED}
    return specs.parse({**values, **more}, "here")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "connectome_db.cli.main", "search", *words]


def lock_is_held(one: Search) -> bool:
    try:
        with locked(one):
            return False
    except RunError:
        return True


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Search:
    """A search whose second trial was killed while it trained, with an edit beside it, and that went on to three."""
    root = repository(tmp_path_factory.mktemp("searched") / "project")
    one = create(root, "tiny", spec_of(data))
    (root / "notes.txt").write_text("written while the search runs\n")
    (root / "params.yaml").write_text("dataset: {name: edited}\n")
    log = one.work / "tiny-0001.log"
    with subprocess.Popen(command("run", "tiny", "--trials", "3", "-C", str(root)), start_new_session=True) as running:
        until = time.monotonic() + 300
        while not (log.is_file() and "Running stage" in log.read_text()):
            assert running.poll() is None, "the search ended before its second trial"
            assert time.monotonic() < until, "no second trial"
            time.sleep(0.05)
        running.kill()
        running.wait()
        with pytest.raises(RunError, match="a trial of a stopped one still runs"), locked(one):
            pass
        os.killpg(running.pid, signal.SIGKILL)
        while lock_is_held(one):  # until the last of the trial's processes is gone
            assert time.monotonic() < until, "the lock is not given back"
            time.sleep(0.05)
    assert [t.number for t in finished(one.spec, one.storage)] == [0]
    subprocess.run(command("run", "tiny", "--trials", "3", "-C", str(root)), check=True)
    return one


@pytest.mark.slow
def test_a_killed_search_goes_on_with_the_same_trials(searched: Search, tmp_path: Path) -> None:
    done = finished(searched.spec, searched.storage)
    assert [t.number for t in done] == [0, 1, 2]

    def recorded(number: int, values: Parameters) -> Outcome:
        found = done[number]
        return Outcome(found.score, found.model_id, found.experiment, found.failed, found.seconds)

    assert search(searched.spec, tmp_path / "unbroken.db", 3, recorded) == done


@pytest.mark.slow
def test_a_trial_is_an_experiment_with_its_record(searched: Search, data: Path) -> None:
    start = baseline(searched)
    for trial in finished(searched.spec, searched.storage):
        record = record_of(searched, trial.number)
        assert record is not None
        assert record["parameters"] == {**(trial.parameters or {}), **FIXED}
        assert record["all_parameters"]["weight_decay"] == 1e-4  # defaults are written out too
        assert (record["score"], record["model_id"]) == (trial.score, trial.model_id)
        assert record["project_commit"] == start
        assert git(searched.project, "rev-parse", f"{record['experiment_commit']}^").strip() == start
        assert {v["used_for"] for v in record["input_data"]} == {"training", "score"}
        assert all(len(v["sha256"]) == 64 for v in record["input_data"])
        assert record["environment"]["packages"]["numpy"]
        assert record["backend"] in ("tensorflow", "jax")
        assert len(record["code"]) == 64
        lock = git(searched.project, "show", f"{record['experiment_commit']}:searches/tiny/dvc.lock")
        assert str(data / "ac3_z000-039.h5") in lock


@pytest.mark.slow
def test_dvc_lists_the_experiments_with_their_metrics(searched: Search) -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "show", "--json", "--rev", baseline(searched)],
        cwd=searched.project,
        capture_output=True,
        text=True,
        check=True,
    )
    (head,) = (entry for entry in json.loads(shown.stdout) if entry["rev"] == baseline(searched))
    scores = {}
    for experiment in head["experiments"]:
        (revision,) = experiment["revs"]
        metrics = revision["data"]["metrics"]["searches/tiny/metrics.json"]["data"]
        scores[revision["name"]] = metrics["adapted_rand_error"]
    done = finished(searched.spec, searched.storage)
    assert scores == {t.experiment: t.score for t in done if t.same_as is None}


@pytest.mark.slow
def test_the_checkout_of_the_project_is_not_touched(searched: Search) -> None:
    changed = git(searched.project, "status", "--porcelain").splitlines()
    assert sorted(changed) == [" M params.yaml", "?? notes.txt"]
    assert (searched.project / "params.yaml").read_text() == "dataset: {name: edited}\n"
    assert git(searched.project, "stash", "list") == ""


@pytest.mark.slow
def test_a_lost_database_is_made_again_from_the_experiments(searched: Search) -> None:
    before = finished(searched.spec, searched.storage)
    saved = searched.storage.read_bytes()
    searched.storage.unlink()
    try:
        words = ["search", "run", "tiny", "--trials", "3", "-C", str(searched.project)]
        assert CliRunner().invoke(app, words, catch_exceptions=False).exit_code == 0
        assert finished(searched.spec, searched.storage) == before
    finally:
        searched.storage.write_bytes(saved)


@pytest.mark.slow
def test_the_best_model_is_kept_under_the_id_of_its_record(searched: Search) -> None:
    done = CliRunner().invoke(app, ["search", "keep", "tiny", "-C", str(searched.project)], catch_exceptions=False)
    assert done.exit_code == 0
    kept = searched.project / "models" / "tiny"
    top = min(finished(searched.spec, searched.storage), key=lambda t: (t.score or 0, t.number))
    assert model_id(kept) == top.model_id == read_card(kept)["model_id"]
    assert read_card(kept)["chosen_by"]["experiment"] == top.experiment
    with pytest.raises(ConfigError, match="exists already"):
        keep_model(searched, top.number, kept)
    (searched.project / "models").rename(searched.project / ".connectome" / "kept")


@pytest.mark.slow
def test_the_report_shows_every_trial(searched: Search, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OUT, "width", 200)  # of the console, which an earlier test may have measured
    words = ["search", "show", "tiny", "--plot", str(tmp_path / "tiny.png"), "-C", str(searched.project)]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    for trial in finished(searched.spec, searched.storage):
        assert str(trial.experiment) in done.stdout
    assert (tmp_path / "tiny.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_an_experiment_of_that_name_with_other_parameters_is_no_trial(searched: Search) -> None:
    other = replace(searched, spec=searched.spec.model_copy(update={"seed": 9}))
    with locked(other) as lock, pytest.raises(RunError, match="with other parameters"):
        run_experiment(other, 0, {"learning_rate": 1e-3, "features": 2}, lock)


@pytest.mark.slow
def test_data_that_went_away_stops_the_search(project: Path, data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    for file in data.iterdir():
        (moved / file.name).symlink_to(file)
    one = create(project, "gone", spec_of(moved))
    (moved / "ac3_z000-039.h5").unlink()
    with pytest.raises(RunError, match="trial 0 of search gone did not end well") as told:
        CliRunner().invoke(app, ["search", "run", "gone", "-C", str(project)], catch_exceptions=False)
    assert "ac3_z000-039.h5" in str(told.value)
    assert finished(one.spec, one.storage) == []


@pytest.mark.slow
def test_a_flood_filling_network_is_trained_and_scored(project: Path, tmp_path: Path) -> None:
    volume = cells(3, (140, 72, 72))
    with h5py.File(tmp_path / "ts2_z000-139.h5", "w") as file:
        file["raw"], file["gt"] = volume.image, volume.labels
    fixed = {"steps": 2, "batch": 1, "depth": 1, "validate_vx": "33,48,48"}
    values = {"task": "ffn", "data": f"fib25={tmp_path}", "threads": 1, "set": fixed}
    one = create(project, "ffn", specs.parse({**values, "vary": {"features": [2, 3]}}, "here"))
    record = train_trial(one.folder)
    assert record["failed"] is None
    assert 0 <= record["score"] == record["measures"]["adapted_rand_error_all"] <= 1
    assert record["model_id"] == model_id(one.folder / "model" / "ffn")
    with pytest.raises(ConfigError, match="absolute path of a model folder"):
        specs.parse({**values, "vary": {"depth": [1, 2]}, "set": {"teacher": "models/none"}}, "here")


# Without training ---------------------------------------------------------------------------------------------------


def test_a_training_that_fails_is_a_result(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> dict[str, Any]:
        raise ConfigError("step 4: the loss is nan; lower learning_rate (9)")

    split = type("Split", (), {"train": (), "test": ()})
    broken = replace(tasks.task_named("affinity"), train=fails, load=lambda _: split)
    monkeypatch.setattr(tasks, "TASKS", (broken,))
    one = create(project, "fails", spec_of(project, data="phantom"))
    record = train_trial(one.folder)
    assert record["failed"] == "step 4: the loss is nan; lower learning_rate (9)"
    assert record["score"] is None
    assert json.loads((one.folder / "metrics.json").read_text()) == {"failed": 1}
    assert json.loads((one.folder / "trial.json").read_text()) == record


def test_a_search_is_committed_alone(project: Path) -> None:
    (project / "params.yaml").write_text("dataset: {name: edited}\n")
    (project / "other.txt").write_text("staged, of something else\n")
    git(project, "add", "other.txt")
    create(project, "rates", spec_of(project, data="phantom"))
    assert sorted(git(project, "show", "--name-only", "--format=", "HEAD").split()) == [
        f"searches/rates/{name}" for name in (".gitignore", "dvc.yaml", "params.yaml", "search.yaml")
    ]
    assert sorted(git(project, "status", "--porcelain").splitlines()) == [" M params.yaml", "A  other.txt"]
    assert open_search(project, "rates").spec == spec_of(project, data="phantom")


def _dirty(project: Path) -> None:
    one = create(project, "rates", spec_of(project, data="phantom"))
    (one.folder / "params.yaml").write_text("trial: 3\n")
    baseline(one)


def _twice(project: Path) -> None:
    create(project, "rates", spec_of(project, data="phantom"))
    create(project, "rates", spec_of(project, data="phantom"))


def _no_git(project: Path) -> None:
    (project / ".git").rename(project / "git")
    create(project, "rates", spec_of(project, data="phantom"))


def _no_dvc(project: Path) -> None:
    (project / ".dvc").rename(project / "dvc")
    create(project, "rates", spec_of(project, data="phantom"))


def _two_at_once(project: Path) -> None:
    one = create(project, "rates", spec_of(project, data="phantom"))
    with locked(one), locked(one):
        pass


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (_dirty, r"uncommitted changes \(searches/rates/params\.yaml\)"),
        (_twice, "exists already"),
        (_no_git, "wanted a git and a DVC repository"),
        (_no_dvc, "wanted a git and a DVC repository"),
        (_two_at_once, "another process is at it"),
        (lambda p: create(p, "Rates/1", spec_of(p, data="phantom")), "wanted small letters"),
        (lambda p: create(p, "rates", spec_of(p, data=f"ac3={p}")), "which does not exist"),
        (lambda p: open_search(p, "rates"), r"search 'rates': not in .*/searches"),
        (lambda p: keep_model(create(p, "rates", spec_of(p, data="phantom")), 0, p / "m"), "trial 0 .* has no model"),
    ],
)
def test_what_cannot_be_done_is_said(project: Path, wrong: Callable[[Path], object], message: str) -> None:
    with pytest.raises(ConnectomeError, match=message):
        wrong(project)


def test_a_picture_of_any_search_can_be_drawn(tmp_path: Path) -> None:
    vary = {**VARY, "depth": {"low": 1, "high": 4}, "optimizer": ["adam", "sgd"], "batch": [1, 2]}
    one = Search(tmp_path, "rates", spec_of(tmp_path, data="phantom", vary=vary, set={}))
    values: Parameters = {"learning_rate": 1e-3, "features": 2, "depth": 2, "optimizer": "sgd", "batch": 1}
    trials = [Trial(0.5, "m@1", "e", None, 1.0, number=0, parameters=values)]
    trials += [Trial(None, failed="nan\nmore", number=1, parameters={**values, "batch": 2})]
    trials += [Trial(0.5, "m@1", "e", number=2, parameters=values, same_as=0)]
    for some in (trials, trials[1:2]):
        picture = report.picture(one, some)
        assert len(picture.figure.axes) == 6
        assert to_bytes(picture, ".png") == to_bytes(report.picture(one, some), ".png")
    assert report.table(one, trials)["note"].to_pylist() == [
        "best",
        "failed: nan",
        "equals trial 0, not trained again",
    ]
