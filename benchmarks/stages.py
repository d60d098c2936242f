"""Voxels per second of each stage, and what `dvc repro` costs when there is nothing to do.

python benchmarks/stages.py [PROJECT]      a finished project; default: demo, which `make demo` makes

Seconds are those recorded with each unit when it was computed (reading, computing and storing it), summed over units,
The seconds recorded with each unit when it was computed (reading, computing and storing it) are summed over units,
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from connectome_db import config, volumes
from connectome_db.stages.pipeline import STAGES

BEFORE_THE_VOLUME = {"ingest", "montage", "match", "align"}


def pixels_of_tiles(project: config.Project) -> int:
    """Pixels of all usable tiles."""
    tile = pq.read_table(project.data("ingest") / "tile.parquet", columns=["height_px", "width_px"])
    return int(pc.sum(pc.multiply(tile["height_px"].cast("int64"), tile["width_px"].cast("int64"))).as_py())


def noop_seconds(root: Path) -> float:
    """Wall seconds of `dvc repro` in an up-to-date project."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    clock = time.perf_counter()
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, check=True, env=os.environ | {"PATH": path})
    return time.perf_counter() - clock


def main() -> None:
    """Print the table."""
    root = Path(sys.argv[1] if len(sys.argv) > 1 else "demo").resolve()
    project = config.load(root, STAGES)
    voxels = volumes.open_info(project.data("render") / "image").bounds.size_vx
    pixels = pixels_of_tiles(project)
    table = Table("stage", "units", "s of one worker", "Mvoxel", "Mvoxel/s", title=f"{root.name}", header_style="bold")
    for stage in STAGES:
        seconds = pq.read_table(project.provenance(stage.name) / "executions.parquet")["seconds"].to_numpy()
        total, size = float(np.sum(seconds)), pixels if stage.name in BEFORE_THE_VOLUME else voxels
        table.add_row(stage.name, str(len(seconds)), f"{total:.2f}", f"{size / 1e6:.1f}", f"{size / 1e6 / total:.3g}")
    out = Console()
    out.print(table)
    out.print(f"dvc repro with nothing to do: {noop_seconds(root):.1f} s (target 10)")
    again = f"python benchmarks/stages.py {' '.join(sys.argv[1:])}"
    out.print(f"load average {os.getloadavg()[0]:.1f}; repeat: {again}")


if __name__ == "__main__":
    main()
