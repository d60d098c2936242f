"""Which files a connectome made elsewhere is imported from, and what their columns mean: the lists of params.yaml."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

UNKNOWN = "unknown"
"""What is written where nobody said: it is never invented."""

Unit = Literal["nm", "um", "vx"]
NM_PER = {"nm": 1.0, "um": 1000.0}
"""Nanometres per unit of length; voxels (`vx`) need a voxel size."""


class Origin(BaseModel):
    """Where a file came from, as far as somebody said."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    source: str = UNKNOWN
    """Where the file is from: a URL, a release, a laboratory."""
    licence: str = UNKNOWN
    """Under which licence it may be used."""
    citation: str = UNKNOWN
    """What to cite when it is used."""


class SynapseList(Origin):
    """A list that a connectome is imported from, and which of its columns say what."""

    file: str
    """CSV, TSV, Parquet, Feather, Arrow, xlsx, JSON, GraphML or npy file; relative to the project, or absolute."""
    sheet: str | None = None
    """Sheet of a workbook; None: its first one. Of GraphML, `edges`."""
    matrix: bool = False
    """True for an adjacency matrix: its cells are the rows of the list; columns `row`, `column` and `value`."""
    names: str | None = None
    """For a matrix without names (npy): a text file with one neuron a line. None: they are called 1, 2, 3 …"""
    where: dict[str, str] = {}
    """Only rows whose columns have these values."""
    pre: str
    """Column of the presynaptic neuron."""
    post: str
    """Column of the postsynaptic neuron."""
    weight: str | None = None
    """Column of the number of synapses that a row stands for; None: one."""
    synapse: str | None = None
    """Column of the list's own names of synapses."""
    position: dict[Literal["x", "y", "z", "xyz"], str] = {}
    """Columns of the place: `x`, `y` and `z`, or `xyz` for one column of the form [x, y, z]. Empty: places unknown."""
    unit: Unit | None = None
    """Unit of the place; `vx` are voxels of `dataset.voxel_nm`."""
    size: str | None = None
    """Column of the size of a synapse, in the list's own unit."""
    confidence: str | None = None
    """Column of the confidence in a synapse."""
    roi: str | None = None
    """Column of the region that a synapse is in."""
    mixed_names: bool = False
    """True: neurons are called by numbers and by names in one column. False: the rarer sort is an error."""
    set_aside: bool = False
    """True: rows that cannot be used go to the table `rejected_row`. False: they are an error."""


class AnnotationList(Origin):
    """A table that says something about neurons: one row per neuron, each column a kind of annotation."""

    file: str
    """CSV, TSV, Parquet, Feather, Arrow, xlsx, JSON or GraphML file; relative to the project, or absolute."""
    sheet: str | None = None
    """Sheet of a workbook; None: its first one. Of GraphML, `nodes`."""
    neuron: str
    """Column of the neuron."""
    columns: tuple[str, ...] = ()
    """Columns that are taken, each a kind of annotation; empty: all others."""
    mixed_names: bool = False
    """True: neurons are called by numbers and by names in one column. False: the rarer sort is an error."""
    set_aside: bool = False
    """True: rows whose neuron cannot be used are left out, and `record.json` lists them. False: they are an error."""


class SkeletonFolder(Origin):
    """A folder of skeletons in SWC, one file per neuron, called by the neuron."""

    folder: str
    """Folder of .swc files; relative to the project, or absolute."""
    unit: Unit
    """Unit of places and radii; SWC itself does not say it."""
    voxel_nm: tuple[float, float, float] | None = None
    """For the unit `vx`: voxel size (z, y, x) in nm."""
