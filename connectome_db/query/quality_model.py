"""How likely a detected synapse is true, and a true one found, given its confidence and the local quality.

Two logistic models. `d` is the deviation of the worst metric (`synapse_quality.worst_dev`), between -DEEP and 0, and 0
where nothing was measured:

    logit p_true  = a + b (confidence - CENTRE) + c d
    logit p_found = e + f d

The numbers were fitted by `benchmarks/edge_quality.py` on 21 phantoms with truth (clean, with artefacts, with wrong
models and thresholds; 2,353 synapses found, 2,779 true ones). A network of another kind has confidences of another
scale: fit them again where truth is at hand.
"""

from __future__ import annotations

CENTRE = 0.9
"""The confidence at which `p_true` is `a` alone."""
DEEP = 10.0
"""Deviations count no further than this: the phantoms hold no worse."""

TERMS = {
    "p_true_intercept": (0.79, "a: log odds at the median of quality and the confidence of `centre`"),
    "p_true_confidence": (49.7, "b: per unit of confidence above `centre`"),
    "p_true_deviation": (0.22, "c: per robust spread of the worst metric (negative is worse)"),
    "p_found_intercept": (1.26, "e: log odds at the median of quality"),
    "p_found_deviation": (0.31, "f: per robust spread of the worst metric"),
    "centre": (CENTRE, "confidence that p_true_intercept is about"),
    "deep": (DEEP, "deviations worse than this count as this"),
}
"""Term -> (value, what it is)."""


def p_true(confidence: str, deviation: str) -> str:
    """SQL of the probability that a detected synapse is true and has the partners it was given."""
    a, b, c = (TERMS[f"p_true_{n}"][0] for n in ("intercept", "confidence", "deviation"))
    return _logistic(f"{a} + {b} * ({confidence} - {CENTRE}) + {c} * {_limited(deviation)}")


def p_found(deviation: str) -> str:
    """SQL of the probability that a true synapse is found with the right partners."""
    e, f = (TERMS[f"p_found_{n}"][0] for n in ("intercept", "deviation"))
    return _logistic(f"{e} + {f} * {_limited(deviation)}")


def _limited(deviation: str) -> str:
    return f"greatest(least(coalesce({deviation}, 0), 0), -{DEEP})"


def _logistic(x: str) -> str:
    return f"1 / (1 + exp(-({x})))"
