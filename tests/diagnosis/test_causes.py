"""Names of causes from walks that are written down, and the scan for the box with the fewest synapses."""

from __future__ import annotations

import numpy as np
import pytest

from connectome_db.diagnosis.causes import name_cause
from connectome_db.diagnosis.cells import Cells
from connectome_db.diagnosis.compare import Comparison
from connectome_db.diagnosis.density_scan import sparsest
from connectome_db.diagnosis.facts import Fact
from connectome_db.schema.quality import METRICS

TYPO = Fact("synapses", "params", "high 0.99", "high 0.9", "synapses ran with high 0.99", override="corner")
LOST = Fact("ingest", "tiles", "9 tiles lost", "0 tiles lost", "9 tiles could not be used")


def off(metric: str, relative: float, spreads: float, p: float = 1e-5) -> Comparison:
    """A comparison in which a metric is off by a share of its value, and by normal spreads (signed like `relative`)."""
    m = METRICS[metric]
    effect, spread = relative * 10.0, abs(relative * 10.0 / spreads)
    worse = m.worse == "either" or (effect < 0) == (m.worse == "low")
    return Comparison(
        metric, m.layer, m.measure, 10 + effect, 10.0, effect, 1.0, (effect - 1, effect + 1), p, spread, worse, 50, 200,
        False,
    )  # fmt: skip


def walk(*found: Comparison) -> dict[str, Comparison]:
    return {c.metric: c for c in found}


LOW_CONTRAST = (off("raw_membrane_contrast", -0.4, -6), off("raw_contrast_to_noise", -0.3, -3))
SHARP = off("raw_sharpness", -0.03, -0.4, 0.3)
CASES = {
    "staining": (walk(*LOW_CONTRAST, SHARP, off("contact_ambiguous", 0.9, 3)), (), False),
    "defocus": (walk(*LOW_CONTRAST, off("raw_sharpness", -0.8, -9)), (), False),
    "session": (walk(*LOW_CONTRAST, SHARP, off("raw_noise", 0.5, 6)), (), True),
    "misalignment": (walk(SHARP, off("section_continuity", -0.4, -4), off("match_refused", 5.0, 9)), (), False),
    "missing tiles": (walk(off("coverage", -0.06, -30)), (LOST,), False),
    "parameters": (walk(SHARP, off("synapse_density", -0.7, -1.0)), (TYPO,), False),
    "damage": (walk(off("damaged", 0.02, 5)), (), False),
}


@pytest.mark.parametrize("name", CASES)
def test_each_cause_by_its_signature(name):
    found, facts, runs = CASES[name]
    cause = name_cause(found, facts, runs=runs)
    assert cause is not None
    assert cause.name == name


def test_the_earliest_layer_decides():
    found, _, runs = CASES["staining"]
    cause = name_cause(found | walk(off("synapse_density", -0.7, -1.0)), (TYPO,), runs=runs)
    assert cause is not None
    assert cause.name == "staining"


@pytest.mark.parametrize(
    "found",
    [
        walk(off("raw_membrane_contrast", -0.4, -6, p=0.05)),  # chance
        walk(off("raw_membrane_contrast", -0.04, -6)),  # too small to matter
        walk(off("raw_membrane_contrast", -0.4, -1.0)),  # within normal spread
        walk(off("raw_membrane_contrast", 0.4, 6)),  # better
        walk(off("synapse_density", -0.7, -1.0)),  # fewer synapses, and nothing else: biology
    ],
)
def test_no_cause_is_named_without_its_evidence(found):
    assert name_cause(found, (), runs=False) is None


def test_an_override_that_changes_nothing_is_no_cause():
    assert name_cause(walk(off("synapse_density", -0.1, -0.2, p=0.4)), (TYPO,), runs=False) is None


BOUNDS = (0.0, 0.0, 0.0, 960.0, 4096.0, 4096.0)


def _density(rng: np.random.Generator, corner: float) -> Cells:
    low = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in ((4, 240), (8, 512), (8, 512))), indexing="ij"), axis=-1)
    low = low.reshape(-1, 3).astype(float)
    boxes = np.concatenate([low, low + np.array([240, 512, 512])], axis=1)
    volume = rng.uniform(0.04, 0.063, len(boxes))
    thin = np.where((low[:, 1] >= 2048) & (low[:, 2] >= 2048), corner, 1.0)
    return Cells(METRICS["connection_density"], boxes, rng.poisson(12 * thin * volume) / volume, volume)


def test_the_scan_finds_a_sparse_quarter():
    found = sparsest(_density(np.random.default_rng(5), 0.2), BOUNDS, np.random.default_rng(6))
    assert found is not None
    assert found.p_value < 0.01
    assert found.found < 0.5 * found.expected
    z0, y0, x0, z1, y1, x1 = found.box_nm
    assert (z0, z1) == (0.0, 960.0)
    assert (y0 + y1) / 2 > 2048
    assert (x0 + x1) / 2 > 2048


def test_the_scan_keeps_chance_at_its_rate():
    p = []
    for seed in range(60):
        found = sparsest(_density(np.random.default_rng(seed), 1.0), BOUNDS, np.random.default_rng(seed), draws=99)
        p.append(found.p_value)  # type: ignore[union-attr]
    assert np.mean(np.asarray(p) <= 0.05) <= 0.1
    assert np.mean(np.asarray(p) <= 0.5) > 0.3
