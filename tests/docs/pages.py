"""The project's pages, their code blocks, and the `connectome` command lines in them."""

from __future__ import annotations

import importlib.util
import re
import shlex
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import typer

from connectome_db.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [p for p in (ROOT / "README.md", ROOT / "CONTRIBUTING.md") if p.is_file()]
PAGES += sorted(p for p in (ROOT / "docs").rglob("*.md"))

FENCE = re.compile(r"^ *```(?P<lang>[\w+-]*)[^\n]*\n(?P<text>.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`(connectome [^`\n]+)`(?!`)")
LINE = re.compile(r"(?:^|&& |\$ |--wrap \")(connectome [^\n]*)", re.MULTILINE)
SHELLS = {"console", "bash", "sh", "shell", ""}


@dataclass(frozen=True)
class Line:
    """A command line and where it stands."""

    page: str
    text: str
    inline: bool = False

    def __str__(self) -> str:
        return f"{self.page}: {self.text}"

    @property
    def words(self) -> list[str]:
        """The words after `connectome`."""
        text = re.split(r" && | \| | > |  +#| \(then", self.text)[0]
        if text.count('"') % 2:
            text = text.rstrip('"')
        return shlex.split(text)[1:]


def generate() -> ModuleType:
    """docs/generate.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def blocks(page: Path, *languages: str) -> list[str]:
    """The fenced code blocks of a page in these languages."""
    return [m["text"] for m in FENCE.finditer(page.read_text(encoding="utf-8")) if m["lang"] in languages]


def command_lines() -> list[Line]:
    """Every `connectome …` line in code blocks and in inline code."""
    found = []
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        for text in blocks(page, *SHELLS):
            found += [Line(name, m[1].strip()) for m in LINE.finditer(text.replace("\\\n", " "))]
        prose = FENCE.sub("", page.read_text(encoding="utf-8"))
        if "reference" not in page.parts:  # its inline usage lines are written from the parser itself
            found += [Line(name, m[1], inline=True) for m in INLINE.finditer(prose)]
    return found


@cache
def program() -> Any:
    """The program's parser: made once, because that takes a third of a second."""
    return typer.main.get_command(app)


def parse(words: list[str], *, partial: bool = False) -> tuple[str, ...]:
    """Parse a command line with the program's own parser, without running it; returns the command's path.

    Placeholders in capitals stand for a number. `partial` lets arguments be missing. Raises whatever the parser raises.
    """
    command = program()
    words = ["1" if re.fullmatch(r"[A-Z][A-Z_]*", w) else w for w in words]
    path: list[str] = []
    context = None
    while hasattr(command, "commands"):
        if not words and partial:
            return tuple(path)
        name = words[0]
        if name not in command.commands:
            raise ValueError(f"no command {' '.join([*path, name])!r}; there are {sorted(command.commands)}")
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
        command, words = command.commands[name], words[1:]
        path.append(name)
    if partial:  # options must still be known
        known = {o for p in command.params for o in [*p.opts, *p.secondary_opts]}
        unknown = [w for w in words if w.startswith("--") and w.split("=")[0] not in known]
        if unknown:
            raise ValueError(f"connectome {' '.join(path)}: no option {unknown[0]}; there are {sorted(known)}")
    else:
        command.make_context(path[-1], list(words), parent=context)
    return tuple(path)
