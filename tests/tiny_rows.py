"""The rows of the tiny project: see `tiny_project` for what they describe."""

from __future__ import annotations

import hashlib
from typing import Any

from connectome_db import ids
from connectome_db.schema.all import TABLES

VOXEL_NM = (40.0, 8.0, 8.0)
SECTIONS = (0, 1)
Row = dict[str, Any]
Rows = dict[str, list[Row]]


def code(z: int, y: int, x: int, axis: int = 0) -> int:
    return int(ids.pack([(z, y, x)], axis)[0])


BLOCK_A, BLOCK_B, ONCE, FACE, PAIR = code(0, 0, 0), code(0, 0, 1), code(0, 0, 0), code(0, 0, 0, 2), code(0, 1, 0)
SECTION_UNIT = {z: code(z, 0, 0) for z in SECTIONS}
a1, a2, a3 = (int(v) for v in ids.mint(BLOCK_A, [1, 2, 3]))
b1, b2, b3 = (int(v) for v in ids.mint(BLOCK_B, [1, 2, 3]))
s1, s4 = (int(v) for v in ids.mint(BLOCK_A, [1, 2]))
s2, s3 = (int(v) for v in ids.mint(BLOCK_B, [1, 2]))
A1, A2, B2 = a1, a2, b2

BOUNDS = (0, 0, 0, 2, 120, 120)
CORE = {BLOCK_A: (0, 0, 0, 2, 120, 60), BLOCK_B: (0, 0, 60, 2, 120, 120)}
STAGE_YX = {"t00": (0.0, 0.0), "t01": (0.0, 56.0), "t10": (56.0, 0.0), "t11": (56.0, 56.0)}
MODEL = "affinity@0123456789ab"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def all_rows() -> Rows:
    """Rows of all tables; columns not given are filled with a plain value of their type."""
    t: Rows = {name: [] for name in TABLES}
    for fill in (_imaging, _alignment, _supervoxels, _objects, _wiring):
        fill(t)
    return t


def _imaging(t: Rows) -> None:
    for z, unit in SECTION_UNIT.items():
        for name, (y, x) in STAGE_YX.items():
            tile = f"s{z}/{name}.png"
            size = {"section": z, "tile": tile, "height_px": 64, "width_px": 64, "unit": unit}
            t["tile"].append(
                {
                    **size,
                    "sha256": sha(tile),
                    "stage_y_px": y,
                    "stage_x_px": x,
                    "dtype": "uint8",
                    "sharpness": 0.4 if tile != "s1/t11.png" else 0.05,
                }
            )
            t["tile_transform"].append({**size, "yy": 1.0, "xx": 1.0, "yx": 0.0, "xy": 0.0, "ty": y, "tx": x})
        for a, b in (("t00", "t01"), ("t10", "t11"), ("t00", "t10"), ("t01", "t11")):
            t["tile_match"].append(
                {"unit": unit, "section": z, "tile_a": f"s{z}/{a}.png", "tile_b": f"s{z}/{b}.png", "residual_px": 0.25}
            )
        t["illumination"].append({"unit": unit, "section": z, "gain": 1.0})
        for y in (0, 64, 128):
            for x in (0, 64, 128):
                t["section_transform"].append(
                    {
                        "unit": unit,
                        "section": z,
                        "node_y_px": y,
                        "node_x_px": x,
                        "source_y_px": y + 2.0 * z,
                        "source_x_px": x - 1.0 * z,
                    }
                )


def _alignment(t: Rows) -> None:
    t["pair_affine"].append(
        {"unit": PAIR, "section_a": 0, "section_b": 1, "accepted": True, "inliers": 30, "method": "features"}
    )
    for i, y in enumerate((16.0, 80.0)):
        t["section_match"].append(
            {"unit": PAIR, "section_a": 0, "section_b": 1, "a_y_px": y, "a_x_px": 16.0, "accepted": True}
        )
        t["alignment_residual"].append(
            {
                "unit": SECTION_UNIT[0],
                "section_a": 0,
                "section_b": 1,
                "y_px": y,
                "x_px": 16.0,
                "residual_y_px": 0.3 + i,
                "residual_x_px": 0.4 + i,
                "weight": 1.0,
            }
        )
    for block, core in CORE.items():
        for z in SECTIONS:
            t["image_plane"].append({"unit": block, "section": z, "coverage": 1.0, "tiles": 4})
            for name, (ty, tx) in STAGE_YX.items():
                y0, x0 = int(ty), max(int(tx), core[2])
                y1, x1 = min(int(ty) + 64, 120), min(int(tx) + 64, core[5])
                if x1 > x0:
                    t["image_source"].append(
                        {
                            "unit": block,
                            "section": z,
                            "tile": f"s{z}/{name}.png",
                            "y0_px": y0,
                            "x0_px": x0,
                            "y1_px": y1,
                            "x1_px": x1,
                            "pixels": 900,
                        }
                    )
        t["mask_area"].append({"unit": block, "mask_class": 0, "name": "tissue", "voxels": 14400})


