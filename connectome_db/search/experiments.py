"""A trial as a DVC experiment: run in a clone of the project, then brought into the project by git.

`dvc exp run` sets the checkout it works in back and forth (`git stash`, `git reset --hard`). A search takes hours, so
it does that in a clone of its own, which shares the project's DVC cache: what you edit meanwhile is not touched, and
every trial starts from the same commit. A killed trial leaves nothing but that clone, which the next one replaces.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from connectome_db.config import read_yaml
from connectome_db.environment import code_facts, environment_facts, host_facts
from connectome_db.errors import ConfigError, RunError
from connectome_db.networks.backend import keras_module
from connectome_db.networks.registry import model_id, write_json
from connectome_db.revisions import cache_folder
from connectome_db.search import spec as specs
from connectome_db.search.folder import (
    FOLDER,
    METRICS,
    MODEL,
    PARAMS,
    PIPELINE,
    RECORD,
    Search,
    baseline,
    git,
    parameters_of,
)
from connectome_db.search.tasks import task_named

CLONE = "clone"
REFERENCES = "refs/exps"
"""Where DVC keeps experiments in git: refs/exps/<baseline>/<name>."""


def run_experiment(search: Search, number: int, values: Mapping[str, specs.Scalar], lock: int) -> dict[str, Any]:
    """Run a trial as a DVC experiment of the project; returns its record. `lock`: a descriptor the process inherits.

    A trial of this number and parameters that is there already is not run again. Raises RunError, with the end of what
    the trial printed, when it did not end well.
    """
    wanted = parameters_of(search, number, values)
    found = record_of(search, number)
    if found is not None:
        if found["parameters"] != wanted["parameters"] or found["data"] != wanted["data"]:
            raise RunError(
                f"experiment {search.experiment(number)} is there already, with other parameters: {found['parameters']}"
                f" instead of {wanted['parameters']}; remove it with `dvc exp remove {search.experiment(number)}`, or "
                "make another search"
            )
        return found
    clone = _clone(search)
    inside = clone / FOLDER / search.name
    (inside / PARAMS).write_text(specs.yaml_text(wanted), encoding="utf-8")
    name, log = search.experiment(number), search.work / f"{search.experiment(number)}.log"
    command = ["exp", "run", "-n", name, f"{FOLDER}/{search.name}/{PIPELINE}:train"]
    with log.open("w", encoding="utf-8") as out:
        code = subprocess.run(
            [sys.executable, "-m", "dvc", *command],
            cwd=clone,
            env=_environment(),
            stdout=out,
            stderr=subprocess.STDOUT,
            pass_fds=(lock,),
            check=False,
        ).returncode
    reference = _reference(clone, name)
    if code or reference is None:
        tail = log.read_text(encoding="utf-8", errors="replace").strip()[-1500:]
        raise RunError(f"trial {number} of search {search.name} did not end well; from {log}:\n{tail}")
    git(search.project, "fetch", "-q", "--no-tags", str(clone), f"+{reference}:{reference}")
    shutil.rmtree(clone)
    record = record_of(search, number)
    if record is None:
        raise RunError(f"experiment {name}: {RECORD} is not in it; see {log}")
    return record


def record_of(search: Search, number: int) -> dict[str, Any] | None:
    """The record of a trial from its experiment in git, with the experiment's name and commit; None without one."""
    name = search.experiment(number)
    reference = _reference(search.project, name)
    if reference is None:
        return None
    text = git(search.project, "show", f"{reference}:{FOLDER}/{search.name}/{RECORD}")
    commit = git(search.project, "rev-parse", reference).strip()
    record: dict[str, Any] = json.loads(text)
    return {**record, "experiment": name, "experiment_commit": commit}


