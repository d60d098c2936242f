"""Tables of the catalog: an index of what was run, over projects. It holds nothing that the records do not hold."""

from __future__ import annotations

from sqlalchemy import JSON, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """Base of the catalog's tables."""


class Dataset(Base):
    """A project: the folder that holds one dataset and its layers."""

    __tablename__ = "dataset"

    id: Mapped[int] = mapped_column(primary_key=True)
    project: Mapped[str] = mapped_column(String(1024), unique=True)
    """Path of the project's folder."""
    voxel_z_nm: Mapped[float | None]
    voxel_y_nm: Mapped[float | None]
    voxel_x_nm: Mapped[float | None]
    runs: Mapped[list[Run]] = relationship(back_populates="dataset", cascade="all, delete-orphan")
    stages: Mapped[list[StageState]] = relationship(back_populates="dataset", cascade="all, delete-orphan")


class Run(Base):
    """One run of one stage, as told by its `run.json`."""

    __tablename__ = "run"
    __table_args__ = (UniqueConstraint("dataset_id", "stage", "run_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"), index=True)
    stage: Mapped[str] = mapped_column(String(64), index=True)
    run_id: Mapped[str] = mapped_column(String(128), index=True)
    started: Mapped[str | None] = mapped_column(String(40), index=True)
    """ISO 8601, UTC: texts sort as times."""
    ended: Mapped[str | None] = mapped_column(String(40))
    git_commit: Mapped[str | None] = mapped_column(String(64))
    git_dirty: Mapped[bool | None]
    user: Mapped[str | None] = mapped_column(String(128))
    host: Mapped[str | None] = mapped_column(String(255))
    executor: Mapped[str | None] = mapped_column(String(64))
    workers: Mapped[int | None]
    units_total: Mapped[int | None]
    units_computed: Mapped[int | None]
    units_reused: Mapped[int | None]
    compute_s: Mapped[float | None]
    """Compute time of the units that this run computed."""
    facts: Mapped[dict[str, object]] = mapped_column(JSON)
    """All of `run.json`."""
    dataset: Mapped[Dataset] = relationship(back_populates="runs")


class Model(Base):
    """A trained network that some stage was run with."""

    __tablename__ = "model"

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(String(255), unique=True)
    """`name@digest` of architecture and weights."""
    digest: Mapped[str | None] = mapped_column(String(64))


class StageState(Base):
    """What a stage's data folder holds now, as told by its `record.json`."""

    __tablename__ = "stage_state"
    __table_args__ = (UniqueConstraint("dataset_id", "stage"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[int] = mapped_column(ForeignKey("dataset.id", ondelete="CASCADE"), index=True)
    stage: Mapped[str] = mapped_column(String(64))
    units: Mapped[int]
    code_digest: Mapped[str] = mapped_column(String(64))
    model_id: Mapped[str | None] = mapped_column(String(255), index=True)
    record: Mapped[dict[str, object]] = mapped_column(JSON)
    """All of `record.json`."""
    dataset: Mapped[Dataset] = relationship(back_populates="stages")
