"""How sure a cause is: the walk is repeated on resampled places, and counted in how many of them it gets the same name.

Clusters of cells are drawn with replacement, on both sides and for all metrics at once, so that metrics which hang
together stay together (a cluster bootstrap; Davison and Hinkley 1997, chapter 8).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from connectome_db.diagnosis.causes import Cause, Rules, name_cause
from connectome_db.diagnosis.compare import Comparison, Sample, estimate
from connectome_db.diagnosis.facts import Fact

RESAMPLES = 100


def sureness(
    cause: Cause,
    samples: Mapping[str, Sample],
    found: Sequence[Fact],
    runs: bool,
    rules: Rules,
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> float:
    """Share of resamples in which the same cause is named; never quite 0 or 1 (one is added on both sides)."""
    drawn = {name: _Drawn(s, c) for name, s in samples.items() if (c := estimate(s)) is not None}
    same = 0
    for _ in range(resamples):
        seed = int(rng.integers(0, 2**62))
        walk = {name: d.once(seed) for name, d in drawn.items()}
        other = name_cause(walk, found, runs=runs, rules=rules)
        same += other is not None and other.name == cause.name
    return (same + 1) / (resamples + 2)


class _Drawn:
    """One metric's sums by cluster, of which resamples are drawn without touching the cells again."""

    def __init__(self, s: Sample, c: Comparison) -> None:
        self.base = c
        self.sides = []
        weight = s.cells.weight
        for mine in (s.inside, s.outside):
            numbers, index = np.unique(s.cluster[mine], return_inverse=True)
            total = np.bincount(index, weight[mine], len(numbers))
            summed = np.bincount(index, weight[mine] * s.value[mine], len(numbers))
            self.sides.append((numbers, total, summed))
        numbers, total, summed = self.sides[1]
        # Strata move the reference's mean; the shift is kept, so that resamples vary about the estimate.
        self.shift = c.reference - float(summed.sum() / total.sum())

    def once(self, seed: int) -> Comparison:
        """A comparison from clusters drawn with replacement; the p-value and the spread stay as they were."""
        means = []
        for numbers, total, summed in self.sides:
            # The same cluster gets the same draw in every metric.
            key = (numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) ^ np.uint64(seed)
            times = _poisson_one(key)
            if not (times * total).sum() > 0:
                times = np.ones(len(numbers))
            means.append(float((times * summed).sum() / (times * total).sum()))
        here, there = means[0], means[1] + self.shift
        effect = here - there
        worse = self.base.worse == ((effect < 0) == (self.base.effect < 0))
        return replace(self.base, region=here, reference=there, effect=effect, worse=worse)


def _poisson_one(key: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Poisson(1) draws from well mixed 64-bit keys: a bootstrap that needs no common order of clusters."""
    x = key.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        x ^= x >> np.uint64(shift)
        x *= np.uint64(factor)
    x ^= x >> np.uint64(31)
    uniform = (x >> np.uint64(11)).astype(np.float64) / 2.0**53
    steps = np.cumsum([np.exp(-1.0) / f for f in (1, 1, 2, 6, 24, 120, 720)])
    return np.searchsorted(steps, uniform).astype(np.float64)
