"""The microscope: an aligned volume in, overlapping tiles with everything that goes wrong out, and the truth beside."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from connectome_db.errors import ConfigError
from connectome_db.phantom.artefacts import Artefacts, TileName, disturb, run_boxes, stain_box, stain_weight
from connectome_db.phantom.distort import SectionMaps, random_maps
from connectome_db.phantom.tissue import graph_of

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Progress = Callable[[int, int], None]
"""Called with (sections done, sections in all)."""

_RESIN_GREY = 205.0


class AcquireConfig(BaseModel):
    """How the microscope and the section cutter err. The same configuration and volume give the same bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int = 11
    grid: tuple[int, int] = (2, 2)
    """Tiles per section (rows, columns)."""
    overlap: float = Field(default=0.13, gt=0.02, lt=0.5)
    """Share of a tile that its neighbour also covers, nominally."""
    stage_error_px: float = Field(default=4.0, ge=0)
    """A tile's true position is off its nominal one by up to this, each axis, sub-pixel."""
    first_section: int = Field(default=0, ge=0)
    """Number of the first section."""
    shift_px: float = Field(default=12.0, ge=0)
    """Largest shift of a section, each axis."""
    rotation_deg: float = Field(default=1.0, ge=0, le=10)
    """Largest rotation of a section."""
    warp_px: float = Field(default=3.0, ge=0)
    """About the largest displacement of the smooth warp, each axis."""
    warp_wavelength_px: tuple[float, float] = (300.0, 500.0)
    """Wavelengths of the warp are drawn from this range."""
    drift_px_per_section: tuple[float, float] = (0.0, 0.0)
    """Steady shift (y, x) from section to section, on top."""
    vignetting: float = Field(default=0.2, ge=0, lt=1)
    """Share of the light lost in a tile's corners; the same in all tiles."""
    gain_spread: float = Field(default=0.16, ge=0, lt=1)
    """Contrast of a section is scaled by 1 +- this."""
    offset_grey: float = Field(default=14.0, ge=0)
    """Brightness of a section is moved by up to this."""
    noise_grey: float = Field(default=3.0, ge=0)
    """Standard deviation of noise that differs between tiles where they overlap."""
    artefacts: Artefacts = Artefacts()


@dataclass(frozen=True)
class _Layout:
    """Nominal tiles of every section, in the section's plane."""

    tile_px: tuple[int, int]
    step_px: tuple[int, int]
    window_px: tuple[int, int]


