"""What Neuroglancer is to show of a project: image, supervoxels of chosen objects, their synapses, the regions.

Voxel k of an axis spans k to k + 1 in Neuroglancer, so the centre of a voxel lies at k + 0.5.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectome_db import volumes
from connectome_db.config import Project
from connectome_db.errors import ConfigError, QueryError, nearest
from connectome_db.geometry import Box, hull
from connectome_db.query.database import Database, open_database
from connectome_db.regional import neuroglancer
from connectome_db.regional.regions import FILE, Region, regions_of
from connectome_db.revisions import Revision, open_revision
from connectome_db.spec import NM3

VIEWER = "https://neuroglancer-demo.appspot.com/"
PORT = 8901
"""Named in links that are printed without serving."""
LONGEST_LINK = 8000
"""Longer links are cut by browsers and terminals; the state is then named by its address instead."""
SCREEN_PX = 500
"""What is looked at is zoomed to about this many pixels."""

IMAGE, LABELS, REGIONS, SYNAPSES = "image", "supervoxels", "regions", "synapses"

_MEMBERS = """
SELECT object, list(supervoxel ORDER BY supervoxel) AS supervoxels FROM member
WHERE object IN (SELECT unnest($objects::UBIGINT[])) GROUP BY object
"""

_SYNAPSES = """
SELECT s.*, a.object AS pre, b.object AS post FROM synapse s
LEFT JOIN member a ON a.supervoxel = s.pre_supervoxel LEFT JOIN member b ON b.supervoxel = s.post_supervoxel
WHERE s.synapse = $synapse OR a.object IN (SELECT unnest($objects::UBIGINT[]))
   OR b.object IN (SELECT unnest($objects::UBIGINT[]))
