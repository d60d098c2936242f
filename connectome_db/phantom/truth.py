"""The truth of an acquisition, read back: exact maps, labels, synapses, graph, artefacts."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from connectome_db.errors import QueryError, SourceError, nearest
from connectome_db.phantom.distort import SectionMaps

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrueTile:
    """Where a tile really lies."""

    path: str
    section: int
    row: int
    col: int
    true_px: tuple[float, float]
    """Top left pixel centre (y, x) in the section's plane."""
    shape_px: tuple[int, int]


@dataclass(frozen=True)
class Truth:
    """What is true about the tiles beside it. Planes, tissue and maps: see `distort.SectionMaps`."""

    folder: Path
    maps: SectionMaps
    tiles: dict[str, TrueTile]
    """By path relative to the manifest."""
    artefacts: list[dict[str, Any]]
    acquisition: dict[str, Any]

    @classmethod
    def load(cls, folder: Path) -> Truth:
        """Read `folder` (the one that holds `truth/`, or `truth/` itself); volumes are read when asked for.

        Raises:
            SourceError: it holds no truth.
        """
        at = folder / "truth" if (folder / "truth").is_dir() else folder
        for name in ("tiles.csv", "sections.npz", "acquisition.json", "artefacts.json", "tissue.h5"):
            if not (at / name).is_file():
                raise SourceError(f"no truth in {folder}: {name} is missing; run the simulation into it again")
        with (at / "tiles.csv").open(newline="", encoding="utf-8") as file:
            tiles = {row["path"]: _tile(row) for row in csv.DictReader(file)}
        return cls(
            at,
            SectionMaps.load(at / "sections.npz"),
            tiles,
            json.loads((at / "artefacts.json").read_text(encoding="utf-8")),
            json.loads((at / "acquisition.json").read_text(encoding="utf-8")),
        )

    @property
    def voxel_nm(self) -> tuple[int, int, int]:
        """(z, y, x) of the tissue, and of the tiles' pixels."""
        z, y, x = self.acquisition["voxel_nm"]
        return int(z), int(y), int(x)

    def volume(self, name: str) -> npt.NDArray[Any]:
        """`image`, `labels` or `cleft` of the tissue, (z, y, x).

        Raises:
            QueryError: the tissue has no such volume.
        """
        with h5py.File(self.folder / "tissue.h5", "r") as file:
            if name not in file:
                raise QueryError(f"the truth in {self.folder} has no volume {name!r}{nearest(name, file)}")
            found: npt.NDArray[Any] = file[name][()]
        return found

    def table(self, name: str) -> pa.Table:
        """`synapses` (z, y, x in tissue voxels, pre, post ...) or `graph` (pre, post, synapses, area_nm2).

        Raises:
            QueryError: the truth has no such table.
        """
        path = self.folder / f"{name}.parquet"
        if not path.is_file():
            known = [p.stem for p in self.folder.glob("*.parquet")]
            raise QueryError(f"the truth in {self.folder} has no table {name!r}{nearest(name, known)}")
        return pq.read_table(path)

    def plane(self, section: int) -> int:
        """The tissue's z plane that a section shows."""
        return self.maps.row(section)

    def section_to_tissue(self, section: int, yx: npt.ArrayLike) -> F64:
        """(..., 2) points in a section's plane -> tissue (y, x)."""
        return self.maps.section_to_tissue(section, yx)

    def tissue_to_section(self, section: int, yx: npt.ArrayLike) -> F64:
        """(..., 2) tissue points -> the section's plane, to 1e-9 px."""
        return self.maps.tissue_to_section(section, yx)

    def tile_to_tissue(self, tile_path: str, yx: npt.ArrayLike) -> F64:
        """(..., 2) pixel centres of a tile, by its path in the manifest -> tissue (y, x).

        Raises:
            QueryError: there is no such tile.
        """
        tile = self.tiles.get(tile_path)
        if tile is None:
            raise QueryError(f"no tile {tile_path!r} in the truth{nearest(tile_path, self.tiles)}")
        return self.maps.section_to_tissue(tile.section, np.asarray(yx, np.float64) + tile.true_px)

    def imaged(self, points_vx: npt.ArrayLike, margin_px: float = 0.0) -> npt.NDArray[np.bool_]:
        """(n,) whether tissue points (n, 3) z, y, x in voxels were imaged: nobody can be asked to find the others.

        With `margin_px`, the square of that half width around the point must be imaged too. Missing tiles and blank
        sections image nothing. z is rounded to the nearest section.
        """
        points = np.asarray(points_vx, np.float64).reshape(-1, 3)
        planes = np.rint(points[:, 0]).astype(np.int64)
        lost = {(p["section"], p["row"], p["col"]) for p in (a["parameters"] for a in self.artefacts) if "row" in p}
        blank = {a["lo_vx"][0] for a in self.artefacts if a["kind"] == "blank_section"}
        corners = margin_px * np.array([[-1, -1], [-1, 1], [1, -1], [1, 1]])
        out = np.zeros(len(points), np.bool_)
        for plane in np.unique(planes):
            if plane in blank or not 0 <= plane < len(self.maps.section):
                continue
            section = int(self.maps.section[plane])
            rows = np.flatnonzero(planes == plane)
            at = self.maps.tissue_to_section(section, points[rows, 1:])[:, None] + corners
            seen = np.zeros(at.shape[:2], np.bool_)
            for tile in self.tiles.values():
                if tile.section == section and (section, tile.row, tile.col) not in lost:
                    inner = at - tile.true_px
                    seen |= np.all((inner >= 0) & (inner <= np.array(tile.shape_px) - 1), axis=-1)
            out[rows] = seen.all(axis=1)
        return out


def _tile(row: dict[str, str]) -> TrueTile:
    return TrueTile(
        row["path"],
        int(row["section"]),
        int(row["row"]),
        int(row["col"]),
        (float(row["true_y_px"]), float(row["true_x_px"])),
        (int(row["height_px"]), int(row["width_px"])),
    )