def acquire(
    image: npt.NDArray[np.uint8],
    config: AcquireConfig,
    out_folder: Path,
    *,
    voxel_nm: tuple[int, int, int],
    labels: npt.NDArray[np.unsignedinteger] | None = None,
    cleft: npt.NDArray[np.unsignedinteger] | None = None,
    synapses: pa.Table | None = None,
    source: str = "",
    progress: Progress | None = None,
) -> Path:
    """Image an aligned volume `image` (z, y, x) section by section; write `raw/` and `truth/` under `out_folder`.

    The imaged window lies inside the tissue whatever the shifts, so that tiles hold tissue and nothing else. Pixels are
    interpolated once (cubic spline). `synapses` needs z, y, x (voxels), pre, post and may have area_nm2. `source` says
    in the truth where the volume came from. Returns the path of the manifest.

    Raises:
        ConfigError: the folder already holds a manifest, the volume is too small, or an artefact names no section.
    """
    raw, truth = out_folder / "raw", out_folder / "truth"
    if (raw / "manifest.csv").exists():
        raise ConfigError(f"{raw / 'manifest.csv'} exists already: choose another folder, raw data is never replaced")
    shape = (int(image.shape[0]), int(image.shape[1]), int(image.shape[2]))
    first = config.first_section
    config.artefacts.check((first, first + shape[0] - 1), config.grid)
    layout = _layout(shape, config)
    rng = np.random.default_rng([config.seed, 0xAC90])
    scope = _Microscope(
        config=config,
        layout=layout,
        maps=_maps(rng, shape, config, layout),
        true_px=_positions(rng, shape[0], config, layout),
        gain=rng.uniform(1 - config.gain_spread, 1 + config.gain_spread, shape[0]),
        offset_grey=rng.uniform(-config.offset_grey, config.offset_grey, shape[0]),
        light=_light(layout.tile_px, config.vignetting),
        fading=None if config.artefacts.staining is None else stain_weight(config.artefacts.staining, shape[1:]),
    )
    raw.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    manifest: list[dict[str, object]] = []
    tiles: list[dict[str, object]] = []
    for k in range(shape[0]):
        for tile in _section_tiles(scope, k, image[k]):
            if not tile.absent:
                (raw / tile.name).write_bytes(tile.data)
            place = {"path": tile.name, "section": first + k}
            size = {"height_px": layout.tile_px[0], "width_px": layout.tile_px[1]}
            nominal = {"stage_y_px": tile.row * layout.step_px[0], "stage_x_px": tile.col * layout.step_px[1]}
            manifest.append({**place, **nominal, **size, "sha256": hashlib.sha256(tile.data).hexdigest()})
            true = {"true_y_px": repr(float(tile.at_px[0])), "true_x_px": repr(float(tile.at_px[1]))}
            tiles.append({**place, "row": tile.row, "col": tile.col, **true, **size})
        if progress is not None:
            progress(k + 1, shape[0])
    _write_csv(truth / "tiles.csv", tiles)
    _write_tissue(truth / "tissue.h5", image, labels, cleft, voxel_nm)
    if synapses is not None:
        pq.write_table(synapses, truth / "synapses.parquet")
        pq.write_table(_graph(synapses), truth / "graph.parquet")
    _write_facts(truth, scope, shape, voxel_nm, source)
    # Last: a manifest means that everything it lists has been written.
    _write_csv(raw / "manifest.csv", manifest)
    return raw / "manifest.csv"


@dataclass(frozen=True)
class _Microscope:
    """Everything drawn before the first tile is taken."""

    config: AcquireConfig
    layout: _Layout
    maps: SectionMaps
    true_px: F64
    gain: F64
    offset_grey: F64
    light: F32
    fading: F32 | None


@dataclass(frozen=True)
class _Tile:
    """One PNG, named and placed."""

    name: str
    row: int
    col: int
    at_px: F64
    data: bytes
    absent: bool


def _section_tiles(scope: _Microscope, k: int, tissue: U8) -> Iterator[_Tile]:
    """The tiles of the k-th section, imaged from its plane (y, x) of tissue."""
    config, size = scope.config, scope.layout.tile_px
    art, section = config.artefacts, config.first_section + k
    plane: F32 = tissue.astype(np.float32)
    plane = disturb(plane, art, section, scope.fading, config.seed)
    gain, offset, noise_grey = float(scope.gain[k]), float(scope.offset_grey[k]), config.noise_grey
    if art.session is not None and art.session.holds(section):
        gain, offset = gain * art.session.contrast, offset + art.session.offset_grey
        noise_grey = art.session.noise_grey
    spline = ndimage.spline_filter(plane, order=3, output=np.float32, mode="mirror")
    for row in range(config.grid[0]):
        for col in range(config.grid[1]):
            at = scope.true_px[k, row, col]
            clean = _expose(spline, scope.maps, section, at, size, blank=section == art.blank_section)
            clean = (clean - 128.0) * np.float32(gain) + np.float32(128.0 + offset)
            # Seeded per tile, so that another grid or fewer sections change no other tile's noise.
            grain = np.random.default_rng([config.seed, 0x711E, section, row, col])
            noise = grain.standard_normal(size, dtype=np.float32) * np.float32(noise_grey)
            pixels = np.clip(np.rint(clean * scope.light + noise), 0, 255).astype(np.uint8)
            absent = TileName(section=section, row=row, col=col) in art.missing_tiles
            yield _Tile(f"s{section:04d}_r{row}_c{col}.png", row, col, at, _png(pixels), absent)


def _margin_px(shape: tuple[int, int, int], config: AcquireConfig) -> int:
    """How far inside the tissue the window must stay, for the worst shift, rotation, warp, fold and stage error."""
    half = 0.5 * max(shape[1:])
    fold = config.artefacts.fold
    drift = 0.5 * shape[0] * max(abs(v) for v in config.drift_px_per_section)
    turn = np.deg2rad(config.rotation_deg) * half
    worst = config.shift_px + turn + 2.2 * config.warp_px + drift + config.stage_error_px
    return int(np.ceil(worst + (0.5 * fold.width_px if fold else 0.0) + 2))


