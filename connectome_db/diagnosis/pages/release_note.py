"""What a paper says about the spatial quality of its data: a paragraph for the methods section, and a table."""

from __future__ import annotations

from connectome_db import revisions
from connectome_db.diagnosis.pages.dataset_page import package_version
from connectome_db.diagnosis.pages.flag_list import difference
from connectome_db.diagnosis.pages.html_tags import box_um, number, percent, text_of
from connectome_db.diagnosis.pages.layer_list import share_text, status_of
from connectome_db.diagnosis.pages.measured import LEVEL_NAMES, MEASURES, Flag, Quality
from connectome_db.diagnosis.pages.shares import Shares
from connectome_db.diagnosis.pages.trend import words

MOST_FLAGS = 20
"""Gradients that the note lists; the sentence before them says how many there are."""


def release_note(name: str, quality: Quality, counted: Shares) -> str:
    """The note in Markdown. `name` is the dataset's. It says what was not measured as plainly as what was."""
    parts = [f"# Spatial quality of {_plain(name)}", _methods(name, quality, counted)]
    if quality.metrics:
        parts += ["## Metrics", _metrics(quality), "## Gradients and differing regions", _gradients(quality)]
    parts += ["## Versions", _versions(quality)]
    return "\n\n".join(parts) + "\n"


def _methods(name: str, quality: Quality, counted: Shares) -> str:
    if not quality.metrics:
        return (
            f"The spatial quality of {_plain(name)} was not measured: none of the stages {', '.join(MEASURES)} has "
            f"data at {_plain(quality.revision.name)}. Nothing can be said about gradients of quality in these data, "
            "neither that there are any nor that there are none."
        )
    layers = [level for level in LEVEL_NAMES if quality.of_level(level)]
    cells = sum(len(m.value) for m in quality.metrics.values())
    told = [
        f"Quality was measured with connectome_db {package_version()} by {len(quality.metrics)} metrics in "
        f"{len(layers)} of {len(LEVEL_NAMES)} layers ({', '.join(f'{LEVEL_NAMES[k].lower()}' for k in layers)}), "
        f"{cells:,} values in all, over {_extent(quality)}."
    ]
    if missing := [LEVEL_NAMES[k].lower() for k in LEVEL_NAMES if k not in layers]:
        told.append(f"Not measured: {', '.join(missing)}.")
    if quality.flags is None:
        told.append("The metrics were not searched for gradients, so this note makes no statement about them.")
        return " ".join(told)
    alarming = [f for f in quality.flags if f.alarming]
    if not alarming:
        told.append(
            "No region was found whose quality is worse than elsewhere beyond chance and normal variation (permutation "
            "test that respects spatial correlation, false discovery rate controlled); differences too small for this "
            "test cannot be excluded."
        )
    else:
        n = len(alarming)
        found = (
            f"{n} regions of lower or deviating quality were" if n > 1 else "1 region of lower or deviating quality was"
        )
        told.append(
            f"{found} found (permutation test that respects spatial correlation, false discovery rate controlled); "
            "regions of different metrics may overlap. The largest difference: "
            f"{_one(alarming[0])}. {share_text(quality, counted)}"
        )
    unaffected = [LEVEL_NAMES[k].lower() for k in layers if status_of(quality, k) in {"no flags", "info"}]
    if alarming and unaffected:
        told.append(f"No region was flagged as serious or warning in: {', '.join(unaffected)}.")
    if better := sum(not f.worse for f in quality.flags):
        told.append(f"{better} more region{'s differ' if better > 1 else ' differs'} without costing quality.")
    return " ".join(told)


def _extent(quality: Quality) -> str:
    hull = quality.hull_nm
    if hull is None:
        return "a volume of unknown extent"
    size = [(hull[k + 3] - hull[k]) / 1000 for k in range(3)]
    return f"{' × '.join(f'{s:.4g}' for s in size)} µm (z × y × x)"


def _one(flag: Flag) -> str:
    """A flag as part of a sentence."""
    how = text_of(flag.effect, flag.measure)
    if (short := difference(flag)) != how:
        how = f"{short} ({how})"
    return (
        f"{words(_plain(flag.metric))} ({flag.level}) {how} against elsewhere, {abs(flag.spread):.2g} normal spreads, "
        f"in {box_um(flag.box_nm)}"
    )


def _metrics(quality: Quality) -> str:
    rows = ["| Layer | Metric | Median | Interquartile range | Cells |", "| --- | --- | ---: | ---: | ---: |"]
    for name, m in quality.metrics.items():
        low, middle, high = m.quartiles
        half = f"{number(low)} to {number(high)}"
        rows.append(
            f"| {m.level} | {words(_plain(name))} | {text_of(middle, m.metric.measure)} | {half} | {len(m.value):,} |"
        )
    return "\n".join(rows)


def _gradients(quality: Quality) -> str:
    if quality.flags is None:
        return "Not searched for: stage flag has no data."
    found = [f for f in quality.flags if f.severity in {"serious", "warning"}]
    if not found:
        return "None."
    head = "| Severity | Layer | Metric | Kind | Effect | Relative | q | Region (z, y, x) |"
    rows = [head, "| --- | --- | --- | --- | ---: | ---: | ---: | --- |"]
    for f in found[:MOST_FLAGS]:
        relative = "" if f.relative is None or f.measure.startswith("log") else percent(f.relative)
        rows.append(
            f"| {_plain(f.severity)}{'' if f.worse else ' (better)'} | {f.level} | {words(_plain(f.metric))} | "
            f"{_plain(f.kind)} | {text_of(f.effect, f.measure)} | {relative} | {f.q_value:.2g} | {box_um(f.box_nm)} |"
        )
    more = f"\n\n{len(found) - MOST_FLAGS} more are in the table `flag`." if len(found) > MOST_FLAGS else ""
    return "\n".join(rows) + more


def _versions(quality: Quality) -> str:
    revision = quality.revision
    commit, changed = revisions.checked_out(revision.project)
    if revision.commit is not None:
        at = f"commit {revision.commit}"
    else:
        at = f"commit {commit}{', with changes that are not committed' if changed else ''}" if commit else "no commit"
    rows = [
        f"Data: {at}. Software: connectome_db {package_version()}.",
        "| Stage | Units | Model | Regions with parameters of their own | Code |\n| --- | ---: | --- | ---: | --- |",
    ]
    for stage, r in sorted(quality.records.items()):
        model, code = r.get("model_id") or "", str(r.get("code_digest", ""))[:12]
        line = f"| {stage} | {int(r.get('units', 0)):,} | {_plain(model)} | {len(r.get('overrides') or ())} | {code} |"
        rows[-1] += f"\n{line}"
    return "\n\n".join(rows)


def _plain(text: object) -> str:
    """Text that comes from data, as part of Markdown: on one line, without marks that Markdown or HTML would act on."""
    flat = " ".join(str(text).split())
    for mark in "\\`*[]<>|#!":
        flat = flat.replace(mark, f"\\{mark}" if mark not in "<>" else {"<": "&lt;", ">": "&gt;"}[mark])
    return flat
