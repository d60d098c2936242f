"""A flood-filling network in 8 bits from one that was trained in more: what its convolutions see is measured first.

Windows are those that the network meets while it fills real images, mirrored at their border as the stage `flood` does.
Of what each convolution sees in them the largest value that counts is chosen, so that a few outliers do not take the
levels from the rest; what that costs is measured on other images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import ConfigError
from connectome_db.kernels.flood import flood
from connectome_db.kernels.flood_seeds import boundary_peaks
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.networks.architecture import Triple
from connectome_db.networks.datasets import TrainingVolume
from connectome_db.networks.ffn import FFNConfig, fitting_weights, read_config, write_ffn
from connectome_db.networks.ffn_int8 import Look, inner_values, int8_answer
from connectome_db.networks.registry import ARCHITECTURE, CARD, model_id, read_card, write_json

Progress = Callable[[str, int, int], None]
"""Called with (what is done, windows done, windows in all)."""
COUNTED = 0.9999
"""Share of the values that a convolution sees which are told apart; larger ones are taken for the largest of these."""
MOVES_PER_SEED = 8
"""Windows of one object, so that many objects are met."""


@dataclass(frozen=True)
class Cost:
    """What 8 bits change, on windows that no range was taken from. Logits, the network's own unit."""

    windows: int
    mean_off: float
    """Mean absolute difference of the new mask."""
    largest_off: float
    segment_changed: float
    """Share of voxels that cross the segment threshold (0.6)."""
    move_changed: float
    """Share of voxels that cross the move threshold (0.9)."""


@dataclass(frozen=True)
class _Window:
    """One that was met: image and mask (1, z, y, x), the new mask, and the largest value that counts of what each
    convolution saw (NaN if it was not asked for)."""

    image: NDArray[np.uint8]
    mask: NDArray[np.float32]
    answer: NDArray[np.float32]
    largest: NDArray[np.float64]


@dataclass
class _Recorder:
    """A network that keeps what it is asked and knows when it has seen enough."""

    look: Look
    fov_vx: Triple
    deltas_vx: Triple
    wanted: int
    counted: bool
    """Ask for the largest values."""
    told: Callable[[int], None]
    model_id: str = "recorder"
    batch: int = 1
    met: list[_Window] = field(default_factory=list)

    def predict(self, images: NDArray[np.uint8], masks: NDArray[np.float32]) -> NDArray[np.float32]:
        """As the network; after enough windows it says "nothing here", which ends the fill."""
        if len(self.met) >= self.wanted:
            return np.full(masks.shape, -10.0, np.float32)
        answer, seen = self.look(images, masks)
        largest = np.array([np.quantile(x, COUNTED) if self.counted else np.nan for x in seen])
        self.met.append(_Window(images.copy(), masks.copy(), answer, largest))
        self.told(len(self.met))
        return answer


def quantize_ffn(
    source: Path,
    folder: Path,
    train: Sequence[TrainingVolume],
    test: Sequence[TrainingVolume],
    *,
    windows: int = 64,
    progress: Progress | None = None,
) -> Cost:
    """Write the model folder `folder`, the network of `source` in 8 bits; return what that costs.

    Ranges come from `windows` windows of `train`, the cost from as many of `test`. A model that is in 8 bits already, a
    folder that holds one and images smaller than the window are a ConfigError.
    """
    config = read_config(source)
    if config.precision == "int8":
        raise ConfigError(f"{source}: wanted a network in float32 or bfloat16, got one in int8; name the original")
    if (folder / ARCHITECTURE).exists():
        raise ConfigError(f"{folder}: wanted a new model, and there is one; choose another name or remove it")
    told = progress or (lambda *_: None)
    weights = fitting_weights(source, config)
    look = inner_values(weights, config.depth, config.fov_vx, config.image_mean, config.image_std)
    met = _met(config, look, train, windows, counted=True, told=partial(told, "ranges"))
    largest = np.max([window.largest for window in met], axis=0)
    if not (largest > 0).all():
        raise ConfigError(f"{source}: a convolution saw nothing but zeros in {len(met)} windows; train it first")
    ranges = tuple(float(f"{value:.6g}") for value in largest)
    made = config.model_copy(update={"precision": "int8", "int8_ranges": ranges})
    rough = int8_answer(weights, ranges, 1, config.fov_vx, config.image_mean, config.image_std)
    cost = _cost(rough, _met(config, look, test, windows, counted=False, told=partial(told, "cost")))
    original: dict[str, Any] = read_card(source)
    card = {
        **original,
        "quantized_from": model_id(source),
        "ranges_from": [{"name": v.name, "sha256": v.digest} for v in train],
        "windows": len(met),
        "cost_on": [{"name": v.name, "sha256": v.digest} for v in test],
        "cost": {name: value if name == "windows" else float(f"{value:.4g}") for name, value in vars(cost).items()},
    }
    write_ffn(folder, FFNConfig.model_validate(made.model_dump()), list(weights.items()), card)
    write_json(folder / CARD, {**card, "model_id": model_id(folder)})
    return cost


def _met(
    config: FFNConfig,
    look: Look,
    volumes: Sequence[TrainingVolume],
    windows: int,
    *,
    counted: bool,
    told: Callable[[int, int], None],
) -> list[_Window]:
    """Windows that the network meets while it fills the volumes, an equal number in each, seeds in a fixed shuffle."""
    half = [extent // 2 for extent in config.fov_vx]
    met: list[_Window] = []
    for number, volume in enumerate(volumes):
        if any(n <= h for n, h in zip(volume.image.shape, half, strict=True)):
            raise ConfigError(
                f"{volume.name}: wanted an image of more than half the window {config.fov_vx} (z, y, x), got "
                f"{volume.image.shape}; give a larger one"
            )
        share = (windows - len(met)) // (len(volumes) - number)
        before = len(met)

        def tell(done: int, before: int = before) -> None:
            told(before + done, windows)

        recorder = _Recorder(look, config.fov_vx, config.deltas_vx, share, counted, tell)
        mirrored = np.pad(volume.image, [(h, h) for h in half], mode="symmetric")
        tissue = np.ones(volume.image.shape, np.bool_) if volume.valid is None else volume.valid
        allowed = np.pad(tissue, [(h, h) for h in half])
        peaks = boundary_peaks(volume.image, volume.valid)
        seeds = np.random.default_rng(0).permutation(peaks) + np.array(half, np.int64)
        flood(mirrored, recorder, seeds, FloodOptions(max_moves=MOVES_PER_SEED), allowed)
        met += recorder.met
    if not met:
        raise ConfigError(
            f"{', '.join(v.name for v in volumes)}: no seed was found to look at; give images with tissue in them"
        )
    return met


def _cost(rough: Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]], met: list[_Window]) -> Cost:
    options = FloodOptions()
    levels = [float(np.log(p / (1 - p))) for p in (options.segment_threshold, options.move_threshold)]
    off, changed = [], []
    for window in met:
        found = rough(window.image, window.mask)
        difference = np.abs(window.answer - found)
        off.append((float(difference.mean()), float(difference.max())))
        changed.append([float(((window.answer >= level) != (found >= level)).mean()) for level in levels])
    share = np.mean(changed, axis=0)
    return Cost(
        len(met),
        float(np.mean([mean for mean, _ in off])),
        max(most for _, most in off),
        float(share[0]),
        float(share[1]),
    )