def _layout(shape: tuple[int, int, int], config: AcquireConfig) -> _Layout:
    margin = _margin_px(shape, config)
    tile, step, window = [], [], []
    for size, count in zip(shape[1:], config.grid, strict=True):
        room = size - 2 * margin
        edge = int(room / (count - (count - 1) * config.overlap))
        if edge < 48:
            raise ConfigError(
                f"tiles would be {edge} px: the volume is {size} px wide, and shifts, rotation and warp need "
                f"{margin} px on each side; give a larger volume, fewer tiles than {count}, or smaller errors"
            )
        stride = round(edge * (1 - config.overlap)) if count > 1 else edge
        tile.append(edge)
        step.append(stride)
        window.append(stride * (count - 1) + edge)
    return _Layout((tile[0], tile[1]), (step[0], step[1]), (window[0], window[1]))


def _maps(rng: np.random.Generator, shape: tuple[int, int, int], config: AcquireConfig, layout: _Layout) -> SectionMaps:
    centre = (np.asarray(layout.window_px, np.float64) - 1) / 2
    maps = random_maps(
        rng,
        config.first_section + np.arange(shape[0]),
        shift_px=config.shift_px,
        rotation_deg=config.rotation_deg,
        warp_px=config.warp_px,
        wavelength_px=config.warp_wavelength_px,
        drift_px_per_section=config.drift_px_per_section,
        plane_centre_px=centre,
        tissue_centre_px=(np.asarray(shape[1:], np.float64) - 1) / 2,
    )
    fold = config.artefacts.fold
    if fold is not None:
        angle = np.deg2rad(fold.angle_deg)
        point = centre + fold.offset_px * np.array([np.sin(angle), np.cos(angle)])
        maps.fold[maps.row(fold.section)] = [*point, angle, fold.width_px, fold.softness_px]
    return maps


def _positions(rng: np.random.Generator, sections: int, config: AcquireConfig, layout: _Layout) -> F64:
    """(section, row, column, 2) true top left of each tile in the section's plane."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in config.grid), indexing="ij"), axis=-1)
    error = rng.uniform(-config.stage_error_px, config.stage_error_px, (sections, *grid.shape))
    out: F64 = grid * np.asarray(layout.step_px, np.float64) + error
    return out


def _expose(spline: F32, maps: SectionMaps, section: int, at_px: F64, tile_px: tuple[int, int], *, blank: bool) -> F32:
    """Noise-free pixels of one tile, sampled once from the section's spline coefficients."""
    if blank:
        return np.full(tile_px, _RESIN_GREY, np.float32)
    pixel = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float64) for n in tile_px), indexing="ij"), axis=-1) + at_px
    source = maps.section_to_tissue(section, pixel)
    edge = np.asarray(spline.shape) - 1
    if source.min() < 0 or (source > edge).any():
        raise ConfigError(
            f"section {section}: a tile reaches outside the tissue (0 to {edge.tolist()} px) to "
            f"{source.min():.1f} .. {source.max():.1f} px; "
            "make warp_px or warp_wavelength_px smaller"
        )
    out: F32 = ndimage.map_coordinates(
        spline, np.moveaxis(source, -1, 0), output=np.float32, order=3, mode="mirror", prefilter=False
    )
    return (out * (1 - 0.7 * maps.fold_darkness(section, pixel))).astype(np.float32)


def _light(tile_px: tuple[int, int], vignetting: float) -> F32:
    """(y, x) illumination of a tile: falls off from a point near its centre, 1 at most."""
    y = np.linspace(-1, 1, tile_px[0])[:, None] - 0.08
    x = np.linspace(-1, 1, tile_px[1]) + 0.12
    fall = (y * y + x * x) / ((1.08**2) + (1.12**2))
    return (1 - vignetting * fall).astype(np.float32)


