"""Which raw tiles there are, and where the microscope's stage was: manifests in four formats, read into one.

    CSV, JSON    path, section, stage_y_px + stage_x_px (or stage_y_nm + stage_x_nm), and what else is known
    layout text  z tile A B C D E F row col cam path; the nominal position is x = C, y = F (as EM_aligner writes)
    folder       <prefix>_<row>_<col>.png with a given overlap; the section is the number that ends the prefix

Nothing here opens an image, except for the header sizes of a folder's tiles.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from connectome_db import rasters
from connectome_db.errors import SourceError, nearest
from connectome_db.ids import BIAS

Pair = tuple[float, float]

REQUIRED = ("path", "section")
POSITIONS = (("stage_y_px", "stage_x_px"), ("stage_y_nm", "stage_x_nm"))
INTEGERS = ("height_px", "width_px", "row", "col")
OPTIONAL = ("height_px", "width_px", "sha256", "row", "col", "range")
COLUMNS = (*REQUIRED, *(name for pair in POSITIONS for name in pair), *OPTIONAL)

_GRID_NAME = re.compile(r"(?P<prefix>.*)_(?P<row>\d+)_(?P<col>\d+)$")
_INTEGER = re.compile(r"[+-]?\d+$")


@dataclass(frozen=True)
class Entry:
    """One line of a manifest. `tile` is the file's path relative to the manifest; positions are as listed."""

    tile: str
    section: int
    stage_y_px: float
    stage_x_px: float
    height_px: int | None = None
    width_px: int | None = None
    sha256: str | None = None
    row: int | None = None
    col: int | None = None
    value_range: tuple[int, int] | None = None
    where: str = ""


@dataclass(frozen=True)
class Manifest:
    """All entries of a manifest, sorted by (section, tile). `root` is the folder that tile names are relative to.

    `origin_px` (y, x) is what `sources.scan` subtracts from the positions.
    """

    path: Path
    root: Path
    entries: tuple[Entry, ...]
    origin_px: tuple[int, int] = (0, 0)

    def file_of(self, entry: Entry) -> Path:
        """Where the tile's file is."""
        return self.root / entry.tile


def read_manifest(
    path: Path,
    *,
    origin_px: tuple[int, int] = (0, 0),
    sections: Collection[int] | None = None,
    pixel_nm: Pair | None = None,
    overlap_px: tuple[int, int] | None = None,
    section: int | None = None,
    value_range: tuple[int, int] | None = None,
) -> Manifest:
    """Read the manifest at `path`: a .csv, .json or layout .txt file, or a folder of images.

    `sections` keeps only these sections (a range will do). `pixel_nm` (y, x) is needed for positions in nm;
    `overlap_px` (y, x) and perhaps `section` for a folder. `value_range` scales 16-bit tiles that declare no `range`.
    Raises SourceError, with the line, for anything that is not as it should be; tiles listed twice are left to `scan`.
    """
    if value_range is not None and not 0 <= value_range[0] < value_range[1]:
        raise SourceError(f"value_range: wanted 0 <= low < high, came {value_range}")
    if path.is_dir():
        entries = _from_folder(path, overlap_px, section, value_range)
    elif not path.is_file():
        raise SourceError(f"no manifest at {path}: wanted a .csv, .json or .txt file, or a folder of images")
    else:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise SourceError(f"{path}: wanted a text file in UTF-8 ({error}); save it as UTF-8") from None
        match path.suffix.lower():
            case ".csv":
                entries = [_entry(row, where, pixel_nm, value_range) for where, row in _csv_rows(path, text)]
            case ".json":
                entries = [_entry(row, where, pixel_nm, value_range) for where, row in _json_rows(path, text)]
            case ".txt":
                entries = list(_from_layout(path, text, value_range))
            case other:
                raise SourceError(
                    f"{path}: cannot read manifests of type {other!r}; wanted .csv, .json, .txt or a folder"
                )
    if not entries:
        raise SourceError(f"{path}: lists no tiles; wanted at least one")
    kept = [e for e in entries if sections is None or e.section in sections]
    if not kept:
        there = sorted({e.section for e in entries})
        raise SourceError(f"{path}: no tile is in the sections asked for; it lists {there[0]} to {there[-1]}")
    kept.sort(key=lambda e: (e.section, e.tile))
    return Manifest(path, path if path.is_dir() else path.parent, tuple(kept), origin_px)


def origin_of(manifest: Manifest) -> tuple[int, int]:
    """(y, x): the smallest nominal position, rounded down. Chosen once per dataset, kept as `dataset.origin_px`."""
    return (
        math.floor(min(e.stage_y_px for e in manifest.entries)),
        math.floor(min(e.stage_x_px for e in manifest.entries)),
    )


