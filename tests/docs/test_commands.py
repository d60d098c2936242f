"""Every command in the pages parses, every command has an example, and every command is in the reference."""

from __future__ import annotations

import re

import pytest

from connectome_db.query import named
from connectome_db.schema.all import FUNCTIONS, TABLES
from connectome_db.schema.provenance import PROVENANCE
from connectome_db.schema.quality_views import VIEWS
from connectome_db.stages.pipeline import STAGES
from tests.docs.pages import PAGES, ROOT, Line, blocks, command_lines, generate, parse

LINES = command_lines()
NAMES = {s.name for s in STAGES}
COMMANDS = dict(generate().commands())


def test_the_pages_hold_commands() -> None:
    assert len([line for line in LINES if not line.inline]) > 30


@pytest.mark.parametrize("line", LINES, ids=str)
def test_a_command_line_parses(line: Line) -> None:
    path = parse(line.words, partial=line.inline)
    rest = [w for w in line.words[len(path) :] if not w.startswith("-")]
    if path in {("run",), ("finish",)} and rest and not rest[0].isupper():
        assert rest[0] in NAMES
    if path == ("query",) and rest and not rest[0].isupper():
        assert rest[0] in named.list_queries(ROOT)
    if path == ("tables",) and rest:
        assert rest[0] in {*TABLES, *FUNCTIONS, *(t.name for t in (*PROVENANCE, *VIEWS))}


def test_what_does_not_parse_is_noticed() -> None:
    with pytest.raises(ValueError, match="no command 'rnu'"):
        parse(["rnu", "segment"])
    with pytest.raises(Exception, match=r"(?i)no such option"):
        parse(["run", "segment", "--rank", "4"])
    with pytest.raises(Exception, match=r"(?i)missing"):
        parse(["init", "folder"])
    with pytest.raises(Exception, match=r"(?i)integer"):
        parse(["trace", "synapse", "abc"])
    with pytest.raises(ValueError, match="no option --dto"):
        parse(["trace", "edge", "--dto"], partial=True)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_has_an_example_in_its_help_and_its_place_in_the_reference(path: tuple[str, ...]) -> None:
    text = COMMANDS[path].help
    examples = re.findall(r"`?(connectome [^\n`]+)", text)
    assert any(e.startswith(" ".join(path)) for e in examples), f"no example in the help of {' '.join(path)}"
    for example in examples:
        parse(Line("help", example).words)
    assert f"\n## {' '.join(path)}\n" in (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")


def test_an_option_without_help_is_in_no_command() -> None:
    bare = [
        f"{' '.join(path)} {p.name}"
        for path, command in COMMANDS.items()
        for p in command.params
        if not (p.help or p.name in UNDERSTOOD)
    ]
    assert bare == []


UNDERSTOOD = {"steps", "seed", "threads", "help"}


def test_dvc_targets_are_stages() -> None:
    for page in PAGES:
        for text in blocks(page, "console", "bash"):
            for target in re.findall(r"dvc repro ([a-z]\w*)", text):
                assert target in NAMES


def test_commands_that_messages_advise_exist() -> None:
    advised = set()
    for file in sorted((ROOT / "connectome_db").rglob("*.py")):
        advised |= {(file.name, m) for m in re.findall(r"`(connectome [a-z][^`]*)`", file.read_text(encoding="utf-8"))}
    assert len(advised) > 10
    for name, text in sorted(advised):
        words = [w for w in text.split()[1:] if not w.startswith("{")]
        assert parse(words, partial=True), name
