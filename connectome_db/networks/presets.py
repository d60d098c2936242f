"""The networks and training parameters that the bundled models use, chosen by task and voxel shape."""

from __future__ import annotations

from connectome_db.errors import ConfigError
from connectome_db.kernels.affinity import Offset, channel_names
from connectome_db.kernels.cleft import CLEFT_CHANNELS
from connectome_db.kernels.shape_descriptors import DESCRIPTORS
from connectome_db.networks.architecture import Level, UNetConfig
from connectome_db.networks.augment import AugmentConfig
from connectome_db.networks.sampling import SamplingConfig, Task
from connectome_db.networks.training import TrainConfig

ANISOTROPIC_OFFSETS: tuple[Offset, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (2, 0, 0), (0, 9, 0), (0, 0, 9))
ISOTROPIC_OFFSETS: tuple[Offset, ...] = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (6, 0, 0), (0, 6, 0), (0, 0, 6))


DESCRIPTOR_SIGMA_NM = 80.0
"""Window of the shape descriptors: what Sheridan et al. 2022 (10.1038/s41592-022-01711-z) took for the fly."""


def default_network(channels: tuple[str, ...], *, isotropic: bool, width: int = 1) -> UNetConfig:
    """Return a network of about half a million parameters times `width` squared.

    `width` multiplies the features of every level, and so the operations per voxel by its square. Anisotropic networks
    never downsample along z.
    """
    flat, solid = (1, 3, 3), (3, 3, 3)
    if isotropic:
        return UNetConfig(
            channels=channels,
            stem_kernel=solid,
            levels=(
                Level(features=12 * width, kernels=(solid,), encoder_blocks=0),
                Level(features=32 * width, down=(2, 2, 2), kernels=(solid, solid)),
                Level(features=48 * width, down=(2, 2, 2), kernels=(solid, solid)),
                Level(features=64 * width, down=(2, 2, 2), kernels=(solid,)),
            ),
        )
    return UNetConfig(
        channels=channels,
        stem_kernel=flat,
        levels=(
            Level(features=16 * width, kernels=(flat, flat), encoder_blocks=0),
            Level(features=32 * width, down=(1, 2, 2), kernels=(flat, solid)),
            Level(features=64 * width, down=(1, 2, 2), kernels=(flat, solid)),
            Level(features=64 * width, down=(1, 2, 2), kernels=(flat, solid)),
        ),
    )


def default_training(
    task: Task,
    voxel_nm: tuple[float, float, float],
    *,
    steps: int = 1500,
    seed: int = 0,
    thicken: bool | None = None,
    mixed_precision: bool = True,
    lsd: bool = False,
    width: int = 1,
    batch: int = 1,
) -> TrainConfig:
    """Return the training parameters for a task and a voxel size (z, y, x) in nm.

    Voxels with z at most 1.5 times x count as isotropic. `thicken` (affinity): make boundaries of truth without a
    boundary label two voxels wide; None decides by voxel shape, as the isotropic bundled truth has none. `lsd`
    (affinity): learn local shape descriptors beside the affinities. `width`: see `default_network`. `batch`: patches a
    step.
    """
    if lsd and task != "affinity":
        raise ConfigError(f"lsd: shape descriptors are learnt beside affinities, wanted the task affinity, got {task}")
    isotropic = voxel_nm[0] <= 1.5 * voxel_nm[2]
    offsets = ISOTROPIC_OFFSETS if isotropic else ANISOTROPIC_OFFSETS
    channels = channel_names(offsets) if task == "affinity" else CLEFT_CHANNELS
    if lsd:
        channels = (*channels, *DESCRIPTORS)
    augment = AugmentConfig(isotropic=True, shift_px=0, missing_share=0.0) if isotropic else AugmentConfig()
    return TrainConfig(
        network=default_network(channels, isotropic=isotropic, width=width),
        sampling=SamplingConfig(
            task=task,
            patch_vx=(64, 80, 80) if isotropic else (16, 160, 160),
            batch=batch,
            offsets=offsets,
            descriptor_sigma_nm=DESCRIPTOR_SIGMA_NM if lsd else None,
            thicken=isotropic if thicken is None else thicken,
            balance=0.5 if task == "affinity" else 0.7,
            augment=augment,
        ),
        steps=steps,
        seed=seed,
        policy="mixed_bfloat16" if mixed_precision else "float32",
    )
