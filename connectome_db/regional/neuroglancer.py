"""Boxes drawn in Neuroglancer, in nm: from a saved state, a link, or a folder of precomputed annotations.

    state    {"dimensions": {"x": [8e-9, "m"], ...}, "layers": [{"type": "annotation", "annotations": [...]}, ...]}
    link     https://.../#!<the same, percent-encoded>
    folder   info (neuroglancer_annotations_v1), by_id/<id>, <spatial>/<cell>

Coordinates count in the units of a layer's output dimensions, whose axes may stand in any order. Formats:
https://github.com/google/neuroglancer, src/datasource/precomputed/annotation.rst and src/coordinate_transform.ts.
"""

from __future__ import annotations

import json
import re
import struct
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from connectome_db.errors import ConfigError, nearest

SixNm = tuple[float, float, float, float, float, float]
BOX = "axis_aligned_bounding_box"

_PREFIXES = {"": 0, "k": 3, "m": -3, "u": -6, "µ": -6, "μ": -6, "n": -9, "p": -12}
_PROPERTY_BYTES = {
    **{"uint32": 4, "int32": 4, "float32": 4, "uint16": 2, "int16": 2, "uint8": 1, "int8": 1},
    **{"rgb": 3, "rgba": 4},
}


@dataclass(frozen=True)
class Drawn:
    """A box that someone drew: its id, description and layer, and (z0, y0, x0, z1, y1, x1) in nm."""

    id: str
    description: str
    layer: str
    box_nm: SixNm

    def __str__(self) -> str:
        z0, y0, x0, z1, y1, x1 = (f"{v:.10g}" for v in self.box_nm)
        text = f" ({self.description})" if self.description else ""
        return f"{self.id}{text}: z {z0}:{z1}, y {y0}:{y1}, x {x0}:{x1} nm"


def read_boxes(source: str) -> list[Drawn]:
    """Every box in `source`: the path of a saved state, of a file with a link, or of a folder; or the link itself.

    Raises ConfigError when there is none, or the format is not one of these.
    """
    path = None if "#!" in source else Path(source)
    if path is not None and path.is_dir():
        found = list(_folder_boxes(path))
    else:
        text = source
        if path is not None:
            try:
                text = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as e:
                raise ConfigError(
                    f"{source}: wanted a state saved from Neuroglancer (JSON), a link with #!, or a folder of "
                    f"precomputed annotations; cannot read it ({e})"
                ) from e
        found = list(_state_boxes(_state(text, str(path or "the link"))))
    if not found:
        raise ConfigError(
            f"{path or 'the link'}: no box in it. In Neuroglancer, draw one in an annotation layer with the bounding "
            "box tool, then save the state ({} button, or copy the link)"
        )
    return found


def choose(boxes: Sequence[Drawn], annotation: str | None, known: Mapping[str, SixNm]) -> Drawn:
    """The box whose id or description is `annotation`; without one, the only box that is not in `known` already.

    Raises ConfigError that lists the boxes when that leaves none or several.
    """
    if annotation is not None:
        found = [b for b in boxes if annotation in {b.id, b.description}]
        if not found:
            names = [n for b in boxes for n in (b.id, b.description) if n]
            raise ConfigError(
                f"--annotation {annotation!r}: no box has this id or description{nearest(annotation, names)}"
            )
    else:
        found = list(boxes)
        if len(boxes) > 1:
            found = [b for b in boxes if known.get(b.id) is None or not np.allclose(known[b.id], b.box_nm, atol=1e-3)]
    if len(found) != 1:
        why = f"{len(found)} boxes could be meant" if found else "all its boxes are regions already"
        rows = "\n  ".join(map(str, found or boxes))
        raise ConfigError(f"{why}: say which with --annotation ID\n  {rows}")
    return found[0]


def encode_link(viewer: str, state: Mapping[str, Any]) -> str:
    """A link that opens `state` in the Neuroglancer at `viewer`."""
    return f"{viewer}#!{urllib.parse.quote(json.dumps(state, separators=(',', ':')), safe=':/?@&=+$-_.~')}"


