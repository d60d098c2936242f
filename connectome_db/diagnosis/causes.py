"""From a walk through the layers to the name of a cause, or to none.

Each cause has a signature: what it changes first, and what it leaves alone. A cause is named only when its own
measurement differs by more than the normal spread of the dataset, by a size that matters, and not by chance; and the
earliest layer decides, since everything below follows from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from connectome_db.diagnosis.compare import Comparison
from connectome_db.diagnosis.facts import Fact
from connectome_db.schema.quality import LEVELS, METRICS


@dataclass(frozen=True)
class Rules:
    """When a difference counts. Chosen on phantoms of other seeds than those that false alarms are counted on."""

    spreads: float = 3.0
    """A metric of images or of their place must differ by this many normal spreads ..."""
    relative: float = 0.2
    """... and by this share of its usual value ..."""
    p_value: float = 0.001
    """... with at most this probability under chance."""
    decided_p: float = 0.002
    """An override is the cause when a metric that follows from it differs with at most this probability."""
    follows_p: float = 0.05
    """A layer below follows when it is worse with at most this q-value ..."""
    follows_spreads: float = 0.4
    """... and by this many normal spreads."""
    coverage: float = 0.15
    """Tissue is missing when this much of the region is not covered, beyond the rest."""
    charging: float = 1.5
    """Streaks count from this many grey values on ..."""
    saturation: float = 0.02
    """... and saturated pixels from this share on: next to nothing, several times more is still next to nothing."""
    damage: float = 0.05
    """Tissue is damaged when this much more of it is masked."""


RULES = Rules()


@dataclass(frozen=True)
class Cause:
    """Why a region differs."""

    name: str
    layer: str
    metric: str
    strength: float
    """In normal spreads; how far the decisive metric is off."""
    says: str


Walk = Mapping[str, Comparison]
OF_OBJECTS = frozenset({"object_density", "object_size", "orphan_fraction", "degree", "border_cut"})
"""Metrics of objects that run through many cells: so few of them decide that chance looks like certainty."""


def name_cause(walk: Walk, found: Sequence[Fact], *, runs: bool, rules: Rules = RULES) -> Cause | None:
    """The earliest cause that the walk shows. `runs`: the region is a run of whole sections."""
    for look in (_missing, _imaging, _damage, _misalignment):
        cause = look(walk, found, runs, rules)
        if cause is not None:
            return cause
    return _decided(walk, found, rules)


def stands_out(c: Comparison | None, rules: Rules = RULES) -> bool:
    """Whether a metric is worse in the region, beyond chance, beyond normal spread, and by a size that matters."""
    if c is None or not c.worse:
        return False
    size = abs(c.relative) if c.relative is not None else np.inf
    return abs(c.spreads) >= rules.spreads and size >= rules.relative and c.p_value <= rules.p_value


def follows(c: Comparison, q_value: float, rules: Rules = RULES) -> bool:
    """Whether a metric of a later layer is worse too. Those that may differ either way are no witnesses."""
    return (
        METRICS[c.metric].worse != "either"
        and c.worse
        and q_value <= rules.follows_p
        and abs(c.spreads) >= rules.follows_spreads
    )


def _missing(walk: Walk, found: Sequence[Fact], runs: bool, rules: Rules) -> Cause | None:  # noqa: ARG001
    c = walk.get("coverage")
    lost = [f for f in found if f.fact == "tiles"]
    if c is None or c.effect > -rules.coverage or not lost:
        return None
    strength = max(abs(c.spreads), abs(c.effect) / rules.damage)  # where all is covered, the normal spread is 0
    return Cause("missing tiles", "ingest", "coverage", strength, f"{_told(c)}; {lost[0].says}")


def _imaging(walk: Walk, found: Sequence[Fact], runs: bool, rules: Rules) -> Cause | None:  # noqa: ARG001
    """Focus, session, staining, charging: which of the raw metrics is off, and in what shape of region."""
    off = {
        name: abs(c.spreads)
        for name, c in walk.items()
        if LEVELS[METRICS[name].layer] == "L1" and METRICS[name].worse != "either" and stands_out(c, rules)
    }
    # Not the spread of grey values: tissue with fewer synapses has fewer dark densities, and that is biology.
    contrast = max((off.get(n, 0.0), n) for n in ("raw_membrane_contrast", "raw_contrast_to_noise"))
    blur, noise = off.get("raw_sharpness", 0.0), off.get("raw_noise", 0.0)
    weak = contrast[1] if contrast[0] >= noise else "raw_noise"

    def _much(metric: str, least: float) -> bool:
        return metric in off and walk[metric].effect >= least

    tried = (
        (blur and _smoother(walk), "defocus", "raw_sharpness", "the raw images are blurred, as weak staining is not"),
        (runs and (noise or contrast[0]), "session", weak, "a run of whole sections was imaged with less signal"),
        (contrast[0], "staining", contrast[1], "membranes stand out less in the raw images, at normal focus"),
        (noise, "session", "raw_noise", "the raw images are noisier, at normal contrast"),
        (_much("raw_charging", rules.charging), "charging", "raw_charging", METRICS["raw_charging"].doc),
        (_much("raw_saturation", rules.saturation), "saturation", "raw_saturation", METRICS["raw_saturation"].doc),
        (blur, "defocus", "raw_sharpness", METRICS["raw_sharpness"].doc),
    )
    return next((_cause(name, metric, walk, why) for holds, name, metric, why in tried if holds), None)


def _smoother(walk: Walk) -> bool:
    """Whether sharpness fell as focus makes it fall: by more than lost contrast explains, and without more noise."""
    sharp, noise = walk["raw_sharpness"], walk.get("raw_noise")
    if noise is not None and noise.worse and abs(noise.spreads) > abs(sharp.spreads):
        return False
    return sharp.relative is not None and sharp.relative < -0.15


def _damage(walk: Walk, found: Sequence[Fact], runs: bool, rules: Rules) -> Cause | None:  # noqa: ARG001
    c = walk.get("damaged")
    if c is None or c.effect < rules.damage or c.p_value > rules.p_value:
        return None
    return _cause("damage", "damaged", walk, "folds, cracks or blank areas are masked there")


def _misalignment(walk: Walk, found: Sequence[Fact], runs: bool, rules: Rules) -> Cause | None:  # noqa: ARG001
    off = [
        (abs(walk[n].spreads), n)
        for n in ("section_continuity", "alignment_residual", "match_correlation", "match_refused", "montage_residual")
        if n in walk and stands_out(walk[n], rules)
    ]
    if not off:
        return None
    return _cause("misalignment", max(off)[1], walk, "neighbouring sections do not fit, and their images are good")


def _decided(walk: Walk, found: Sequence[Fact], rules: Rules) -> Cause | None:
    """An override whose stage, or a layer after it, is the first that differs."""
    for fact in found:
        if fact.fact not in ("params", "model"):
            continue
        level = LEVELS[fact.stage]
        off = [
            c
            for n, c in walk.items()
            if LEVELS[METRICS[n].layer] >= level and n not in OF_OBJECTS and c.p_value <= rules.decided_p
        ]
        if off:
            first = max(off, key=lambda c: (-int(LEVELS[c.layer][1]), abs(c.spreads)))
            name = "model" if fact.fact == "model" else "parameters"
            return Cause(name, fact.stage, first.metric, abs(first.spreads), f"{fact.says}; {_told(first)}")
    return None


def _cause(name: str, metric: str, walk: Walk, why: str) -> Cause:
    c = walk[metric]
    return Cause(name, c.layer, metric, abs(c.spreads), f"{_told(c)}: {why}")


def _told(c: Comparison) -> str:
    if c.measure == "1":
        return f"{c.metric} {c.region:.3g} against {c.reference:.3g}"
    return f"{c.metric} {c.region:.3g} against {c.reference:.3g} {c.measure}"
