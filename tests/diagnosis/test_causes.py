"""Names of causes from walks that are written down, and the scan for the box with the fewest synapses."""

from __future__ import annotations

import pytest

from connectome_db.diagnosis.causes import name_cause
from connectome_db.diagnosis.compare import Comparison
from connectome_db.diagnosis.facts import Fact
from connectome_db.diagnosis.told import difference_in_words
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


def test_an_interval_without_zero_is_within_chance_when_much_was_tried():
    """Otherwise a reader sees -44 % (-87 % to -2 %) and p 0.34, and trusts neither."""
    clear, unclear = off("synapse_density", -0.44, -1, p=0.34), off("synapse_density", -0.05, -1, p=0.34)
    assert "several places and metrics were tried" in difference_in_words(clear, real=False)
    assert "were tried" not in difference_in_words(unclear, real=False)
    assert "not chance" in difference_in_words(clear, real=True)
