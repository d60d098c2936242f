"""Judge a project and keep what came of it: `qa/expectations.parquet`, `qa/run.json`, `qa/docs/`; and the gate."""

from __future__ import annotations

from pathlib import Path

from connectome_db.environment import git_facts
from connectome_db.errors import RunError
from connectome_db.qa import pages, results
from connectome_db.qa.checks import Engine, check_project
from connectome_db.qa.frames import Tables
from connectome_db.qa.result import Result
from connectome_db.qa.settings import QaParams, Strict


def write(root: Path, name: str, params: QaParams, *, engine: Engine = "direct") -> list[Result]:
    """Judge the project `name` at `root` and write all results; returns them."""
    found = check_project(root, params, engine=engine)
    tables = Tables(root)
    digests = results.table_digests({t: tables.path(t) for t in tables.there})
    git = git_facts(root) or {}
    results.write(root, found, digests, git.get("commit"), bool(git.get("dirty")))
    pages.write(root, pages.site(name, found, tables.stage_of, digests))
    return found


def gate(root: Path, strict: Strict) -> str:
    """Let the results of a project pass, or raise RunError that names what they fail; returns what to say."""
    found = results.read(root)
    wrong = results.unmet(found, strict)
    if wrong:
        lines = [f"  {r.severity}: {r.table}: {r.says}: {r.unexpected:,} of {r.rows:,}" + _where(r) for r in wrong[:20]]
        more = [f"  … and {len(wrong) - 20} more"] * (len(wrong) > 20)
        raise RunError(
            "\n".join(
                [
                    f"{len(wrong)} of {len(found)} expectations are not met, and `qa.strict: {strict}` lets none pass:",
                    *lines,
                    *more,
                    f"All data and results are there: `connectome check`, or open {root / pages.DOCS / 'index.html'}. "
                    "Mend the cause, or change a limit or `strict` under `qa:` in params.yaml, and run `dvc repro` "
                    "again.",
                ]
            )
        )
    if strict == "off":
        return "qa.strict is off: results are not judged"
    return f"{len(found)} expectations let pass under qa.strict: {strict}"


def _where(r: Result) -> str:
    return f", worst at {' '.join(filter(None, [r.place, pages.box_text(r)]))}" if r.place else ""