def _supervoxels(t: Rows) -> None:
    supervoxels = {
        a1: (BLOCK_A, 0, 40),
        a2: (BLOCK_A, 40, 80),
        a3: (BLOCK_A, 80, 120),
        b1: (BLOCK_B, 0, 40),
        b2: (BLOCK_B, 40, 80),
        b3: (BLOCK_B, 80, 120),
    }
    for sv, (block, y0, y1) in supervoxels.items():
        x0, x1 = CORE[block][2], CORE[block][5]
        t["supervoxel"].append(
            {
                "unit": block,
                "supervoxel": sv,
                "size_vx": 4800,
                "z0_vx": 0,
                "y0_vx": y0,
                "x0_vx": x0,
                "z1_vx": 2,
                "y1_vx": y1,
                "x1_vx": x1,
                "z_vx": 0.5,
                "y_vx": (y0 + y1) / 2,
                "x_vx": (x0 + x1) / 2,
                "boundary": 0.1,
                "origin": "watershed",
            }
        )
        fragment = a1 if sv == b1 else sv
        t["fragment"].append({"unit": ONCE, "supervoxel": sv, "fragment": fragment})
        owner = {a1: A1, b1: A1, b2: B2}.get(sv, A2)
        t["member"].append({"unit": ONCE, "supervoxel": sv, "fragment": fragment, "object": owner})
    t["apron"].append({"unit": BLOCK_A, "axis": 2, "start": 0, "length": 40, "supervoxel": a1})
    t["overlap"] += [
        {
            "unit": FACE,
            "a": a1,
            "b": b1,
            "overlap_vx": 320,
            "score": 0.98,
            "iou": 0.9,
            "accepted": True,
            "reason": "ok",
        },
        {"unit": FACE, "a": a2, "b": b2, "overlap_vx": 60, "score": 0.2, "iou": 0.1, "reason": "low"},
    ]
    t["contact"] += [
        {"unit": BLOCK_A, "a": a2, "b": a3, "affinity": 0.7, "area_nm2": 900.0},
        {"unit": BLOCK_B, "a": a3, "b": b3, "affinity": 0.95, "area_nm2": 1200.0},
    ]


def _objects(t: Rows) -> None:
    t["merge"] += [
        {"unit": ONCE, "a": a3, "b": b3, "score": 0.95, "area_nm2": 1200.0, "rank": 0},
        {"unit": ONCE, "a": a2, "b": a3, "score": 0.7, "area_nm2": 900.0, "rank": 1},
    ]
    t["borderline"].append({"unit": ONCE, "a": A2, "b": B2, "score": 0.48, "area_nm2": 700.0})
    for obj, n, weakest, x0, x1, y0, y1 in (
        (A1, 2, 1.0, 0, 120, 0, 40),
        (A2, 3, 0.7, 0, 120, 40, 120),
        (B2, 1, 1.0, 60, 120, 40, 80),
    ):
        t["object"].append(
            {
                "unit": ONCE,
                "object": obj,
                "supervoxels": n,
                "fragments": n,
                "size_vx": 4800 * n,
                "volume_nm3": 4800.0 * n * 40 * 8 * 8,
                "z0_vx": 0,
                "z1_vx": 2,
                "y0_vx": y0,
                "y1_vx": y1,
                "x0_vx": x0,
                "x1_vx": x1,
                "weakest_merge": weakest,
                "touches_border": True,
            }
        )


def _wiring(t: Rows) -> None:
    for syn, block, pre, post, y, x, confidence in (
        (s1, BLOCK_A, a1, a3, 60.0, 30.0, 0.9),
        (s4, BLOCK_A, a3, a1, 62.0, 20.0, 0.6),
        (s2, BLOCK_B, b1, b3, 20.0, 90.0, 0.8),
        (s3, BLOCK_B, b3, b2, 80.0, 100.0, 0.7),
    ):
        at = {
            f"{side}_{axis}_vx": v
            for side, d in (("pre", -4.0), ("post", 4.0))
            for axis, v in (("z", 0.0), ("y", y + d), ("x", x))
        }
        t["synapse"].append(
            {
                "unit": block,
                "synapse": syn,
                "z_vx": 0.4,
                "y_vx": y,
                "x_vx": x,
                "size_vx": 50,
                "confidence": confidence,
                "polarity": 0.8,
                "pre_supervoxel": pre,
                "post_supervoxel": post,
                **at,
            }
        )
    for syn, pre, post in ((s1, A1, A2), (s2, A1, A2), (s3, A2, B2), (s4, A2, A1)):
        t["link"].append({"unit": ONCE, "synapse": syn, "pre": pre, "post": post, "counted": True, "reason": "counted"})
    for neuron, out, into, p_out, p_in in ((A1, 2, 1, 1, 1), (A2, 2, 2, 2, 1), (B2, 0, 1, 0, 1)):
        t["neuron"].append(
            {
                "unit": ONCE,
                "neuron": neuron,
                "synapses_out": out,
                "synapses_in": into,
                "partners_out": p_out,
                "partners_in": p_in,
                "size_vx": 4800,
                "volume_nm3": 1e6,
            }
        )
    for pre, post, n, confidence, weakest in ((A1, A2, 2, 0.85, 0.7), (A2, B2, 1, 0.7, 0.7), (A2, A1, 1, 0.6, 0.7)):
        t["connection"].append(
            {
                "unit": ONCE,
                "pre": pre,
                "post": post,
                "synapses": n,
                "size_vx": 50 * n,
                "confidence": confidence,
                "weakest_merge": weakest,
            }
        )
