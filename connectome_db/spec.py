"""The vocabulary of the pipeline: what a stage declares, and what its pure functions receive and return.

A stage is data plus two pure functions. `plan` turns the geometry of the inputs into units of work; `compute` turns the
arrays and tables of one unit into arrays and tables. Neither can open a file, read a clock or draw an unseeded number.

    Found ──plan──> Plan ──(runner reads)──> Block ──compute──> Result ──(runner stores)──> data/<stage>/

This module is outside every code digest: what it means shows up in boxes, keys and the runner's format version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from connectome_db.geometry import Box, Vec3, box_of

RAW = "raw.tiles"
"""The input that is not made by a stage: the tiles of the manifest, one part per section."""

LISTED = "raw.synapses"
"""The same for a connectome made elsewhere: the rows of the list it is imported from, one part per block of rows."""
REJECTED = "raw.rejected"
"""Rows of that list that were set aside, one part per block of rows."""
ANNOTATIONS = "raw.annotations"
"""What lists of neurons say of each, as one part; perhaps without rows."""
SKELETONS = "raw.skeletons"
"""Nodes of its skeletons, as one part; perhaps without rows."""

LISTS = frozenset({LISTED, REJECTED, ANNOTATIONS, SKELETONS})
"""What an imported connectome starts from."""
RAW_INPUTS = LISTS | {RAW}
"""Every input that no stage makes."""

NM3 = tuple[float, float, float]
Kind = Literal["blocks", "sections", "pairs", "faces", "once"]
Array = npt.NDArray[Any]


class Params(BaseModel):
    """Parameters of a stage: frozen, unknown keys refused, each field documented by the docstring below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    networks: ClassVar[tuple[str, ...]] = ()
    """Fields that name a network. Keys hold the digest of what they name and not the name, so that a network that was
    moved or copied redoes nothing."""


P = TypeVar("P", bound=Params)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of a table: its Arrow type by name, its unit of measure and its meaning."""

    name: str
    dtype: Literal["uint64", "int64", "int32", "float64", "float32", "bool", "string"]
    doc: str
    unit: str = ""
    nullable: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of the database. The runner adds the column `unit` in front of `columns` and sorts by (unit, *key).

    `foreign` names, per column, the "table.column" it points to.
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    foreign: Mapping[str, str] = field(default_factory=dict)

    def arrow(self) -> pa.Schema:
        """The Arrow schema without `unit`: what `compute` returns."""
        return pa.schema([pa.field(c.name, ARROW[c.dtype], nullable=c.nullable) for c in self.columns])

    def stored(self) -> pa.Schema:
        """The Arrow schema with `unit` in front: what is stored."""
        return pa.schema([pa.field("unit", pa.uint64(), nullable=False), *self.arrow()])


ARROW: Mapping[str, pa.DataType] = {
    "uint64": pa.uint64(),
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float64": pa.float64(),
    "float32": pa.float32(),
    "bool": pa.bool_(),
    "string": pa.string(),
}


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A volume output: `compute` returns an array of the unit's core shape; chunks of background are not written.

    `kind` chooses encoding and pyramid: "image" is averaged and stored raw, "segmentation" keeps the mode and is stored
    as compressed_segmentation.
    """

    name: str
    dtype: Literal["uint8", "uint64"]
    kind: Literal["image", "segmentation"]
    doc: str