def _png(pixels: U8) -> bytes:
    done, data = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 3])
    if not done:
        raise ConfigError(f"a tile of {pixels.shape} pixels could not be encoded as PNG; change the grid")
    return bytes(data.tobytes())


def _graph(synapses: pa.Table) -> pa.Table:
    area = synapses["area_nm2"].to_numpy() if "area_nm2" in synapses.column_names else np.full(len(synapses), np.nan)
    return graph_of(
        synapses["pre"].to_numpy().astype(np.uint64),
        synapses["post"].to_numpy().astype(np.uint64),
        area.astype(np.float64),
    )


def _artefact_boxes(config: AcquireConfig, shape: tuple[int, int, int], layout: _Layout) -> list[dict[str, object]]:
    """What was added and where: a tissue box (z, y, x) in voxels that holds all of it, and its parameters."""
    first, art = config.first_section, config.artefacts

    def entry(kind: str, lo: list[int], hi: list[int], parameters: dict[str, object]) -> dict[str, object]:
        return {"kind": kind, "lo_vx": lo, "hi_vx": hi, "parameters": parameters}

    def plane(section: int) -> tuple[list[int], list[int]]:
        return [section - first, 0, 0], [section - first + 1, *shape[1:]]

    out = []
    if art.staining is not None:
        out.append(entry("staining_gradient", *stain_box(art.staining, shape), art.staining.model_dump(mode="json")))
    margin = _margin_px(shape, config)
    for tile in art.missing_tiles:
        lo, hi = [tile.section - first], [tile.section - first + 1]
        for axis, place in enumerate((tile.row, tile.col)):
            start = (shape[1 + axis] - layout.window_px[axis]) // 2 + place * layout.step_px[axis]
            lo.append(max(0, start - margin))
            hi.append(min(shape[1 + axis], start + layout.tile_px[axis] + margin))
        out.append(entry("missing_tile", lo, hi, tile.model_dump(mode="json")))
    if art.fold is not None:
        out.append(entry("fold", *plane(art.fold.section), art.fold.model_dump(mode="json")))
    if art.defocused_section is not None:
        out.append(entry("defocus", *plane(art.defocused_section), {"defocus_px": art.defocus_px}))
    if art.blank_section is not None:
        out.append(entry("blank_section", *plane(art.blank_section), {}))
    for kind, lo, hi, run in run_boxes(art, first, (shape[1], shape[2])):
        out.append(entry(kind, lo, hi, run.model_dump(mode="json")))
    if any(config.drift_px_per_section):
        out.append(entry("drift", [0, 0, 0], list(shape), {"px_per_section": list(config.drift_px_per_section)}))
    return out


def _write_facts(
    truth: Path, scope: _Microscope, shape: tuple[int, int, int], voxel_nm: tuple[int, int, int], source: str
) -> None:
    """Maps, artefacts, and acquisition.json: the configuration and what was drawn per section."""
    scope.maps.save(truth / "sections.npz")
    _write_json(truth / "artefacts.json", _artefact_boxes(scope.config, shape, scope.layout))
    _write_json(
        truth / "acquisition.json",
        {
            "config": scope.config.model_dump(mode="json"),
            "source": source,
            "voxel_nm": list(voxel_nm),
            "shape_vx": list(shape),
            "window_px": list(scope.layout.window_px),
            "tile_px": list(scope.layout.tile_px),
            "gain": scope.gain.tolist(),
            "offset_grey": scope.offset_grey.tolist(),
        },
    )


def _write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _write_tissue(
    path: Path,
    image: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.unsignedinteger] | None,
    cleft: npt.NDArray[np.unsignedinteger] | None,
    voxel_nm: tuple[int, int, int],
) -> None:
    # track_times off: the file must not hold the clock.
    with h5py.File(path, "w", track_order=False) as file:
        file.attrs["voxel_nm"] = np.asarray(voxel_nm, np.int64)
        for name, array in (("image", image), ("labels", labels), ("cleft", cleft)):
            if array is not None:
                chunks = (1, min(256, array.shape[1]), min(256, array.shape[2]))
                file.create_dataset(
                    name, data=array, chunks=chunks, compression="gzip", compression_opts=2, track_times=False
                )
