from pathlib import Path

import numpy as np
import pytest

from connectome_db.networks.architecture import Level, UNetConfig
from connectome_db.networks.registry import write_model


@pytest.fixture(scope="session")
def small_config() -> UNetConfig:
    return UNetConfig(
        channels=("aff_z1", "aff_y1", "aff_x1"),
        levels=(
            Level(features=4, kernels=((1, 3, 3),), encoder_blocks=0),
            Level(features=6, down=(1, 2, 2), kernels=((1, 3, 3), (3, 3, 3))),
            Level(features=8, down=(1, 2, 2), kernels=((3, 3, 3),)),
        ),
    )


@pytest.fixture(scope="session")
def model_folder(small_config: UNetConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model whose weights are far from zero, biases included."""
    from connectome_db.networks.unet import build

    rng = np.random.default_rng(5)
    weights = [
        (w.path, np.asarray(w) + rng.normal(0, 0.05, w.shape).astype(np.float32)) for w in build(small_config).weights
    ]
    folder = tmp_path_factory.mktemp("models") / "small"
    write_model(folder, small_config.model_dump(mode="json"), weights, {"task": "affinity"})
    return folder