@dataclass(frozen=True, kw_only=True)
class Sorted:
    """A companion of a table: the same rows sorted by other columns, as `<table>.<name>.parquet` beside it.

    `by` must order all rows (it ends in the table's key). With `place`, three columns (z, y, x), rows are first ordered
    along a Morton curve through them, so that rows of a box lie in few row groups; without any places there is no such
    companion.
    """

    name: str
    by: tuple[str, ...]
    place: tuple[str, str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Adjacency:
    """A companion of a table of edges (pre, post, synapses): CSR in both directions, as NumPy files in a folder.

    The nodes are those of the output `neuron` of the same stage.
    """

    name: str


Companion = Sorted | Adjacency


@dataclass(frozen=True)
class Rows:
    """A table output.

    `part` says which rows change together for those who read it: those of one unit, or (for the output of a `once`
    stage) those of one section, in which case the table has a column `section` and `unit` is that section's code.
    `extent` then names the (y, x) columns whose hull is the section's box in the volume's frame.
    `companions` are made from the finished table by `finish`: no unit's key and no reader knows them.
    """

    table: Table
    part: Literal["unit", "section"] = "unit"
    extent: tuple[str, str] | None = None
    companions: tuple[Companion, ...] = ()

    @property
    def name(self) -> str:
        """The table's name, which is the output's name."""
        return self.table.name


@dataclass(frozen=True)
class Extent:
    """Geometry of one input: its parts' unit codes uint64[P] (ascending), boxes int64[P, 6], and their hull."""

    codes: npt.NDArray[np.uint64]
    boxes: npt.NDArray[np.int64]

    @property
    def bounds(self) -> Box:
        """Hull of all parts."""
        if len(self.boxes) == 0:
            return Box((0, 0, 0), (0, 0, 0))
        return box_of([*self.boxes[:, :3].min(axis=0), *self.boxes[:, 3:].max(axis=0)])


@dataclass(frozen=True)
class Found:
    """What a plan may look at: voxel size (z, y, x) in nm and the geometry of each input."""

    voxel_nm: NM3
    inputs: Mapping[str, Extent]


@dataclass(frozen=True)
class Read:
    """What every unit reads of one input: one box per unit, int64[N, 6]; an empty box reads nothing.

    An input may appear twice (two sections that are not neighbours). `None` reads all of it (`once`).
    """

    input: str
    boxes: npt.NDArray[np.int64] | None


@dataclass(frozen=True)
class Unit:
    """One unit of work: its lattice code and position, the box it alone writes, and the boxes it reads."""

    kind: Kind
    code: int
    position: Vec3
    axis: int
    core: Box
    reads: tuple[tuple[str, Box | None], ...]

    def __str__(self) -> str:
        z, y, x = self.position
        match self.kind:
            case "sections":
                return f"section {z}"
            case "pairs":
                return f"sections {z}-{z + y}"
            case "faces":
                return f"face {'zyx'[self.axis]} of block {z}/{y}/{x}"
            case "once":
                return "whole"
            case _:
                return f"block {z}/{y}/{x}"


@dataclass(frozen=True)
class Plan:
    """All units of a stage as arrays, ascending by code. Made by the functions of `plans`, never by hand."""

    kind: Kind
    codes: npt.NDArray[np.uint64]
    cores: npt.NDArray[np.int64]
    reads: tuple[Read, ...]
    bounds: Box
    block_vx: Vec3 | None = None

    def __len__(self) -> int:
        return len(self.codes)


class Network(Protocol):
    """A trained network, loaded by the runner and handed to `compute`."""

    @property
    def model_id(self) -> str:
        """`name@sha256[:12]` of architecture and weights."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Meaning of each output channel."""

    @property
    def margin_vx(self) -> Vec3:
        """Context (z, y, x) beyond which input cannot change the output at a voxel."""

    @property
    def alignment_vx(self) -> Vec3:
        """Boxes that start at multiples of this see the same values at the same voxels."""

    def predict(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """(z, y, x) uint8 -> (c, z, y, x) float32 in [0, 1]."""


@runtime_checkable
class Window(Protocol):
    """A network that says, for what it sees through its window, what belongs to the object in the middle."""

    @property
    def model_id(self) -> str:
        """`name@sha256[:12]` of architecture and weights."""

    @property
    def fov_vx(self) -> Vec3:
        """Extent (z, y, x) of the window, odd."""

    @property
    def deltas_vx(self) -> Vec3:
        """Step (z, y, x) to the next window; 0 on an axis along which it never moves."""

    @property
    def batch(self) -> int:
        """Rows of every call."""

    def predict(self, images: npt.NDArray[np.uint8], masks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Image uint8 and mask so far (logits float32), both (batch, z, y, x) -> new logits of the same shape."""


@dataclass(frozen=True)
class Block(Generic[P]):
    """What `compute` gets: one unit, its effective parameters, and what it reads, read-only.

    `arrays` and `boxes` are keyed by input ("render.image"); an array covers its box, which is clipped to the input's
    bounds. `tables` holds the rows of the parts each read box touches, without duplicates, sorted by (unit, key).
    `tiles` maps a tile's name to its pixels, uint8 (y, x), checked against the digest recorded for it.
    """

    unit: Unit
    params: P
    voxel_nm: NM3
    arrays: Mapping[str, Array]
    boxes: Mapping[str, Box]
    tables: Mapping[str, pa.Table]
    tiles: Mapping[str, npt.NDArray[np.uint8]]
    network: Network | Window | None
    seed: int

    def rng(self) -> np.random.Generator:
        """A generator seeded from (stage, unit), so that results do not depend on workers or order."""
        return np.random.default_rng(self.seed)

    @property
    def model(self) -> Network:
        """The network from image to probabilities; for stages that declare one."""
        if self.network is None or isinstance(self.network, Window):
            raise RuntimeError("this stage declares no network from image to probabilities")
        return self.network

    @property
    def window(self) -> Window:
        """The flood-filling network; for stages that declare one."""
        if not isinstance(self.network, Window):
            raise RuntimeError("this stage declares no flood-filling network")
        return self.network


Result = Mapping[str, Array | pa.Table]


@dataclass(frozen=True, kw_only=True)
class Stage(Generic[P]):
    """A stage, declared. `plan` and `compute` are pure functions."""

    name: str
    summary: str
    params: type[P]
    inputs: tuple[str, ...]
    outputs: tuple[Volume | Rows, ...]
    plan: Callable[[Found, P], Plan]
    compute: Callable[[Block[P]], Result]
    network: str | None = None
    """The task of the model that the parameter `model` must name, or None: "ffn" is a `Window`, others ("affinity")
    are a `Network`."""


AnyStage = Stage[Any]