def to_csv(manifest: Manifest, folder: Path) -> str:
    """The manifest as CSV text for a file in `folder`: paths relative to it, positions as listed, in px."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*REQUIRED, *POSITIONS[0], *OPTIONAL])
    for e in manifest.entries:
        path = PurePosixPath(os.path.relpath(manifest.file_of(e).resolve(), folder.resolve())).as_posix()
        span = "" if e.value_range is None else f"{e.value_range[0]}:{e.value_range[1]}"
        rest = [e.height_px, e.width_px, e.sha256, e.row, e.col]
        writer.writerow([path, e.section, e.stage_y_px, e.stage_x_px, *("" if v is None else v for v in rest), span])
    return out.getvalue()


# CSV and JSON -------------------------------------------------------------------------------------------------------


def _csv_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        _check_columns(header, f"{path}, line 1")
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if len(row) != len(header):
                raise SourceError(f"{where}: wanted {len(header)} fields as in the header, came {len(row)}")
            yield where, {name: value.strip() for name, value in zip(header, row, strict=True)}
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: not CSV: {error}") from None


def _json_rows(path: Path, text: str) -> Iterator[tuple[str, dict[str, str]]]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        twice = [name for name, n in Counter(name for name, _ in pairs).items() if n > 1]
        if twice:
            raise SourceError(f"{path}: an object has the key {twice[0]!r} twice; keep one")
        return dict(pairs)

    try:
        document = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise SourceError(f"{path}, line {error.lineno}: not JSON: {error.msg}") from None
    if not isinstance(document, list):
        raise SourceError(f"{path}: wanted a JSON list of objects, one per tile, came {type(document).__name__}")
    for number, item in enumerate(document, start=1):
        where = f"{path}, entry {number}"
        if not isinstance(item, dict):
            raise SourceError(f"{where}: wanted an object with the keys {', '.join(REQUIRED)} ..., came {item!r}")
        _check_columns(list(item), where)
        yield where, {name: _text(value) for name, value in item.items()}


def _text(value: Any) -> str:
    """A JSON value as a CSV cell: null is empty, [low, high] is low:high."""
    if value is None:
        return ""
    return ":".join(map(str, value)) if isinstance(value, list) else str(value)


def _check_columns(names: list[str], where: str) -> None:
    for name, n in Counter(names).items():
        if name not in COLUMNS:
            raise SourceError(f"{where}: unknown column {name!r}{nearest(name, COLUMNS)}")
        if n > 1:
            raise SourceError(f"{where}: the column {name!r} is there {n} times; keep one")
    for name in REQUIRED:
        if name not in names:
            raise SourceError(f"{where}: the column {name!r} is missing; wanted {', '.join(REQUIRED)} and a position")
    given = [pair for pair in POSITIONS if set(pair) & set(names)]
    if len(given) != 1 or not set(given[0]) <= set(names):
        raise SourceError(
            f"{where}: wanted the stage position as stage_y_px and stage_x_px, or as stage_y_nm and stage_x_nm; "
            f"came {', '.join(n for n in names if n.startswith('stage_')) or 'neither'}"
        )


def _entry(row: dict[str, str], where: str, pixel_nm: Pair | None, value_range: tuple[int, int] | None) -> Entry:
    if not row["path"]:
        raise SourceError(f"{where}: the path is empty; wanted an image file, relative to the manifest")
    if "stage_y_nm" in row:
        if pixel_nm is None or min(pixel_nm) <= 0:
            raise SourceError(
                f"{where}: positions in nm need the pixel size: set the dataset's voxel_nm, or list stage_y_px"
                " and stage_x_px"
            )
        y_px, x_px = _float(row, "stage_y_nm", where) / pixel_nm[0], _float(row, "stage_x_nm", where) / pixel_nm[1]
    else:
        y_px, x_px = _float(row, "stage_y_px", where), _float(row, "stage_x_px", where)
    sha256 = row.get("sha256", "").lower() or None
    if sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise SourceError(f"{where}: sha256: wanted 64 hexadecimal digits, came {row['sha256']!r}")
    number = {name: _integer(row, name, where) if row.get(name) else None for name in INTEGERS}
    for name in ("height_px", "width_px"):
        if (value := number[name]) is not None and value <= 0:
            raise SourceError(f"{where}: {name}: wanted a positive number of pixels, came {value}")
    return Entry(
        tile=_tile_name(row["path"]),
        section=_section(row, where),
        stage_y_px=y_px,
        stage_x_px=x_px,
        height_px=number["height_px"],
        width_px=number["width_px"],
        sha256=sha256,
        row=number["row"],
        col=number["col"],
        value_range=_range(row["range"], where) if row.get("range") else value_range,
        where=where,
    )


def _tile_name(path: str) -> str:
    return os.path.normpath(PurePosixPath(path).as_posix())


def _integer(row: dict[str, str], name: str, where: str) -> int:
    if not _INTEGER.match(row[name]):
        raise SourceError(f"{where}: {name}: wanted an integer, came {row[name]!r}")
    return int(row[name])


def _section(row: dict[str, str], where: str) -> int:
    section = _integer(row, "section", where)
    if not -BIAS <= section < BIAS:
        raise SourceError(f"{where}: section: wanted {-BIAS} to {BIAS - 1}, came {section}; number sections from 0")
    return section


def _float(row: dict[str, str], name: str, where: str) -> float:
    try:
        value = float(row[name])
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise SourceError(f"{where}: {name}: wanted a finite number, came {row[name]!r}")
    return value


def _range(text: str, where: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)\s*:\s*(\d+)", text)
    if found is None or not int(found[1]) < int(found[2]):
        raise SourceError(f"{where}: range: wanted low:high, the values that become 0 and 255, came {text!r}")
    return int(found[1]), int(found[2])


# Layout text --------------------------------------------------------------------------------------------------------


def _from_layout(path: Path, text: str, value_range: tuple[int, int] | None) -> Iterable[Entry]:
    names = ("section", "tile", "A", "B", "stage_x_px", "D", "E", "stage_y_px", "row", "col", "cam", "path")
    for number, line in enumerate(text.splitlines(), start=1):
        where = f"{path}, line {number}"
        fields = line.split(maxsplit=len(names) - 1)
        if not fields or fields[0].startswith("#"):
            continue
        if len(fields) != len(names):
            raise SourceError(
                f"{where}: wanted {len(names)} fields (z tile A B C D E F row col cam path), came {len(fields)}"
            )
        row = dict(zip(names, fields, strict=True))
        # The folder in the file is the acquisition computer's; the images lie beside the layout.
        tile = PurePosixPath(row["path"].strip().replace("\\", "/")).name
        y_px, x_px = _float(row, "stage_y_px", where), _float(row, "stage_x_px", where)
        grid_row, grid_col = _integer(row, "row", where), _integer(row, "col", where)
        yield Entry(tile, _section(row, where), y_px, x_px, None, None, None, grid_row, grid_col, value_range, where)


# A folder of images -------------------------------------------------------------------------------------------------


def _from_folder(
    folder: Path, overlap_px: tuple[int, int] | None, section: int | None, value_range: tuple[int, int] | None
) -> list[Entry]:
    if overlap_px is None:
        raise SourceError(
            f"{folder}: a folder of images has no positions: give the overlap of neighbours as overlap_px (y, x), "
            "or write a manifest.csv with stage_y_px and stage_x_px"
        )
    grids: dict[int, list[tuple[str, int, int]]] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in rasters.SUFFIXES or path.name.startswith("."):
            continue
        where = f"{path}"
        found = _GRID_NAME.match(path.stem)
        if found is None:
            raise SourceError(
                f"{where}: wanted a name like <prefix>_<row>_<col>{path.suffix}; rename it or write a CSV"
            )
        number = re.search(r"(\d+)$", found["prefix"])
        if section is None and number is None:
            raise SourceError(f"{where}: the prefix {found['prefix']!r} ends in no section number; give the section")
        z = section if section is not None else _section({"section": number[1] if number else ""}, where)
        grids.setdefault(z, []).append((path.name, int(found["row"]), int(found["col"])))
    return [e for z, tiles in sorted(grids.items()) for e in _grid(folder, z, tiles, overlap_px, value_range)]


def _grid(
    folder: Path,
    section: int,
    tiles: list[tuple[str, int, int]],
    overlap_px: tuple[int, int],
    value_range: tuple[int, int] | None,
) -> Iterator[Entry]:
    """A grid of tiles of one size: the size most headers declare; a tile of another size is then `wrong_size`."""
    sizes: Counter[tuple[int, int]] = Counter()
    for name, _, _ in tiles:
        try:
            sizes[rasters.size_of(folder / name)] += 1
        except rasters.UnreadableError:
            continue  # scan() reports the file by name
    if not sizes:
        raise SourceError(f"{folder}: no image of section {section} has a readable header; check the files")
    height, width = max(sizes, key=lambda size: (sizes[size], size))
    pitch = height - overlap_px[0], width - overlap_px[1]
    if min(overlap_px) < 0 or min(pitch) <= 0:
        raise SourceError(
            f"{folder}: overlap_px {overlap_px}: wanted 0 or more and less than the tile, {height, width}"
        )
    top, left = min(row for _, row, _ in tiles), min(col for _, _, col in tiles)
    for name, row, col in tiles:
        y, x = float((row - top) * pitch[0]), float((col - left) * pitch[1])
        yield Entry(name, section, y, x, height, width, None, row, col, value_range, str(folder / name))
