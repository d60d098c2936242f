"""The folder of a search, `searches/NAME/` in a project, with a DVC pipeline of its own: the project's is not touched.

search.yaml    what is searched; not changed once there are trials
dvc.yaml       one stage, `train`
params.yaml    what that stage trains with; the committed one is only a form, each experiment has its own
search.db      the trials, as Optuna keeps them (SQLite); not in git, and made again from the experiments when lost
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from connectome_db.codedigest import code_digest
from connectome_db.config import read_yaml
from connectome_db.errors import ConfigError, RunError, nearest
from connectome_db.newproject import need_tools, run
from connectome_db.search import spec as specs
from connectome_db.search.spec import Range, Spec
from connectome_db.search.tasks import Task, files_of, task_named

FOLDER = "searches"
SPEC, PIPELINE, PARAMS, DATABASE = "search.yaml", "dvc.yaml", "params.yaml", "search.db"
RECORD, METRICS, MODEL = "trial.json", "metrics.json", "model"
GITIGNORE = f"/{DATABASE}*\n/{MODEL}\n*.png\n"


@dataclass(frozen=True)
class Search:
    """One search of a project."""

    project: Path
    name: str
    spec: Spec

    @property
    def folder(self) -> Path:
        """Its folder."""
        return self.project / FOLDER / self.name

    @property
    def task(self) -> Task:
        """What is trained."""
        return task_named(self.spec.task)

    @property
    def storage(self) -> Path:
        """Its database of trials."""
        return self.folder / DATABASE

    @property
    def work(self) -> Path:
        """Where its trials run: a folder that may be lost at any time, outside the project's own checkout."""
        return self.project / ".connectome" / FOLDER / self.name

    def experiment(self, number: int) -> str:
        """The name of a trial's DVC experiment."""
        return f"{self.name}-{number:04d}"


def create(project: Path, name: str, spec: Spec) -> Search:
    """Write and commit the folder of a search. Raises ConfigError when there is one, RunError without git or DVC."""
    if not specs.NAME.fullmatch(name):
        raise ConfigError(f"search {name!r}: wanted small letters, digits, - and _, a letter or digit first")
    project = project.resolve()
    _need_repositories(project)
    search = Search(project, name, spec)
    if search.folder.exists():
        raise ConfigError(f"{search.folder} exists already: choose another name, or go on with `connectome search run`")
    needs = [str(path) for path in files_of(spec.data)]
    search.folder.mkdir(parents=True)
    _write(search.folder / SPEC, specs.render(spec))
    _write(search.folder / PARAMS, specs.yaml_text(parameters_of(search, 0, _form(spec))))
    _write(search.folder / PIPELINE, specs.yaml_text(_pipeline(search, needs)))
    _write(search.folder / ".gitignore", GITIGNORE)
    _commit(project, search.folder, f"Search {name}")
    return search


def open_search(project: Path, name: str) -> Search:
    """A search that was made before. Raises ConfigError for an unknown name."""
    project = project.resolve()
    path = project / FOLDER / name / SPEC
    if not path.is_file():
        raise ConfigError(f"search {name!r}: not in {project / FOLDER}{nearest(name, names(project))}")
    return Search(project, name, specs.read(path))


def names(project: Path) -> list[str]:
    """The searches of a project."""
    return sorted(path.parent.name for path in (project / FOLDER).glob(f"*/{SPEC}"))


def parameters_of(search: Search, number: int, values: Mapping[str, specs.Scalar]) -> dict[str, Any]:
    """The content of params.yaml of one trial: all that decides its model, besides the data."""
    return {
        "search": search.name,
        "trial": number,
        "task": search.spec.task,
        "data": search.spec.data,
        "seed": search.spec.seed,
        "threads": search.spec.threads,
        "code": code_digest(*search.task.code),
        "parameters": {**values, **search.spec.fixed},
    }


def baseline(search: Search) -> str:
    """The commit that every trial starts from: the last one that touched the search's folder.

    Raises ConfigError when the folder has uncommitted changes: a trial would not be what git says.
    """
    _need_repositories(search.project)
    where = str(search.folder.relative_to(search.project))
    if changed := git(search.project, "status", "--porcelain", "--untracked-files=no", "--", where).splitlines():
        files = ", ".join(line[3:] for line in changed[:5])
        raise ConfigError(
            f"{search.folder}: wanted what is committed, but there are uncommitted changes ({files}); set them back "
            f"with `git checkout -- {where}`, or make another search"
        )
    return git(search.project, "log", "-1", "--format=%H", "--", where).strip()


def code_changed(search: Search) -> bool:
    """Whether trials would now be trained by other code than when the search was made."""
    made: object = read_yaml(search.folder / PARAMS).get("code")
    return made != code_digest(*search.task.code)


def git(folder: Path, *words: str) -> str:
    """Standard output of git. Raises RunError with its message when it fails."""
    done = subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=False, errors="replace")
    if done.returncode:
        raise RunError(f"`git {' '.join(words)}` failed in {folder}: {done.stderr.strip()[-1000:]}")
    return done.stdout


@contextmanager
def locked(search: Search) -> Iterator[int]:
    """Hold the search for one process; gives the lock's descriptor, which a trial's process inherits.

    A trial that outlives a killed search so keeps the lock, and no second one writes where it writes.
    """
    search.work.mkdir(parents=True, exist_ok=True)
    with (search.work / "lock").open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise RunError(
                f"search {search.name}: another process is at it, or a trial of a stopped one still runs; wait for it "
                "to end, or stop it"
            ) from None
        os.set_inheritable(held.fileno(), True)
        yield held.fileno()


def _pipeline(search: Search, needs: list[str]) -> dict[str, Any]:
    stage: dict[str, Any] = {
        "desc": f"One trial of search {search.name}: train {search.spec.task}.",
        "cmd": "connectome search trial",
        "params": list(parameters_of(search, 0, {})),
        "outs": [MODEL, {RECORD: {"cache": False}}],
        "metrics": [{METRICS: {"cache": False}}],
    }
    return {"stages": {"train": stage | ({"deps": needs} if needs else {})}}


def _form(spec: Spec) -> dict[str, specs.Scalar]:
    """The first value of each varied parameter."""
    return {name: given.low if isinstance(given, Range) else given.choices[0] for name, given in spec.vary.items()}


def _need_repositories(project: Path) -> None:
    need_tools()
    if not (project / ".git").exists() or not (project / ".dvc").is_dir():
        raise RunError(
            f"{project}: wanted a git and a DVC repository, for trials are DVC experiments; `connectome init` makes "
            "a project with both, `git init` and `dvc init` make them in this one"
        )


def _commit(project: Path, folder: Path, message: str) -> None:
    """Commit one folder and nothing else of what may be staged or changed."""
    where = str(folder.relative_to(project))
    run(project, "git", "add", "--", where)
    run(project, "git", *identity(project), "commit", "-q", "-m", message, "--", where)


def identity(folder: Path) -> list[str]:
    """What git needs to commit where nobody told it who commits."""
    known = (
        subprocess.run(["git", "config", "user.email"], cwd=folder, capture_output=True, check=False).returncode == 0
    )
    return [] if known else ["-c", "user.name=connectome", "-c", "user.email=connectome@localhost"]


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
