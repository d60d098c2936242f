"""The stage of CONTRIBUTING.md, entered into a copy of the package as the page says, and run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import connectome_db
from tests.docs.pages import ROOT, blocks

PACKAGE = Path(connectome_db.__path__[0])

PROGRAM = """\
import json, sys
from pathlib import Path

import cv2
import numpy as np

from connectome_db import config, plans, prepare, runner
from connectome_db.finish import finish
from connectome_db.geometry import Box
from connectome_db.query.database import open_database
from connectome_db.schema.all import OUTPUTS
from connectome_db.spec import RAW, Params, Stage, Volume
from connectome_db.stages.contrast import STAGE
from connectome_db.stages.pipeline import STAGES

from toyrender import RENDER

root = Path(sys.argv[1])
project = config.load(root, (RENDER, STAGE))
said = {"at": [s.name for s in STAGES].index("contrast"), "outputs": len(OUTPUTS["contrast"])}
for name in ("render", "contrast", "contrast"):
    prepared, outcome = runner.run_units(project, name)
    finish(prepared, outcome)
    said.setdefault("computed", []).append([outcome.computed, outcome.total])
with open_database(root) as db:
    said["rows"] = db.sql("SELECT section, pixels, spread FROM contrast ORDER BY unit, section").to_pylist()
text = Path(sys.argv[2]).read_text()
Path(sys.argv[2]).write_text(text.replace("import numpy as np", "import os\\nimport numpy as np"))
from connectome_db import codedigest
codedigest.closure.cache_clear()
try:
    runner.run_units(project, "contrast")
except Exception as e:
    said["refused"] = str(e)
print(json.dumps(said))
"""

TOY = '''\
"""Stands in for `render`: a volume whose spread per section is known."""

import numpy as np

from connectome_db import plans
from connectome_db.geometry import Box
from connectome_db.spec import RAW, Params, Stage, Volume


class RenderParams(Params):
    """None."""


def plan(found, params):
    """Two blocks."""
    blocks = plans.grid(Box((0, 0, 0), (2, 128, 256)), (16, 128, 128))
    return plans.reading(blocks, (RAW, plans.planes([0, 0], [1, 1])))


def compute(block):
    """Section 0 of the first block is half 10, half 30; section 1 is empty; the second block is 50."""
    image = np.zeros(block.unit.core.shape, np.uint8)
    if block.unit.core.lo[2]:
        image[:] = 50
    else:
        image[0] = 30
        image[0, :64] = 10
    return {"image": image}


RENDER = Stage(
    name="render", summary="Toy.", params=RenderParams, inputs=(RAW,), plan=plan, compute=compute,
    outputs=(Volume(name="image", dtype="uint8", kind="image", doc="Toy."),),
)
'''


def files_on_the_page() -> dict[str, str]:
    """Path -> text of every Python block that names a file in its first line."""
    found = {}
    for text in blocks(ROOT / "CONTRIBUTING.md", "python"):
        name = re.match(r"# (connectome_db/\S+\.py)\n", text)
        assert name, "a Python block of CONTRIBUTING.md names its file in the first line"
        found[name[1]] = text
    return found


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{path.name}: {old!r} is not there once"
    path.write_text(text.replace(old, new), encoding="utf-8")


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    import json

    root = tmp_path_factory.mktemp("contributing")
    copy = root / "connectome_db"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    for name, text in files_on_the_page().items():
        (root / name).write_text(text, encoding="utf-8")
    edit(
        copy / "schema" / "all.py",
        '    "mask": (MASK_AREA,),\n',
        '    "mask": (MASK_AREA,),\n    "contrast": (CONTRAST,),\n',
    )
    edit(
        copy / "schema" / "all.py",
        "from connectome_db.schema.imaging import",
        "from connectome_db.schema.contrast import CONTRAST\nfrom connectome_db.schema.imaging import",
    )
    edit(
        copy / "stages" / "pipeline.py",
        "from connectome_db.stages.graph import",
        "from connectome_db.stages.contrast import STAGE as CONTRAST\nfrom connectome_db.stages.graph import",
    )
    edit(copy / "stages" / "pipeline.py", "    MASK,\n", "    MASK,\n    CONTRAST,\n")
    (root / "toyrender.py").write_text(TOY)
    (root / "go.py").write_text(PROGRAM)
    project = root / "project"
    (project / "raw").mkdir(parents=True)
    shutil.copy(tile(root), project / "raw" / "t0.png")
    (project / "raw" / "manifest.csv").write_text("path,section,stage_y_px,stage_x_px\nt0.png,0,0,0\n")
    (project / "params.yaml").write_text("dataset: {name: page, voxel_nm: [30, 8, 8]}\ncontrast: {darkest: 5}\n")
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "start"]):
        subprocess.run(["git", *words], cwd=project, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "go.py", str(project), str(copy / "stages" / "contrast.py")],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return answer


def tile(folder: Path) -> Path:
    import cv2
    import numpy as np

    cv2.imwrite(str(folder / "t0.png"), np.full((32, 32), 100, np.uint8))
    return folder / "t0.png"


def test_the_stage_stands_in_the_pipeline_after_what_it_reads(said: dict[str, object]) -> None:
    assert (said["at"], said["outputs"]) == (6, 1)


def test_it_computes_what_it_says(said: dict[str, object]) -> None:
    half = 128 * 128
    assert said["rows"] == [
        {"section": 0, "pixels": half, "spread": 10.0},
        {"section": 1, "pixels": 0, "spread": 0.0},
        {"section": 0, "pixels": half, "spread": 0.0},
        {"section": 1, "pixels": half, "spread": 0.0},
    ]


def test_it_is_not_computed_twice(said: dict[str, object]) -> None:
    assert said["computed"] == [[2, 2], [2, 2], [0, 2]]


def test_a_forbidden_import_is_refused(said: dict[str, object]) -> None:
    assert "imports 'os'" in str(said["refused"])