def train_trial(folder: Path) -> dict[str, Any]:
    """What the DVC stage of a trial does: train as params.yaml in `folder` says; write model, metrics, record.

    A training that fails (its loss is no number any more, its layers do not fit) is a result too: the record says why,
    and there is no score. Unreadable data raises.
    """
    given = read_yaml(folder / PARAMS)
    missing = [key for key in ("search", "trial", "task", "data", "seed", "threads", "parameters") if key not in given]
    if missing:
        raise ConfigError(f"{folder / PARAMS}: wanted the parameters of a trial, {', '.join(missing)} missing")
    task = task_named(given["task"])
    chosen = specs.accepted(task, given["parameters"], str(folder / PARAMS))
    out = folder / MODEL / given["search"]
    out.mkdir(parents=True, exist_ok=True)
    started, clock = datetime.now(UTC), time.monotonic()
    backend = keras_module().backend.backend()  # one that is missing stops the search: it is no fault of the parameters
    split = task.load(given["data"])
    record: dict[str, Any] = {**given, "metric": task.metric, "score": None, "model_id": None, "failed": None}
    measures: dict[str, float] = {}
    try:
        card = task.train(chosen, split, given["seed"], given["threads"], out)
        measures = {name: value for name, value in task.measures(card).items() if math.isfinite(value)}
        record |= {"score": measures.get(task.metric), "model_id": model_id(out)}
        if record["score"] is None:
            record["failed"] = f"{task.metric} of this model is not a number"
    except ConfigError as e:
        record["failed"] = str(e)
        (out / "failed.txt").write_text(f"{e}\n", encoding="utf-8")
    record |= {
        "measures": measures,
        "all_parameters": chosen.model_dump(mode="json"),
        "input_data": [
            {"name": v.name, "sha256": v.digest, "used_for": used}
            for used, volumes in (("training", split.train), ("score", split.test))
            for v in volumes
        ],
        "project_commit": git(folder, "rev-parse", "HEAD").strip(),
        "code_version": code_facts(),
        "backend": backend,
        "environment": environment_facts(),
        "host": host_facts(),
        "started": started.isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - clock, 1),
    }
    write_json(folder / METRICS, {**measures, "failed": int(record["failed"] is not None)})
    write_json(folder / RECORD, record)
    return record


def keep_model(search: Search, number: int, folder: Path) -> str:
    """Copy the model of a trial from DVC's cache to `folder`, and say in its card where it is from; returns its ID.

    Raises ConfigError when the folder exists, RunError when the cache no longer has the model or it is another one.
    """
    record = record_of(search, number)
    if record is None or record["model_id"] is None:
        raise ConfigError(f"trial {number} of search {search.name} has no model: {(record or {}).get('failed')}")
    if folder.exists():
        raise ConfigError(f"{folder} exists already: choose another name with --as")
    folder.parent.mkdir(parents=True, exist_ok=True)
    path = f"{FOLDER}/{search.name}/{MODEL}/{search.name}"
    command = ["get", "-q", str(search.project), path, "--rev", record["experiment_commit"], "-o", str(folder)]
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *command], env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RunError(f"the model of {record['experiment']} cannot be had from DVC: {done.stderr.strip()[-1000:]}")
    made = model_id(folder)
    if made.rpartition("@")[2] != record["model_id"].rpartition("@")[2]:
        shutil.rmtree(folder)
        raise RunError(f"DVC gave {made} for {record['experiment']}, whose record says {record['model_id']}")
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    chosen = {"search": search.name, "trial": number} | {k: record[k] for k in ("experiment", "experiment_commit")}
    write_json(folder / "card.json", {**card, "model_id": made, "chosen_by": chosen})
    return made


def _clone(search: Search) -> Path:
    """A fresh clone of the project at the search's commit, with the project's DVC cache."""
    clone = search.work / CLONE
    if clone.exists():
        shutil.rmtree(clone)
    start = baseline(search)
    git(search.project, "clone", "-q", "--no-checkout", str(search.project), str(clone))
    git(clone, "checkout", "-q", "--detach", start)
    cache = cache_folder(search.project).parent.parent
    (clone / ".dvc" / "config.local").write_text(f"[cache]\n    dir = {cache}\n", encoding="utf-8")
    # The one who commits experiments is the one who commits in the project.
    for key in ("user.name", "user.email"):
        known = subprocess.run(["git", "config", key], cwd=search.project, capture_output=True, text=True, check=False)
        fallback = "connectome" if key == "user.name" else "connectome@localhost"
        git(clone, "config", key, known.stdout.strip() or fallback)
    return clone


def _reference(repository: Path, name: str) -> str | None:
    listed = git(repository, "for-each-ref", "--format=%(refname)", REFERENCES).splitlines()
    found = [r for r in listed if r.rpartition("/")[2] == name and "/exec/" not in r]
    if len(found) > 1:
        raise RunError(
            f"{repository}: experiment {name} is there {len(found)} times: {', '.join(found)}; remove all but one"
        )
    return found[0] if found else None


def _environment() -> dict[str, str]:
    """DVC quiet about itself, not told of another repository, and with this interpreter's `connectome` first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("DVC_")}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return kept | {"DVC_NO_ANALYTICS": "1", "PATH": path}