ORDER BY s.synapse
"""


@dataclass(frozen=True)
class View:
    """A view of one revision: `folders`, by name, of the volumes to serve, and what to show of them."""

    folders: dict[str, Path]
    voxel_nm: NM3
    focus: Box
    objects: dict[int, list[int]]
    """Chosen objects -> their supervoxels."""
    synapses: list[dict[str, Any]]
    regions: dict[str, Region]
    notes: tuple[str, ...] = field(default=())

    def state(self, base: str) -> dict[str, Any]:
        """The state of Neuroglancer, with the volumes at `base` (http://127.0.0.1:PORT). Ids are strings."""
        (z0, y0, x0), (z1, y1, x1) = self.focus.lo, self.focus.hi
        extent_nm = max(n * s for n, s in zip(self.focus.shape, self.voxel_nm, strict=True))
        zoom = extent_nm / min(self.voxel_nm)  # in the smallest voxel edges
        layers = [{"type": "image", "name": IMAGE, "source": f"precomputed://{base}/{IMAGE}"}]
        if LABELS in self.folders:
            layers.append(self._labels(base))
        layers += [self._regions(), *([self._synapses()] if self.synapses else [])]
        return {
            "dimensions": self._dimensions(),
            "position": [(x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1 - 1) // 2 + 0.5],
            "crossSectionScale": max(zoom / SCREEN_PX, 0.25),
            "projectionScale": max(zoom * 1.5, 100),
            "layers": layers,
            "selectedLayer": {"layer": REGIONS, "visible": True},
            "layout": "4panel",
        }

    def link(self, base: str, *, served: bool) -> str:
        """A link to Neuroglancer with the state in it, or naming the served one where that would be too long."""
        link = neuroglancer.encode_link(VIEWER, self.state(base))
        return f"{VIEWER}#!{base}/state.json" if served and len(link) > LONGEST_LINK else link

    def _dimensions(self) -> dict[str, Any]:
        return {axis: [float(f"{nm * 1e-9:.12g}"), "m"] for axis, nm in zip("xyz", self.voxel_nm[::-1], strict=True)}

    def _labels(self, base: str) -> dict[str, Any]:
        colours = {o: _colour(k) for k, o in enumerate(self.objects)}
        return {
            "type": "segmentation",
            "name": LABELS,
            "source": f"precomputed://{base}/{LABELS}",
            "segments": [str(s) for members in self.objects.values() for s in members],
            "segmentColors": {str(s): colours[o] for o, members in self.objects.items() for s in members},
        }

    def _annotations(self, name: str, rows: list[dict[str, Any]], colour: str) -> dict[str, Any]:
        source = {"url": "local://annotations", "transform": {"outputDimensions": self._dimensions()}}
        return {"type": "annotation", "name": name, "source": source, "annotationColor": colour, "annotations": rows}

    def _regions(self) -> dict[str, Any]:
        rows = []
        for r in self.regions.values():
            low, high = self._corners(r)
            text = f"{r.name}: {r.spec.note}" if r.spec.note else r.name
            rows.append({"type": neuroglancer.BOX, "id": r.name, "description": text, "pointA": low, "pointB": high})
        # With the tool chosen, control-click in a section draws the next region.
        return self._annotations(REGIONS, rows, "#ffcc00") | {"tool": "annotateBoundingBox"}

    def _corners(self, region: Region) -> tuple[list[float], list[float]]:
        """Both corners (x, y, z) in voxels; boxes in nm are not rounded, so that reading them back gives the same."""
        six: Sequence[float] = region.box.flat()
        if region.spec.box_nm is not None:
            six = [nm / s for nm, s in zip(region.spec.box_nm, self.voxel_nm * 2, strict=True)]
        return list(six[2::-1]), list(six[:2:-1])

    def _synapses(self) -> dict[str, Any]:
        rows = []
        for s in self.synapses:
            place = [s[f"{axis}_vx"] + 0.5 for axis in "xyz"]
            text = f"pre {s['pre']}, post {s['post']}, confidence {s['confidence']:.2f}"
            rows.append({"type": "point", "id": str(s["synapse"]), "description": text, "point": place})
        return self._annotations(SYNAPSES, rows, "#ff2a2a")


def open_view(
    project: Project,
    rev: str | None = None,
    *,
    objects: Sequence[int] = (),
    synapse: int | None = None,
    region: str | None = None,
    at: tuple[int, int, int] | None = None,
) -> View:
    """A view of the working tree, or of `rev`. It looks at voxel `at` (z, y, x), else the region, synapse or objects.

    Raises QueryError for an unknown object or synapse, ConfigError for an unknown region or a place outside.
    """
    revision = open_revision(project.root, rev)
    folders, notes = _folders(revision)
    layout = volumes.open_info(folders[IMAGE])
    named = regions_of(revision.text(FILE) or "", layout.voxel_nm)
    if region is not None and region not in named:
        raise ConfigError(f"no region {region!r} at {revision.name}{nearest(region, named)}")
    chosen: dict[int, list[int]] = {}
    found: list[dict[str, Any]] = []
    boxes: list[Box] = []
    if objects or synapse is not None:
        with open_database(revision.root) as db:
            chosen, found, boxes = _chosen(db, list(dict.fromkeys(objects)), synapse)
    focus = layout.bounds
    if at is not None:
        focus = Box(at, (at[0] + 1, at[1] + 1, at[2] + 1))
        if not layout.bounds.contains(focus):
            raise ConfigError(f"--at {at} (z, y, x): outside the volume, {layout.bounds}. Positions are voxels, not nm")
    elif region is not None:
        focus = named[region].box
    elif boxes:
        focus = hull(boxes)
    return View(folders, layout.voxel_nm, focus, chosen, found, named, tuple(notes))


def _folders(revision: Revision) -> tuple[dict[str, Path], list[str]]:
    """Folders of the image and, where there are any, the supervoxels; and notes on what is missing."""
    made = set(revision.stages)
    if "render" not in made:
        raise QueryError(f"nothing to see at {revision.name}: stage render has not been run there; `dvc repro render`")
    folders = {IMAGE: revision.volume("render", "image")}
    if "segment" not in made:
        return folders, [f"no supervoxels: stage segment has not been run at {revision.name}"]
    return folders | {LABELS: revision.volume("segment", "supervoxels")}, []


def _chosen(
    db: Database, objects: list[int], synapse: int | None
) -> tuple[dict[int, list[int]], list[dict[str, Any]], list[Box]]:
    """Objects -> supervoxels, synapses to show, and the boxes of what was asked for: the synapse, else the objects."""
    wanted = (*(["member", "object"] if objects else []), *(["member", "synapse"] if synapse is not None else []))
    if absent := [t for t in wanted if not db.has(t)]:
        raise QueryError(f"table {absent[0]} is not there yet: run `dvc repro {db.missing[absent[0]]}`")
    rows = db.fetch(_SYNAPSES, {"objects": objects, "synapse": synapse}) if db.has("synapse", "member") else []
    boxes = []
    if synapse is not None:
        mine = next((r for r in rows if r["synapse"] == synapse), None)
        if mine is None:
            raise QueryError(f'no synapse {synapse}; `connectome sql "SELECT synapse FROM synapse"` lists them')
        objects = list(dict.fromkeys([*objects, *(o for o in (mine["pre"], mine["post"]) if o is not None)]))
        centre = [math.floor(mine[f"{axis}_vx"] + 0.5) for axis in "zyx"]
        boxes = [Box((centre[0], centre[1], centre[2]), (centre[0] + 1, centre[1] + 1, centre[2] + 1))]
    members = {r["object"]: r["supervoxels"] for r in db.fetch(_MEMBERS, {"objects": objects})}
    for o in objects:
        if o not in members:
            raise QueryError(_unknown(db, o))
    if not boxes and objects and db.has("object"):
        listed = "SELECT * FROM object WHERE object IN (SELECT unnest($objects::UBIGINT[]))"
        boxes = [_box(r) for r in db.fetch(listed, {"objects": objects})]
    return {o: members[o] for o in objects}, rows, boxes


def _box(row: dict[str, Any]) -> Box:
    z0, y0, x0, z1, y1, x1 = (int(row[f"{axis}{end}_vx"]) for end in (0, 1) for axis in "zyx")
    return Box((z0, y0, x0), (z1, y1, x1))


def _unknown(db: Database, obj: int) -> str:
    """An id that is no object may be a supervoxel's: say of which object."""
    owner = db.fetch("SELECT object FROM member WHERE supervoxel = $id::UBIGINT", {"id": obj})
    if owner:
        return f"no object {obj}: it is a supervoxel of object {owner[0]['object']}"
    return (
        f'no object {obj}; `connectome sql "SELECT object FROM object ORDER BY size_vx DESC LIMIT 5"` lists the largest'
    )


def _colour(k: int) -> str:
    """A colour for the k-th object: hues a golden angle apart differ well, however many there are."""
    r, g, b = (round(255 * v) for v in colorsys.hls_to_rgb((0.02 + k * 0.618034) % 1, 0.55, 0.85))
    return f"#{r:02x}{g:02x}{b:02x}"
