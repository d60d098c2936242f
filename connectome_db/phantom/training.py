"""Training volumes for the networks, grown by the phantom: tissue of other seeds than the one it is tested on."""

from __future__ import annotations

from collections.abc import Iterable

import cv2
import numpy as np
from numpy.typing import NDArray

from connectome_db.kernels.cleft import SynapsePoints
from connectome_db.kernels.normalise import normalise_stack
from connectome_db.networks.datasets import Split, TrainingVolume, volume_digest
from connectome_db.phantom.tissue import Tissue, TissueConfig, make_tissue

TRAIN_SEEDS = (101, 102, 103, 104, 105, 106)
TEST_SEEDS = (201,)
SHAPE_VX = (40, 384, 384)


def phantom_split(
    train_seeds: Iterable[int] = TRAIN_SEEDS,
    test_seeds: Iterable[int] = TEST_SEEDS,
    shape_vx: tuple[int, int, int] = SHAPE_VX,
) -> Split:
    """Grow tissue for training and for scoring. Each test tissue is there twice: as painted, and as if acquired."""
    tests = [_grow(seed, shape_vx) for seed in test_seeds]
    return Split(
        tuple(training_volume(_grow(seed, shape_vx)) for seed in train_seeds),
        tuple(training_volume(tissue, acquired=acquired) for tissue in tests for acquired in (False, True)),
        "synthetic tissue of this package (connectome_db.phantom), no licence needed",
    )


def training_volume(tissue: Tissue, *, acquired: bool = False) -> TrainingVolume:
    """Return a tissue with its truth as a training volume, normalised as the render stage does.

    `acquired`: blurred as by resampling between pixels, with each section off by up to one pixel against its truth
    and with brightness swings, as after acquisition, stitching and alignment. A function of the tissue's seed.
    """
    image = _acquired(tissue.image, tissue.config.seed) if acquired else tissue.image
    rows = tissue.synapses
    centre = np.stack([rows[axis].to_numpy() for axis in "zyx"], axis=1)
    area_nm2 = np.asarray(rows["area_nm2"].to_numpy(), np.float64)
    z, y, x = tissue.config.voxel_nm
    return TrainingVolume(
        name=f"phantom seed {tissue.config.seed}" + (", as acquired" if acquired else ""),
        image=normalise_stack(image),
        labels=tissue.labels,
        voxel_nm=(float(z), float(y), float(x)),
        digest=volume_digest(image, tissue.labels),
        synapses=SynapsePoints(
            points_vx=np.rint(centre).astype(np.int64),
            pre=rows["pre"].to_numpy().astype(np.uint64),
            post=rows["post"].to_numpy().astype(np.uint64),
            radius_nm=np.sqrt(area_nm2 / np.pi),
        ),
        clefts=tissue.cleft,
    )


def _acquired(image: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    rng = np.random.default_rng([seed, 0xACC])
    out = np.empty_like(image)
    for z in range(image.shape[0]):
        dy, dx = rng.uniform(-1, 1, 2)
        move = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
        size = (image.shape[2], image.shape[1])
        moved = cv2.warpAffine(image[z], move, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        moved = cv2.GaussianBlur(moved, (0, 0), 0.4)
        gain, shift = rng.uniform(0.8, 1.1), rng.uniform(-15, 15)
        out[z] = np.clip(np.rint(gain * (moved.astype(np.float64) - 128) + 128 + shift), 0, 255)
    return out


def _grow(seed: int, shape_vx: tuple[int, int, int]) -> Tissue:
    return make_tissue(TissueConfig.model_validate({"seed": seed, "shape_vx": shape_vx}))
