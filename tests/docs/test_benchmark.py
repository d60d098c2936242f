"""The benchmark of the framework runs, in a small size, and its two kinds of run agree (it stops when they do not)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT


@pytest.mark.slow
def test_the_benchmark_of_the_framework_runs(tmp_path: Path) -> None:
    sizes = ["--units", "20", "--planned", "1000", "--dvc-stages", "2", "--snakemake-jobs", "0"]
    done = subprocess.run(
        [sys.executable, "benchmarks/framework.py", *sizes, "--folder", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for row in ("cold, serial", "2 MPI workers", "plan and keys", "DVC, one stage per unit"):
        assert row in done.stdout
    assert "repeat: python benchmarks/framework.py --units 20" in done.stdout
    assert not list(tmp_path.iterdir())


def test_every_benchmark_is_told_of() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    programs = [p for p in (ROOT / "benchmarks").glob("*.py") if "__main__" in p.read_text(encoding="utf-8")]
    assert len(programs) >= 2
    assert [p.name for p in programs if f"`{p.name}`" not in text] == []
