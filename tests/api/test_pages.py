"""The Python on the pages runs, top to bottom, on the connectome that the page on Python gives."""

from __future__ import annotations

import ast
from typing import Any

import pytest

from connectome_db.api.connectome import Connectome
from tests.docs.pages import ROOT, blocks


@pytest.mark.parametrize("page", ["api.md", "graph-analysis.md"])
def test_python_on_a_page_runs(toy: Connectome, page: str) -> None:
    names: dict[str, Any] = {"db": toy}
    texts = blocks(ROOT / "docs" / page, "python")
    assert texts
    for text in texts:
        for statement in ast.parse(text).body:
            exec(compile(ast.Module([statement], []), page, "exec"), names)


def test_what_the_page_shows_is_what_is_said(toy: Connectome) -> None:
    assert f"# {toy!r}" in (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
