"""An index of datasets, runs, models and stages in a SQL database: SQLite by default, any other by URL.

Everything in it comes from `data/*/record.json` and `provenance/*/run.json`, so losing it loses nothing: `rebuild`
makes it again. It also remembers runs whose records were since replaced, until it is rebuilt. Rows of the
connectome never come here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from sqlalchemy import Engine, create_engine, delete, event, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.orm import Session

from connectome_db.errors import RunError
from connectome_db.schema.catalog import Base, Dataset, Model, Run, StageState

_WAIT_S = 30
_ATTEMPTS = 5
"""Two writers may insert the same row at once; one of them is refused and then finds it there."""


def default_url(project: Path) -> str:
    """The catalog of a project that names no other: SQLite in its `.connectome` folder."""
    return f"sqlite:///{(project.resolve() / '.connectome' / 'catalog.sqlite').as_posix()}"


class Catalog:
    """An open catalog. Tables are made when they are not there. Use as a context manager, or call `close`."""

    def __init__(self, url: str) -> None:
        if url.startswith("sqlite:///"):
            Path(url.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        try:
            self._engine = _engine(url)
            self._create()
        except (SQLAlchemyError, ImportError) as e:
            raise RunError(
                f"catalog {_hidden(url)}: cannot be opened ({_reason(e)}); check the URL in launch.yaml"
            ) from e

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def __enter__(self) -> Catalog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def record_run(self, project: Path, stage: str) -> None:
        """Enter the last run of a stage and what its data folder holds now. Entering it again changes nothing."""
        run, record = _read(project, stage)
        with self._errors():
            for attempt in range(_ATTEMPTS):
                try:
                    with Session(self._engine) as session, session.begin():
                        _enter(session, project, stage, run, record)
                    return
                except IntegrityError:
                    if attempt == _ATTEMPTS - 1:
                        raise

    def rebuild(self, project: Path) -> int:
        """Forget all of `project` and enter what its records say; returns the number of stages found."""
        found = sorted({p.parent.name for p in project.glob("data/*/record.json")})
        with self._errors(), Session(self._engine) as session, session.begin():
            if old := session.scalar(select(Dataset).where(Dataset.project == str(project.resolve()))):
                session.delete(old)
                session.flush()
            for stage in found:
                _enter(session, project, stage, *_read(project, stage))
            used = select(StageState.model_id).where(StageState.model_id.is_not(None))
            session.execute(delete(Model).where(Model.model_id.not_in(used)))
        return len(found)

    def runs(self, limit: int = 20, *, project: Path | None = None) -> list[Run]:
        """The latest runs, newest first; of one project, or of all."""
        query = select(Run).join(Dataset).order_by(Run.started.desc(), Run.id.desc()).limit(limit)
        if project is not None:
            query = query.where(Dataset.project == str(project.resolve()))
        return self._all(query)

    def stages(self, project: Path) -> list[StageState]:
        """What each stage of a project holds, by name."""
        mine = Dataset.project == str(project.resolve())
        return self._all(select(StageState).join(Dataset).where(mine).order_by(StageState.stage))

    def datasets(self) -> list[Dataset]:
        """All projects that were entered, by path."""
        return self._all(select(Dataset).order_by(Dataset.project))

    def models(self) -> list[Model]:
        """All networks that some stage was run with, by id."""
        return self._all(select(Model).order_by(Model.model_id))

    def _all(self, query: Any) -> list[Any]:
        with self._errors(), Session(self._engine, expire_on_commit=False) as session:
            return list(session.scalars(query))

    def _create(self) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                Base.metadata.create_all(self._engine)
                return
            except SQLAlchemyError:  # another process was making the same tables
                if attempt == _ATTEMPTS - 1:
                    raise

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SQLAlchemyError as e:
            raise RunError(
                f"catalog {_hidden(str(self._engine.url))}: {_reason(e)}. It only indexes the records: when it is "
                "damaged, delete it: `connectome finish STAGE` enters a stage again"
            ) from e


def _engine(url: str) -> Engine:
    if not url.startswith("sqlite"):
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": _WAIT_S})

    def on_connect(connection: Any, _: object) -> None:
        for pragma in (f"busy_timeout={_WAIT_S * 1000}", "journal_mode=WAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.isolation_level = None  # transactions are begun below

    def on_begin(connection: Any) -> None:
        # Taking the write lock at once lets writers queue; taking it later makes them fail on each other.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(engine, "connect", on_connect)
    event.listen(engine, "begin", on_begin)
    return engine


def _read(project: Path, stage: str) -> tuple[Mapping[str, Any] | None, Mapping[str, Any]]:
    """(run.json or None, record.json), the first with `compute_s`: compute time of the units of that run."""
    record = _json(project / "data" / stage / "record.json")
    if record is None:
        raise RunError(f"stage {stage}: no data/{stage}/record.json in {project}; run `connectome finish {stage}`")
    folder = project / "provenance" / stage
    run = _json(folder / "run.json")
    if run is not None and (folder / "executions.parquet").is_file():
        rows = pq.read_table(folder / "executions.parquet", columns=["reused", "seconds"])
        run = {**run, "compute_s": pc.sum(rows.filter(pc.invert(rows["reused"]))["seconds"]).as_py() or 0.0}
    return run, record


def _json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as e:
        raise RunError(f"{path}: not readable as JSON ({e}); run `connectome finish {path.parent.name}` again") from e
    return found


def _enter(
    session: Session, project: Path, stage: str, run: Mapping[str, Any] | None, record: Mapping[str, Any]
) -> None:
    path = str(project.resolve())
    dataset = session.scalar(select(Dataset).where(Dataset.project == path))
    if dataset is None:
        dataset = Dataset(project=path)
        session.add(dataset)
    dataset.voxel_z_nm, dataset.voxel_y_nm, dataset.voxel_x_nm = (float(v) for v in record["voxel_nm"])
    session.flush()
    state = session.scalar(
        select(StageState).where(StageState.dataset_id == dataset.id, StageState.stage == stage)
    ) or StageState(dataset=dataset, stage=stage)
    state.units = record["units"]
    state.code_digest = record["code_digest"]
    state.model_id = record.get("model_id")
    state.record = dict(record)
    session.add(state)
    if state.model_id and not session.scalar(select(Model).where(Model.model_id == state.model_id)):
        session.add(Model(model_id=state.model_id, digest=record.get("model_digest")))
    if run is not None:
        _enter_run(session, dataset, stage, run)


def _enter_run(session: Session, dataset: Dataset, stage: str, run: Mapping[str, Any]) -> None:
    same = (Run.dataset_id == dataset.id, Run.stage == stage, Run.run_id == run["run_id"])
    row = session.scalar(select(Run).where(*same)) or Run(dataset=dataset, stage=stage, run_id=run["run_id"])
    git = run.get("git") or {}
    row.git_commit, row.git_dirty = git.get("commit"), git.get("dirty")
    for name in ("started", "ended", "user", "host", "executor", "workers", "units_total", "compute_s"):
        setattr(row, name, run.get(name))
    row.units_computed = run.get("units_computed", run.get("computed"))
    row.units_reused = run.get("units_reused", run.get("reused"))
    row.facts = {k: v for k, v in run.items() if k != "compute_s"}
    session.add(row)


def _reason(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error).splitlines()[0]


def _hidden(url: str) -> str:
    """A URL without its password."""
    head, at, tail = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    return f"{scheme}{slashes}{user.partition(':')[0]}:***@{tail}" if at and ":" in user else url
