"""Weights and an image in, probabilities out. The same bits for any number of cores and ranks."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import ConfigError, StageError
from connectome_db.networks.architecture import Triple, UNetConfig, alignment_vx, receptive_margin_vx
from connectome_db.networks.backend import PREDICTION_THREADS, use_threads
from connectome_db.networks.registry import model_id, read_architecture, read_weights
from connectome_db.networks.unet import build

MAX_TILE_VX = 6_000_000
"""Largest input given to the network at once; more is cut into overlapping tiles. Activations of the bundled
networks need about 0.4 kB per voxel: 2.4 GB."""


@dataclass(frozen=True)
class Network:
    """A model ready to predict."""

    model_id: str
    channels: tuple[str, ...]
    margin_vx: Triple
    """Context (z, y, x) that a voxel's prediction can depend on; voxels nearer to the box's edge see the padding."""
    alignment_vx: Triple
    """Boxes whose starts (z, y, x) are congruent modulo this agree on the voxels they share."""
    config: UNetConfig
    model: Any
    """The keras.Model: (1, z, y, x, 1) float32 -> logits."""
    max_tile_vx: int = MAX_TILE_VX

    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        """(z, y, x) uint8 image, normalised as by `kernels.normalise` -> (channel, z, y, x) float32 in [0, 1].

        Any extent: the far end is padded by reflection up to `alignment_vx` and cropped again. Voxels at least
        `margin_vx` inside the box depend on nothing outside it.
        """
        if image.ndim != 3 or image.dtype != np.uint8 or image.size == 0:
            raise StageError(f"image: wanted a non-empty uint8 (z, y, x) array, got {image.dtype}{image.shape}")
        grown = [-(-extent // step) * step for extent, step in zip(image.shape, self.alignment_vx, strict=True)]
        padded = np.pad(image, [(0, g - n) for g, n in zip(grown, image.shape, strict=True)], mode="symmetric")
        out = np.empty((len(self.channels), *image.shape), np.float32)
        for core in _tiles(padded.shape, self.alignment_vx, self.margin_vx, self.max_tile_vx):
            read = [
                _grow(lo, hi, margin, step, extent)
                for (lo, hi), margin, step, extent in zip(
                    core, self.margin_vx, self.alignment_vx, padded.shape, strict=True
                )
            ]
            logits = self._logits(padded[tuple(slice(lo, hi) for lo, hi in read)])
            keep = [(lo, min(hi, extent)) for (lo, hi), extent in zip(core, image.shape, strict=True)]
            inner = tuple(slice(lo - r[0], hi - r[0]) for (lo, hi), r in zip(keep, read, strict=True))
            target = tuple(slice(lo, hi) for lo, hi in keep)
            out[(slice(None), *target)] = _sigmoid(np.moveaxis(logits[inner], -1, 0))
        return out

    def _logits(self, image: NDArray[np.uint8]) -> NDArray[np.float32]:
        scaled = (image.astype(np.float32) - np.float32(self.config.image_mean)) / np.float32(self.config.image_std)
        logits: NDArray[np.float32] = np.asarray(self.model.predict_on_batch(scaled[None, ..., None]))[0]
        return logits


def load_network(folder: Path) -> Network:
    """Read a model folder (see `networks.registry`) for prediction on PREDICTION_THREADS CPU threads, in float32.

    A folder whose weights do not fit its architecture is a ConfigError.
    """
    use_threads(PREDICTION_THREADS)
    config = UNetConfig.model_validate(read_architecture(folder))
    model = build(config)
    stored = [value for _, value in read_weights(folder)]
    shapes = [tuple(weight.shape) for weight in model.weights]
    if [value.shape for value in stored] != shapes:
        raise ConfigError(f"{folder}: wanted {len(shapes)} weights that fit the architecture, got {len(stored)} others")
    model.set_weights([value.astype(np.float32) for value in stored])
    model.compile(jit_compile=False)
    return Network(
        model_id=model_id(folder),
        channels=config.channels,
        margin_vx=receptive_margin_vx(config),
        alignment_vx=alignment_vx(config),
        config=config,
        model=model,
    )


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """In NumPy, not in the network: TensorFlow's differs in the last bit between the parts that threads take."""
    clipped = np.clip(logits, -80.0, 80.0)
    result: NDArray[np.float32] = (1.0 / (1.0 + np.exp(-clipped))).astype(np.float32, copy=False)
    return result


def _grow(low: int, high: int, margin: int, step: int, extent: int) -> tuple[int, int]:
    """Grow a core interval by the margin, outwards to the lattice, within the padded image."""
    aligned = -(-margin // step) * step
    return max(0, low - aligned), min(extent, high + aligned)


def _tiles(shape: Triple, step: Triple, margin: Triple, max_vx: int) -> list[list[tuple[int, int]]]:
    """Cut a padded extent into cores on the lattice such that each core plus margins has at most `max_vx` voxels.

    Of all even cuts the one that reads least in total is taken; where none is small enough, the finest.
    """
    options = []  # per axis: (extent of a core, of what it reads, number of cores)
    for n, s, m in zip(shape, step, margin, strict=True):
        cores = sorted({-(-n // (pieces * s)) * s for pieces in range(1, min(n // s, 64) + 1)})
        options.append([(c, min(n, c + 2 * -(-m // s) * s) if c < n else n, -(-n // c)) for c in cores])
    best: tuple[int, ...] = tuple(axis[0][0] for axis in options)
    least = None
    for cell in itertools.product(*options):
        read = math.prod(axis[1] for axis in cell)
        total = read * math.prod(axis[2] for axis in cell)
        if read <= max_vx and (least is None or total < least):
            least, best = total, tuple(axis[0] for axis in cell)
    axes = [[(lo, min(lo + c, n)) for lo in range(0, n, c)] for n, c in zip(shape, best, strict=True)]
    return [list(cell) for cell in itertools.product(*axes)]
