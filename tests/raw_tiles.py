"""Raw tiles and manifests made for tests."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import tifffile

from connectome_db.manifest import Manifest, read_manifest

HEADER = "path,section,stage_y_px,stage_x_px"


def image(seed: int, shape: tuple[int, int] = (40, 50)) -> np.ndarray[Any, Any]:
    smooth = np.cumsum(np.random.default_rng(seed).normal(0, 4, shape), axis=1) + 128
    return np.clip(smooth, 0, 255).astype(np.uint8)


def tiff(array: np.ndarray[Any, Any], **how: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, **how)
    return out.getvalue()


def put(folder: Path, names: list[str]) -> None:
    """Tiles with pixels of their own, written as their suffix says."""
    folder.mkdir(parents=True, exist_ok=True)
    encode = {".png": imagecodecs.png_encode, ".jpg": imagecodecs.jpeg8_encode, ".tif": tiff}
    for seed, name in enumerate(names):
        (folder / name).write_bytes(encode[Path(name).suffix](image(seed)))


def manifest_of(folder: Path, lines: list[str], header: str = HEADER) -> Manifest:
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return read_manifest(path)


def problems(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["tile"].to_pylist(), table["problem"].to_pylist(), strict=True))


def details(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["tile"].to_pylist(), table["detail"].to_pylist(), strict=True))