def _state(text: str, where: str) -> dict[str, Any]:
    """The state in a file's text or a link."""
    text = text.strip()
    if not text.startswith("{"):
        _, mark, fragment = text.partition("#!")
        text = urllib.parse.unquote(fragment.strip()).removeprefix("+") if mark else text
        if re.match(r"[a-z][a-z0-9+.-]*://", text):
            raise ConfigError(f"{where}: only names a state kept elsewhere; download {text} and give that file")
    try:
        state = json.loads(text)
    except ValueError as e:
        raise ConfigError(f"{where}: wanted the state of Neuroglancer as JSON, cannot read it: {e}") from e
    if not isinstance(state, dict) or not isinstance(state.get("layers"), list):
        raise ConfigError(f"{where}: wanted a state of Neuroglancer, an object with a list of `layers`")
    return state


def _state_boxes(state: Mapping[str, Any]) -> Iterator[Drawn]:
    for layer in state["layers"]:
        drawn = [a for a in layer.get("annotations") or () if str(a.get("type", "")).lower() == BOX]
        if not drawn:
            continue
        name = str(layer.get("name", ""))
        transform = _transform(layer.get("source"))
        dimensions = transform.get("outputDimensions") or state.get("dimensions")
        where = f"layer {name!r}"
        if not dimensions:
            raise ConfigError(f"{where}: the state gives no `dimensions`, so the unit of its coordinates is not known")
        axes = _axes(dimensions, where)
        for a in drawn:
            try:
                ends = [_moved([float(v) for v in a[p]], transform.get("matrix"), len(dimensions), where)
                        for p in ("pointA", "pointB")]  # fmt: skip
            except (KeyError, TypeError, ValueError) as e:
                raise ConfigError(f"{where}: box {a.get('id')}: wanted pointA and pointB, lists of numbers") from e
            yield Drawn(str(a.get("id", "")), str(a.get("description") or ""), name, _six_nm(ends, axes))


def _transform(source: Any) -> Mapping[str, Any]:
    """The coordinate transform of a layer's source, which may be text, an object or a list of these."""
    for one in source if isinstance(source, list) else [source]:
        if isinstance(one, dict) and isinstance(one.get("transform"), dict):
            found: dict[str, Any] = one["transform"]
            return found
    return {}


def _axes(dimensions: Mapping[str, Any], where: str) -> list[tuple[int, float]]:
    """Per axis z, y, x: its place among the coordinates, and the size of their unit in nm."""
    names, found = list(dimensions), []
    for axis in "zyx":
        if axis not in dimensions:
            raise ConfigError(f"{where}: wanted dimensions named x, y and z, got {', '.join(names)}")
        try:
            scale, unit = dimensions[axis]
            exponent = _PREFIXES[unit.removesuffix("m")] if unit.endswith("m") else None
            if exponent is None or not float(scale) > 0:
                raise ValueError(f"{scale} {unit}")
        except (TypeError, ValueError, KeyError, AttributeError) as e:
            raise ConfigError(
                f"{where}: dimension {axis}: wanted a length like [8e-9, 'm'], got {dimensions[axis]!r}"
            ) from e
        found.append((names.index(axis), float(f"{float(scale) * 10.0 ** (exponent + 9):.12g}")))
    return found


def _moved(point: list[float], matrix: Any, rank: int, where: str) -> list[float]:
    """A point through a layer's transform (rank rows of rank + 1). Raises ConfigError when that turns or shears."""
    if len(point) != rank:
        raise ConfigError(f"{where}: wanted {rank} coordinates, one per dimension, got {len(point)}: {point}")
    if matrix is None:
        return [_short(v) for v in point]
    m = np.asarray(matrix, dtype=np.float64)
    if m.shape != (rank, rank + 1):
        raise ConfigError(f"{where}: its transform: wanted a matrix of {rank} x {rank + 1}, got {m.shape}")
    if ((m[:, :-1] != 0).sum(axis=1) > 1).any():
        raise ConfigError(f"{where}: its transform turns or shears, so its boxes are not boxes of the volume")
    out: list[float] = (m[:, :-1] @ np.asarray([_short(v) for v in point]) + m[:, -1]).tolist()
    return out


