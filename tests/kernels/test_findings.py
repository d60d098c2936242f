"""What is planted is found, with its box; what is only tissue is not."""

from __future__ import annotations

import numpy as np
import pytest

from connectome_db.kernels.findings import Finding, examine, field_of
from connectome_db.phantom.artefacts import StainingGradient, stain_weight
from tests.kernels.fields import ar1_field, overlap

SHAPE = (32, 8, 8)


def tissue(seed: int, shape: tuple[int, int, int] = SHAPE, grain: float = 0.12) -> np.ndarray:
    """Grey values (z, y, x): tissue that hangs together, and a gain that swings from section to section."""
    rng = np.random.default_rng([seed, 11])
    gain = np.exp(rng.uniform(-0.16, 0.16, shape[0]))[:, None, None]
    return 40 * gain * (1 + grain * ar1_field(rng, shape, 0.7, 0.3))


def found_in(cells: np.ndarray, seed: int = 0) -> list[Finding]:
    field = field_of(cells, np.ones(cells.shape), ratio=True)
    return [f for f in examine(field, 199, np.random.default_rng(seed)) if f.p_value <= 0.005]


@pytest.mark.parametrize("like", [(0.0, 0.0), (0.8, 0.4), (0.95, 0.5)])
def test_tissue_alone_raises_no_more_alarms_than_told(like: tuple[float, float]) -> None:
    """70 fields per likeness, 210 in all; 5% of each kind of test may say p <= 0.05, and chance some more."""
    p_values: dict[str, list[float]] = {}
    for seed in range(70):
        rng = np.random.default_rng([seed, 5])
        cells = 10 + ar1_field(rng, (12, 8, 8), *like) + 2 * rng.standard_normal(12)[:, None, None]
        for f in examine(field_of(cells, np.ones(cells.shape), False), 99, rng, most=1):
            p_values.setdefault(f.kind, []).append(f.p_value)
    assert set(p_values) == {"local", "trend", "step", "section", "period"}
    for kind, p in p_values.items():
        # Nominal x 1.5, and two standard errors. Tissue that hardly changes through all sections looks like a box: 14%.
        limit = 0.2 if kind == "local" and like[0] > 0.9 else 0.125
        assert np.mean(np.array(p) <= 0.05) <= limit, kind
    everything = np.concatenate([np.array(p) for p in p_values.values()])
    assert np.mean(everything <= 0.05) <= 0.075
    assert np.quantile(p_values["trend"], 0.5) > 0.3


def test_tissue_that_reaches_through_a_thin_volume_is_no_trend() -> None:
    """Columns that stay in place through all sections: a shuffle of sections would call each of them an artefact."""
    called = 0
    for seed in range(40):
        rng = np.random.default_rng([seed, 8])
        cells = 10 + 3 * ar1_field(rng, (1, 8, 8), 0.0, 0.3) + ar1_field(rng, (4, 8, 8), 0.0, 0.0)
        called += any(f.p_value <= 0.05 for f in examine(field_of(cells, np.ones(cells.shape), False), 99, rng))
    assert called <= 9  # two tests of 5% each: 4 expected


@pytest.mark.parametrize("strength", [0.6, 0.9])
def test_a_fading_corner_is_one_trend(strength: float) -> None:
    weight = stain_weight(StainingGradient(corner=(1, 0), reach=0.65, strength=strength), (512, 512))
    cells = tissue(1) * (1 - weight.reshape(8, 64, 8, 64).mean(axis=(1, 3)))
    found = found_in(cells)
    assert [f.kind for f in found] == ["trend"]
    assert overlap(found[0].part, ((0, 32), (2.8, 8), (0, 5.2))) >= 0.6
    assert found[0].inside < 0.9 * found[0].outside


def test_a_bad_session_is_one_step() -> None:
    cells = tissue(2)
    cells[9:19] *= 0.5
    found = found_in(cells)
    assert [f.kind for f in found] == ["step"]
    assert found[0].part == (slice(9, 19), slice(0, 8), slice(0, 8))
    assert found[0].inside / found[0].outside == pytest.approx(0.5, abs=0.08)


def test_a_defocused_tile_in_some_sections_is_one_box() -> None:
    cells = tissue(3)
    cells[5:16, :4, 4:] *= 0.55
    found = found_in(cells)
    assert [f.kind for f in found] == ["local"]
    assert overlap(found[0].part, ((5, 16), (0, 4), (4, 8))) >= 0.8
    assert found[0].inside / found[0].outside == pytest.approx(0.55, abs=0.08)


def test_one_bad_section_and_a_knife_that_repeats() -> None:
    cells = tissue(4)
    cells[21] *= 0.3
    assert [(f.kind, f.part[0]) for f in found_in(cells)] == [("section", slice(21, 22))]
    wave = tissue(4) * (1 + 0.3 * np.sin(2 * np.pi * np.arange(32) / 7))[:, None, None]
    found = found_in(wave)
    assert "period" in [f.kind for f in found]
    assert "repeat every 7" in next(f.words for f in found if f.kind == "period")


def test_missing_cells_and_flat_metrics_are_borne() -> None:
    cells = tissue(5)
    cells[3, 2:5] = np.nan
    cells[:, 7, 7] = np.nan
    assert found_in(cells) == []
    assert examine(field_of(np.ones(SHAPE), np.ones(SHAPE), False), 99, np.random.default_rng(0)) == []
    assert examine(field_of(np.full(SHAPE, np.nan), np.zeros(SHAPE), False), 99, np.random.default_rng(0)) == []
