"""Neuroglancer precomputed volumes, written by units and read through TensorStore. The only door to both formats.

A unit owns one block of a lattice fixed at the origin, and encodes its own voxels for all levels of the pyramid:

    array (z, y, x) --encode--> {local name: bytes} --(store, finish)--> <volume>/<scale>/<x0-x1_y0-y1_z0-z1>

Local names count from the block's corner, so that equal content has equal files wherever it lies; `absolute_name` says
what `finish` must call them. Chunks of background are not written, and read as 0. Chunks are never compressed as files:
cloud-volume's default gzip names them `.gz`, which TensorStore and Neuroglancer take as missing, that is, as zeros.

Chunk grids start at `voxel_offset`, so the `info` of a volume that does not begin on the chunk lattice declares bounds
snapped outwards on the low side; the margin reads as 0. The true bounds and the block size are kept in `info` under
"connectome_db", which other readers ignore. Axes are (z, y, x) everywhere, and are reversed only in this module.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import compressed_segmentation
import numpy as np
import numpy.typing as npt
import tensorstore

from connectome_db.errors import StageError, StoreError
from connectome_db.geometry import Box, Vec3, box_of
from connectome_db.kernels import pyramid
from connectome_db.spec import NM3, Volume

Array = npt.NDArray[Any]

LARGEST_CHUNK_VX: Vec3 = (64, 128, 128)
SMALLEST_CHUNK_VX = 8
SEGMENTATION_BLOCK = (8, 8, 8)
NEAR_ISOTROPIC = 2**0.5
"""Axes whose voxels are within this ratio of the finest are halved together."""

_TENSORSTORE_ERRORS = (ValueError, OSError, RuntimeError, NotImplementedError)
_ZEROS = bytes(LARGEST_CHUNK_VX[0] * LARGEST_CHUNK_VX[1] * LARGEST_CHUNK_VX[2])


@dataclass(frozen=True)
class Scale:
    """One level of a pyramid; all boxes in voxels of this level.

    `factor` is its voxel in voxels of level 0; `bounds` are the voxels that hold data; `stored` also holds the margin
    that `info` declares on the low side so that chunks lie on the lattice of the origin.
    """

    key: str
    factor: Vec3
    voxel_nm: NM3
    chunk_vx: Vec3
    bounds: Box

    @property
    def stored(self) -> Box:
        """Bounds as declared in `info`: `bounds`, snapped down to the chunk lattice on the low side."""
        return Box(self.bounds.snap(self.chunk_vx).lo, self.bounds.hi)


@dataclass(frozen=True)
class VolumeLayout:
    """How a volume lies on disk: everything that `info` says. Raises StageError when two units would share a chunk."""

    name: str
    dtype: str
    kind: str
    bounds: Box
    block_vx: Vec3
    voxel_nm: NM3
    scales: tuple[Scale, ...]

    def __post_init__(self) -> None:
        for scale in self.scales:
            step = tuple(f * c for f, c in zip(scale.factor, scale.chunk_vx, strict=True))
            if any(b % s for b, s in zip(self.block_vx, step, strict=True)):
                raise StageError(
                    f"volume {self.name!r}, scale {scale.key}: a chunk covers {step} voxels (z, y, x), which do not "
                    f"divide the block {self.block_vx}; two units would write one chunk. Change the block or the chunk"
                )

    @property
    def encoding(self) -> str:
        """Neuroglancer's name of the chunk encoding: only uint64 labels are compressed."""
        return "compressed_segmentation" if self.dtype == "uint64" else "raw"

    def block_of(self, core: Box) -> Box:
        """The lattice block of `core`. Raises StageError unless `core` is that block cut to the bounds."""
        z, y, x = (a // b * b for a, b in zip(core.lo, self.block_vx, strict=True))
        block = Box((z, y, x), (z + self.block_vx[0], y + self.block_vx[1], x + self.block_vx[2]))
        if core.empty or block.clip(self.bounds) != core:
            raise StageError(
                f"volume {self.name!r}: wanted a core box that is one block of {self.block_vx} voxels on the lattice "
                f"of the origin, cut to the bounds ({self.bounds}); came {core}"
            )
        return block


def layout(volume: Volume, bounds: Box, block_vx: Vec3, voxel_nm: NM3) -> VolumeLayout:
    """Lay out `volume` over `bounds` (voxels), made in blocks of `block_vx` with voxels of `voxel_nm` (z, y, x).

    Each level halves the finest axes (those within a factor of 1.4 of the finest: y and x first while z is coarser) as
    long as a block keeps at least 8 whole voxels on each halved axis. A chunk is the largest divisor of the block's
    extent that is at most 64 (z) or 128 (y, x). Raises StageError for an empty or impossible layout.
    """
    if bounds.empty or min(block_vx) <= 0 or min(voxel_nm) <= 0:
        raise StageError(
            f"volume {volume.name!r}: wanted bounds with voxels, block_vx > 0 and voxel_nm > 0; "
            f"came {bounds}, {block_vx}, {voxel_nm}"
        )
    if (volume.dtype, volume.kind) == ("uint64", "image"):
        raise StageError(f"volume {volume.name!r}: an image is uint8; declare uint64 volumes as kind='segmentation'")
    scales = []
    factor: Vec3 = (1, 1, 1)
    while True:
        size = _each(lambda b, f: b // f, block_vx, factor)
        scales.append(
            Scale(
                key="_".join(f"{v * f:.10g}" for v, f in zip(voxel_nm[::-1], factor[::-1], strict=True)),
                factor=factor,
                voxel_nm=(voxel_nm[0] * factor[0], voxel_nm[1] * factor[1], voxel_nm[2] * factor[2]),
                chunk_vx=_each(lambda n, most: _chunk(volume.name, n, most), size, LARGEST_CHUNK_VX),
                bounds=_coarse(bounds, factor),
            )
        )
        step = _next_step(scales[-1].voxel_nm)
        if any(s == 2 and (n % 2 or n // 2 < SMALLEST_CHUNK_VX) for s, n in zip(step, size, strict=True)):
            break
        factor = _each(lambda f, s: f * s, factor, step)
    return VolumeLayout(volume.name, volume.dtype, volume.kind, bounds, block_vx, voxel_nm, tuple(scales))


def _each(function: Any, a: Vec3, b: Vec3) -> Vec3:
    return function(a[0], b[0]), function(a[1], b[1]), function(a[2], b[2])


def _coarse(box: Box, factor: Vec3) -> Box:
    return Box(_each(lambda v, f: v // f, box.lo, factor), _each(lambda v, f: -(-v // f), box.hi, factor))


def _next_step(voxel_nm: NM3) -> Vec3:
    finest = min(voxel_nm)
    z, y, x = (2 if v < finest * NEAR_ISOTROPIC else 1 for v in voxel_nm)
    return z, y, x


def _chunk(name: str, extent_vx: int, most_vx: int) -> int:
    chunk = max(n for n in range(1, min(extent_vx, most_vx) + 1) if extent_vx % n == 0)
    if chunk < min(extent_vx, SMALLEST_CHUNK_VX):
        raise StageError(
            f"volume {name!r}: a block extent of {extent_vx} voxels has no divisor between {SMALLEST_CHUNK_VX} and "
            f"{most_vx} to be a chunk; choose block sizes that are multiples of 16"
        )
    return chunk


def info(layout: VolumeLayout) -> bytes:
    """The `info` file of a volume: deterministic JSON, readable by Neuroglancer, cloud-volume and TensorStore."""
    scales = []
    for scale in layout.scales:
        entry: dict[str, Any] = {
            "key": scale.key,
            "resolution": [int(v) if v == int(v) else v for v in scale.voxel_nm[::-1]],
            "voxel_offset": list(scale.stored.lo[::-1]),
            "size": list(scale.stored.shape[::-1]),
            "chunk_sizes": [list(scale.chunk_vx[::-1])],
            "encoding": layout.encoding,
        }
        if layout.encoding == "compressed_segmentation":
            entry["compressed_segmentation_block_size"] = list(SEGMENTATION_BLOCK)
        scales.append(entry)
    document = {
        "@type": "neuroglancer_multiscale_volume",
        "type": layout.kind,
        "data_type": layout.dtype,
        "num_channels": 1,
        "scales": scales,
        "connectome_db": {
            "name": layout.name,
            "bounds_zyx": list(layout.bounds.flat()),
            "block_zyx": list(layout.block_vx),
            "voxel_nm_zyx": list(layout.voxel_nm),
            "factors_zyx": [list(s.factor) for s in layout.scales],
        },
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def open_info(folder: Path) -> VolumeLayout:
    """The layout of the volume in `folder`. Raises StoreError when its `info` is missing, damaged or not ours."""
    path = folder / "info"
    try:
        return parse_info(path.read_bytes(), str(path))
    except FileNotFoundError:
        raise StoreError(f"no volume at {folder}: wanted the file 'info' there; run the stage that makes it") from None


def parse_info(document: bytes, where: str) -> VolumeLayout:
    """The layout that an `info` file declares. Raises StoreError, naming `where`, when it is damaged or not ours."""
    try:
        value = json.loads(document)
        ours = value["connectome_db"]
        bounds = box_of(ours["bounds_zyx"])
        scales = []
        for entry, factor in zip(value["scales"], ours["factors_zyx"], strict=True):
            fz, fy, fx = factor
            cx, cy, cz = entry["chunk_sizes"][0]
            rx, ry, rz = entry["resolution"]
            box = _coarse(bounds, (fz, fy, fx))
            scales.append(Scale(entry["key"], (fz, fy, fx), (rz, ry, rx), (cz, cy, cx), box))
        (bz, by, bx), (vz, vy, vx) = ours["block_zyx"], ours["voxel_nm_zyx"]
        dtype, kind = value["data_type"], value["type"]
        return VolumeLayout(ours["name"], dtype, kind, bounds, (bz, by, bx), (vz, vy, vx), tuple(scales))
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise StoreError(
            f"{where}: wanted the info of a precomputed volume made by connectome_db, cannot read it "
            f"({type(error).__name__}: {error}); run the stage that makes it again"
        ) from error


def encode(layout: VolumeLayout, core: Box, array: Array) -> dict[str, bytes]:
    """The chunk files of one unit: local name ("<scale>/x0-x1_y0-y1_z0-z1", counted from the block's corner) -> bytes.

    `array` (z, y, x) holds the voxels of `core`, a block cut to the bounds. Images are averaged level by level, labels
    keep the mode; chunks that are all 0 are left out. Raises StageError for a wrong dtype, shape or core.
    """
    block = layout.block_of(core)
    if array.dtype != np.dtype(layout.dtype) or array.shape != core.shape:
        raise StageError(
            f"volume {layout.name!r}: wanted {layout.dtype}{core.shape}, came {array.dtype}{array.shape} for {core}"
        )
    files: dict[str, bytes] = {}
    lo, factor = core.lo, (1, 1, 1)
    for scale in layout.scales:
        step = _each(lambda a, b: a // b, scale.factor, factor)
        if step != (1, 1, 1):
            reduce = pyramid.average if layout.kind == "image" else pyramid.mode
            array = reduce(array, step, _each(lambda a, s: a % s, lo, step))
        factor, lo = scale.factor, _each(lambda a, f: a // f, core.lo, scale.factor)
        margin = _each(lambda a, c: a % c, lo, scale.chunk_vx)
        padded = np.pad(array, [(m, 0) for m in margin]) if any(margin) else array
        corner = _each(lambda a, f: a // f, block.lo, scale.factor)
        start = _each(lambda a, m: a - m, lo, margin)
        held = Box(start, _each(lambda a, n: a + n, start, padded.shape))
        for chunk in _chunks(held, scale.chunk_vx):
            data = _chunk_bytes(padded[chunk.slices(start)], layout.encoding)
            if data:
                local = chunk.shift((-corner[0], -corner[1], -corner[2]))
                files[f"{scale.key}/{_chunk_name(local)}"] = data
    return files


def _chunk_bytes(voxels: Array, encoding: str) -> bytes:
    """One chunk (z, y, x), x fastest, in `encoding`; nothing when all of it is 0."""
    if encoding == "raw":
        raw = voxels.tobytes()
        return b"" if raw == _ZEROS[: len(raw)] else raw
    if not voxels.any():
        return b""
    # A copy, because the encoder takes memory as it lies, whatever the strides say, and refuses read-only memory.
    labels = np.array(voxels, order="C")
    return bytes(compressed_segmentation.compress(labels.T, block_size=SEGMENTATION_BLOCK, order="F"))


def _chunks(box: Box, chunk_vx: Vec3) -> Iterator[Box]:
    """Chunks of a box that starts on the chunk lattice, cut to it; x fastest."""
    for z in range(box.lo[0], box.hi[0], chunk_vx[0]):
        for y in range(box.lo[1], box.hi[1], chunk_vx[1]):
            for x in range(box.lo[2], box.hi[2], chunk_vx[2]):
                yield Box((z, y, x), (z + chunk_vx[0], y + chunk_vx[1], x + chunk_vx[2])).clip(box)


def _chunk_name(box: Box) -> str:
    (z0, y0, x0), (z1, y1, x1) = box.lo, box.hi
    return f"{x0}-{x1}_{y0}-{y1}_{z0}-{z1}"


def chunk_names(layout: VolumeLayout, core: Box) -> dict[str, str]:
    """Chunks of level 0 of one unit, written or not: local name -> path below the volume's folder."""
    block, scale = layout.block_of(core), layout.scales[0]
    held = Box(_each(lambda a, c: a // c * c, core.lo, scale.chunk_vx), core.hi)
    local = (c.shift((-block.lo[0], -block.lo[1], -block.lo[2])) for c in _chunks(held, scale.chunk_vx))
    names = [f"{scale.key}/{_chunk_name(c)}" for c in local]
    return {name: absolute_name(layout, core, name) for name in names}


def absolute_name(layout: VolumeLayout, core: Box, local_name: str) -> str:
    """Path below the volume's folder of a unit's chunk file, from its local name.

    Raises StoreError when `local_name` is not a chunk of this unit.
    """
    block = layout.block_of(core)
    key, _, name = local_name.partition("/")
    scale = next((s for s in layout.scales if s.key == key), None)
    if scale is not None:
        corner = _each(lambda a, f: a // f, block.lo, scale.factor)
        try:
            (x0, x1), (y0, y1), (z0, z1) = ([int(v) for v in axis.split("-")] for axis in name.split("_"))
        except ValueError:
            pass
        else:
            box = Box((z0, y0, x0), (z1, y1, x1)).shift(corner)
            lattice = box.snap(scale.chunk_vx)
            inside = _coarse(block, scale.factor).contains(lattice)
            if inside and lattice.shape == scale.chunk_vx and lattice.clip(scale.stored) == box:
                return f"{key}/{_chunk_name(box)}"
    raise StoreError(
        f"volume {layout.name!r}: {local_name!r} is not a chunk of the unit with core {core}; "
        f"wanted '<scale>/x0-x1_y0-y1_z0-z1' with a scale of {', '.join(s.key for s in layout.scales)}"
    )


def read(folder: Path, box: Box, level: int = 0) -> Array:
    """Voxels (z, y, x) of `box` (voxels of `level`) of the volume in `folder`; chunks that are not there read as 0.

    Raises StoreError when the volume or level is missing, `box` leaves its bounds, or a chunk is damaged.
    """
    found = open_info(folder)
    if not 0 <= level < len(found.scales):
        raise StoreError(f"{folder}: wanted level {level}, the volume has levels 0 to {len(found.scales) - 1}")
    bounds = found.scales[level].bounds
    if not bounds.contains(box):
        raise StoreError(
            f"{folder}: wanted {box} of level {level}, the volume has {bounds} (voxels, not nm): "
            "cut the box to the bounds, or run the stage over a larger region"
        )
    store = {"driver": "file", "path": f"{folder.resolve()}/"}
    return _read(store, level, box, np.dtype(found.dtype), str(folder), tensorstore.Context())


def decode(layout: VolumeLayout, core: Box, files: Mapping[str, bytes]) -> Array:
    """Level 0 of one unit, (z, y, x) of `core`, from its chunk files by local name; chunks left out are 0.

    Raises StoreError when a chunk is damaged, or a file is not a chunk of this unit.
    """
    context = tensorstore.Context()
    memory = {"driver": "memory", "path": "unit/"}
    store = tensorstore.KvStore.open(memory, context=context).result()
    store["info"] = info(layout)
    for name, data in files.items():
        absolute = absolute_name(layout, core, name)
        if absolute.startswith(f"{layout.scales[0].key}/"):
            store[absolute] = data
    return _read(memory, 0, core, np.dtype(layout.dtype), f"unit with core {core}", context)


def decode_chunk(layout: VolumeLayout, core: Box, name: str, data: bytes) -> Array:
    """Voxels (z, y, x) of one chunk file of any level, by its local name. Raises StoreError when it is damaged."""
    context = tensorstore.Context()
    memory = {"driver": "memory", "path": "chunk/"}
    store = tensorstore.KvStore.open(memory, context=context).result()
    store["info"] = info(layout)
    absolute = absolute_name(layout, core, name)
    store[absolute] = data
    key, _, extent = absolute.partition("/")
    (x0, x1), (y0, y1), (z0, z1) = ([int(v) for v in axis.split("-")] for axis in extent.split("_"))
    level = [s.key for s in layout.scales].index(key)
    return _read(memory, level, Box((z0, y0, x0), (z1, y1, x1)), np.dtype(layout.dtype), absolute, context)


def _read(store: Mapping[str, str], level: int, box: Box, dtype: np.dtype[Any], where: str, context: Any) -> Array:
    if box.empty:
        return np.zeros([max(n, 0) for n in box.shape], dtype=dtype)
    spec = {"driver": "neuroglancer_precomputed", "kvstore": dict(store), "scale_index": level}
    (z0, y0, x0), (z1, y1, x1) = box.lo, box.hi
    try:
        volume = tensorstore.open(spec, read=True, open=True, context=context).result()
        view = volume[x0:x1, y0:y1, z0:z1, 0].T
        found: Array = view.read(order="C").result()
    except _TENSORSTORE_ERRORS as error:
        raise StoreError(
            f"{where}: cannot read {box}: {error}. If a chunk is damaged, "
            "remove the unit that wrote it from the store and run the stage again"
        ) from error
    return found