def _short(value: float) -> float:
    """Neuroglancer keeps coordinates as float32: 12.3 comes as 12.300000190734863. The shortest number meant by it."""
    single = np.float32(value)
    return float(str(single)) if float(single) == value else value


def _six_nm(ends: Sequence[Sequence[float]], axes: Sequence[tuple[int, float]]) -> SixNm:
    a, b = ([round(end[place] * nm, 6) for place, nm in axes] for end in ends)
    low, high = [min(p) for p in zip(a, b, strict=True)], [max(p) for p in zip(a, b, strict=True)]
    return low[0], low[1], low[2], high[0], high[1], high[2]


@dataclass(frozen=True)
class _Folder:
    """A folder of precomputed annotations: its indices, axes (place, nm), rank and bytes of one annotation."""

    path: Path
    by_id: Mapping[str, Any] | None
    spatial: Sequence[Mapping[str, Any]]
    axes: Sequence[tuple[int, float]]
    rank: int
    record: int

    def drawn(self, name: str, data: bytes, at: int) -> Drawn:
        """The annotation `name`, whose coordinates (float32) start at byte `at`."""
        values = [_short(v) for v in struct.unpack_from(f"<{2 * self.rank}f", data, at)]
        return Drawn(name, "", self.path.name, _six_nm((values[: self.rank], values[self.rank :]), self.axes))


def _folder_boxes(path: Path) -> Iterator[Drawn]:
    folder = _open_folder(path)
    if folder.by_id is not None and not folder.by_id.get("sharding"):
        return _boxes_by_id(folder, folder.by_id["key"])
    if folder.spatial and not any(level.get("sharding") for level in folder.spatial):
        return iter(_boxes_by_cell(folder).values())
    raise ConfigError(f"{path}: its annotations are sharded, which is not read here; write them unsharded")


def _open_folder(path: Path) -> _Folder:
    try:
        info = json.loads((path / "info").read_text(encoding="utf-8"))
        kind, shape = info["@type"], str(info["annotation_type"]).lower()
        axes, rank = _axes(info["dimensions"], str(path)), len(info["dimensions"])
        extra = sum(_PROPERTY_BYTES[p["type"]] for p in info.get("properties") or ())
        by_id, spatial = info.get("by_id"), info.get("spatial") or []
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise ConfigError(
            f"{path}: wanted a folder of precomputed annotations with a file `info` (neuroglancer_annotations_v1), "
            f"cannot read it ({type(e).__name__}: {e})"
        ) from e
    if kind != "neuroglancer_annotations_v1" or shape != BOX:
        raise ConfigError(f"{path}: wanted annotations of type {BOX}, got {kind} of type {shape}")
    return _Folder(path, by_id, spatial, axes, rank, 8 * rank + -(-extra // 4) * 4)


def _boxes_by_id(folder: _Folder, key: str) -> Iterator[Drawn]:
    """One file per annotation, named by its id: coordinates, properties, then related objects."""
    files = (p for p in (folder.path / key).glob("*") if p.name.isdigit())
    for path in sorted(files, key=lambda p: int(p.name)):
        data = path.read_bytes()
        if len(data) < folder.record:
            raise ConfigError(f"{path}: is damaged: wanted {folder.record} bytes or more, has {len(data)}")
        yield folder.drawn(path.name, data, 0)


def _boxes_by_cell(folder: _Folder) -> dict[int, Drawn]:
    """One file per cell and level: count, that many annotations, their ids. A box recurs in every cell it is in."""
    found: dict[int, Drawn] = {}
    for level in folder.spatial:
        for path in sorted((folder.path / level["key"]).glob("*")):
            if not re.fullmatch(r"\d+(_\d+)*", path.name):
                continue
            data = path.read_bytes()
            count = struct.unpack_from("<Q", data)[0] if len(data) >= 8 else -1
            if len(data) != 8 + count * (folder.record + 8):
                raise ConfigError(f"{path}: is damaged: {len(data)} bytes are not those of {count} annotations")
            for i, name in enumerate(struct.unpack_from(f"<{count}Q", data, 8 + count * folder.record)):
                found[name] = folder.drawn(str(name), data, 8 + i * folder.record)
    return found
