"""The layers as one JAX program give the answers and the gradients that Keras' own give, in both precisions."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
import jax
import numpy as np
from connectome_db.networks.ffn import FFNConfig, build_ffn
from connectome_db.networks.ffn_jax import added

config = FFNConfig(depth=3, features=8, fov_vx=(7, 9, 11), deltas_vx=(2, 2, 2), precision=sys.argv[1])
model = build_ffn(config, seed=5)
rng = np.random.default_rng(0)
seen = rng.normal(0, 1, (2, *config.fov_vx, 2)).astype(np.float32)
wanted = rng.normal(0, 1, (2, *config.fov_vx)).astype(np.float32)
weights = {v.path: v.value + 0.05 * rng.normal(0, 1, v.shape).astype(np.float32) for v in model.trainable_variables}

def by_keras(weights):
    return model.stateless_call([weights[v.path] for v in model.trainable_variables], [], seen)[0][..., 0]

def by_us(weights):
    return added(weights, seen, config.depth, config.precision)

def apart(ours, theirs):
    return float(max(np.abs(a - b).max() / np.abs(b).max() for a, b in zip(ours, theirs, strict=True)))

found = [jax.grad(lambda w: ((f(w) - wanted) ** 2).mean())(weights) for f in (by_us, by_keras)]
gradients = [[np.asarray(g[name], np.float32) for name in weights] for g in found]
print(json.dumps([apart([by_us(weights)], [by_keras(weights)]), apart(*gradients)]))
"""


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed (extra `jax`)")
@pytest.mark.parametrize(("precision", "near"), [("float32", 1e-5), ("bfloat16", 0.03)])
def test_answers_and_gradients_are_those_of_keras(precision: str, near: float) -> None:
    words = [sys.executable, "-c", PROGRAM, precision]
    done = subprocess.run(
        words, cwd=ROOT, env={**os.environ, "KERAS_BACKEND": "jax"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answers, gradients = json.loads(done.stdout.splitlines()[-1])
    assert answers < near
    assert gradients < near
