"""A flood-filling network whose weights are written down, not learnt: what is bright is the object."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from connectome_db.networks.ffn import FFNConfig, build_ffn, write_ffn

GAIN = 6.0
THRESHOLD = 0.1


def write_bright(folder: Path) -> Path:
    """Write a model that answers GAIN * (grey - THRESHOLD), grey scaled, whatever the mask said: kernels of 1 voxel."""
    config = FFNConfig(depth=1, features=4, kernel=(1, 1, 1), fov_vx=(5, 17, 17), deltas_vx=(2, 8, 8))
    first = np.zeros((1, 1, 1, 2, 4))
    first[0, 0, 0] = [[1, -1, 0, 0], [0, 0, 1, -1]]  # grey and mask, each as what is above and below
    second = np.zeros((1, 1, 1, 4, 4))
    line = np.array([GAIN, -GAIN, -1, 1])  # GAIN * grey - mask
    second[0, 0, 0] = np.stack([line, -line, 0 * line, 0 * line], axis=1)
    last = np.zeros((1, 1, 1, 4, 1))
    last[0, 0, 0, :, 0] = [1, -1, 0, 0]
    values = {
        "conv0_a/kernel": first,
        "conv0_a/bias": np.array([-THRESHOLD, THRESHOLD, 0, 0]),
        "conv0_b/kernel": second,
        "conv0_b/bias": np.zeros(4),
        "conv_lom/kernel": last,
        "conv_lom/bias": np.zeros(1),
    }
    weights = [(w.path, values[w.path].astype(np.float32)) for w in build_ffn(config).weights]
    write_ffn(folder, config, weights, {"task": "flood"})
    return folder
