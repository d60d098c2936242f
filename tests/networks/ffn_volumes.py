"""Small volumes for training flood-filling networks, and two ranks that share a batch: `python -m …ffn_volumes OUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from connectome_db.networks.augment import AugmentConfig
from connectome_db.networks.datasets import TrainingVolume, volume_digest
from connectome_db.networks.ffn import FFNConfig
from connectome_db.networks.ffn_sampling import FFNSamplingConfig
from connectome_db.networks.ffn_training import FFNTrainConfig

NETWORK = FFNConfig(depth=2, features=4, kernel=(1, 3, 3), fov_vx=(3, 13, 13), deltas_vx=(1, 3, 3))
STILL = AugmentConfig(contrast=0, brightness=0, gamma=0, noise=0, blur_share=0, defocus_share=0, missing_share=0)


def tubes(seed: int, shape: tuple[int, int, int] = (10, 56, 56), width: int = 14) -> TrainingVolume:
    """Bright tubes along z, divided by dark walls two voxels wide."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[1], : shape[2]]
    y, x = y + rng.integers(width), x + rng.integers(width)
    wall = (y % width < 2) | (x % width < 2)
    labels = np.where(wall, 0, (y // width) * 100 + x // width + 1)
    labels = np.broadcast_to(labels, shape).astype(np.uint32)
    image = np.clip(np.where(labels == 0, 70, 150) + rng.normal(0, 4, shape), 0, 255).astype(np.uint8)
    return TrainingVolume(f"tubes {seed}", image, labels, (30.0, 10.0, 10.0), volume_digest(image, labels))


def training(**more) -> FFNTrainConfig:
    """A training of seconds."""
    usual = {"steps": 12, "batch": 4, "seed": 4, "refresh_every": 5, "learning_rate": 3e-3}
    sampling = more.pop("sampling", FFNSamplingConfig(min_object_vx=100))
    return FFNTrainConfig(network=more.pop("network", NETWORK), sampling=sampling, **(usual | more))


if __name__ == "__main__":
    from connectome_db import executors
    from connectome_db.networks.ffn_training import Ranks, train_ffn

    several = executors.size() > 1
    who = Ranks(executors.rank(), executors.size(), executors.allreduce_mean if several else None)
    train_ffn(training(average=0.0), [tubes(1)], Path(sys.argv[1]), threads=1, ranks=who)
