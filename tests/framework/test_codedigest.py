"""The code digest: what it ignores, what it sees, what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from connectome_db.codedigest import closure, code_digest
from connectome_db.errors import StageError
from connectome_db.stages.pipeline import STAGES


def package(root: Path, **files: str) -> Path:
    for folder in ("stages", "kernels", "schema"):
        (root / "connectome_db" / folder).mkdir(parents=True, exist_ok=True)
        (root / "connectome_db" / folder / "__init__.py").write_text("")
    (root / "connectome_db" / "__init__.py").write_text("")
    for dotted, text in files.items():
        (root / "connectome_db" / (dotted.replace("__", "/") + ".py")).write_text(text)
    closure.cache_clear()
    return root


KERNEL = '''"""Doc."""
def double(x):
    """Twice."""
    return 2 * x  # why
'''
STAGE = "from connectome_db.kernels.maths import double\nVALUE = double(3)\n"


def test_comments_docstrings_and_layout_do_not_count(tmp_path):
    before = code_digest("stages.a", root=package(tmp_path, stages__a=STAGE, kernels__maths=KERNEL))
    other = 'def double(x):\n\n    """Another text."""\n\n    return (2 *\n        x)\n'
    assert code_digest("stages.a", root=package(tmp_path, stages__a=STAGE + "# note\n", kernels__maths=other)) == before


@pytest.mark.parametrize(
    ("old", "new"), [("2 * x", "x * 2"), ("2 * x", "3 * x"), ("double(x)", "double(y)"), ("return", "yield")]
)
def test_a_kernel_edit_counts(tmp_path, old, new):
    before = code_digest("stages.a", root=package(tmp_path, stages__a=STAGE, kernels__maths=KERNEL))
    after = code_digest("stages.a", root=package(tmp_path, stages__a=STAGE, kernels__maths=KERNEL.replace(old, new)))
    assert after != before


def test_a_kernel_edit_reaches_exactly_the_stages_that_import_it(tmp_path):
    other = "VALUE = 1\n"
    root = package(tmp_path, stages__a=STAGE, stages__b=other, kernels__maths=KERNEL)
    a, b = code_digest("stages.a", root=root), code_digest("stages.b", root=root)
    root = package(tmp_path, stages__a=STAGE, stages__b=other, kernels__maths=KERNEL.replace("2", "5"))
    assert code_digest("stages.a", root=root) != a
    assert code_digest("stages.b", root=root) == b


def test_nested_imports_are_followed(tmp_path):
    nested = "def f():\n    from connectome_db.kernels.maths import double\n    return double(1)\n"
    root = package(tmp_path, stages__a=nested, kernels__maths=KERNEL)
    assert [m.name for m in closure("stages.a", root=root)] == ["kernels.maths", "stages.a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\n", r"a\.py:1: imports 'os'"),
        ("x = 1\nfrom pathlib import Path\n", r"a\.py:2: imports 'pathlib'"),
        ("import time\n", "imports 'time'"),
        ("import random\n", "imports 'random'"),
        ("def f():\n    return open('x')\n", r"a\.py:2: calls open\(\)"),
        ("from connectome_db.kernels import double\n", "is a package: the code digest cannot follow it"),
        ("import connectome_db.kernels.maths\n", "binds the package"),
        ("from connectome_db.kernels.maths import *\n", r"`import \*` hides"),
        ("from ..kernels.maths import double\n", "a relative import"),
        ("import importlib\n", "importlib: the code digest cannot follow it"),
        ("m = __import__('os')\n", "__import__"),
        ("from connectome_db.kernels.again import double\n", "only re-exported by kernels.again"),
        ("from connectome_db.kernels.maths import dubble\n", "does not define 'dubble'"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_line(tmp_path, text, message):
    again = "from connectome_db.kernels.maths import double\n"
    root = package(tmp_path, stages__a=text, kernels__maths=KERNEL, kernels__again=again)
    with pytest.raises(StageError, match=message):
        code_digest("stages.a", root=root)


@pytest.mark.parametrize("stage", STAGES, ids=lambda s: s.name)
def test_every_real_stage_can_be_followed(stage):
    names = [m.name for m in closure(stage.compute.__module__.removeprefix("connectome_db."))]
    assert f"stages.{stage.name}" in names
    assert not {"runner", "store", "volumes", "tables", "plans", "spec"} & set(names)
    assert not [n for n in names if n.startswith("stages.") and n != f"stages.{stage.name}"]
