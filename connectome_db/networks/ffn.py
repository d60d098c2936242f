"""Flood-filling networks: what `kernels.flood` asks at every position (Januszewski et al. 2018,
10.1038/s41592-018-0049-4).

    image, mask so far (logits) ── conv a, relu ── conv b ──┬── relu, conv a, relu, conv b ── add ── ... ── relu
                                                            └───────────────────────────────┘
                                                            (depth - 1 times)        1x1x1 conv ── + mask = new mask

All convolutions keep the window's extent and pad with zeros at its border, as the published network does: an answer
depends on the whole window and on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from connectome_db.errors import ConfigError, StageError
from connectome_db.networks.architecture import Extent, Triple
from connectome_db.networks.backend import PREDICTION_THREADS, keras_module, use_threads
from connectome_db.networks.ffn_int8 import int8_answer, openvino_module
from connectome_db.networks.ffn_jax import jax_answer
from connectome_db.networks.registry import (
    ARCHITECTURE,
    CARD,
    FORMAT,
    WEIGHTS,
    model_id,
    read_architecture,
    read_weights,
    write_json,
)

Answer = Callable[[NDArray[np.uint8], NDArray[np.float32]], Any]
"""From images uint8 and masks so far, (batch, z, y, x), to new masks."""
MASK_CHANNELS = 2
"""Image and mask."""


class FFNConfig(BaseModel):
    """A stack of residual convolutions over a window that moves, and how far it moves. Part of a model's identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["ffn"] = "ffn"
    depth: int = Field(default=12, ge=1, le=64)
    """Pairs of convolutions; all but the first are residual."""
    features: int = Field(default=32, ge=1, le=512)
    """Channels of every convolution."""
    kernel: tuple[Extent, Extent, Extent] = (3, 3, 3)
    """Extent (z, y, x), odd, of every convolution but the last, which is one voxel."""
    fov_vx: Triple = (33, 33, 33)
    """Window (z, y, x), odd: what one answer sees, and the voxels that it is about."""
    deltas_vx: Triple = (8, 8, 8)
    """Step (z, y, x) from one window to the next, at most half a window; 0 on an axis along which it never moves."""
    image_mean: float = 128.0
    image_std: float = Field(default=33.0, gt=0)
    """The network sees (uint8 - image_mean) / image_std."""
    precision: Literal["float32", "bfloat16", "int8"] = "float32"
    """Of all convolutions but the last; "int8": but the first and the last. Another precision is another model: its
    answers differ."""
    int8_ranges: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """With precision "int8": the largest value that each of its convolutions tells from larger ones
    (`networks.ffn_int8`)."""

    @model_validator(mode="after")
    def _consistent(self) -> FFNConfig:
        for name, extents in (("kernel", self.kernel), ("fov_vx", self.fov_vx)):
            if any(extent < 1 or extent % 2 == 0 for extent in extents):
                raise ValueError(f"{name}: wanted odd extents (z, y, x), got {extents}")
        if any(not 0 <= step <= extent // 2 for step, extent in zip(self.deltas_vx, self.fov_vx, strict=True)):
            raise ValueError(f"deltas_vx: wanted steps within half the window {self.fov_vx}, got {self.deltas_vx}")
        if not any(self.deltas_vx):
            raise ValueError("deltas_vx: wanted a step along at least one axis, got none")
        wanted = 2 * self.depth - 1 if self.precision == "int8" else 0
        if len(self.int8_ranges) != wanted:
            raise ValueError(
                f"int8_ranges: wanted {wanted} for precision {self.precision} and depth {self.depth}, got "
                f"{len(self.int8_ranges)}; `connectome models quantize` makes them"
            )
        return self


def flops_per_move(config: FFNConfig) -> float:
    """Multiplications plus additions of all convolutions for one window."""
    taps = float(np.prod(config.kernel))
    pairs = MASK_CHANNELS * config.features + (2 * config.depth - 1) * config.features**2
    return 2 * float(np.prod(config.fov_vx)) * (taps * pairs + config.features)


def build_ffn(config: FFNConfig, *, seed: int = 0) -> Any:
    """Return a keras.Model: (batch, z, y, x, 2) of scaled image and mask -> what is added to the mask, (…, 1) float32.

    Initial weights are a function of `seed`: He normal, the second of each residual pair at 0.1 of its variance.
    """
    keras = keras_module()
    layers = keras.layers
    policy = "mixed_bfloat16" if config.precision == "bfloat16" else "float32"
    if config.precision == "int8":
        raise ConfigError(
            "a network in int8: wanted one in float32 or bfloat16 to learn or to teach; name the one it was made from"
        )
    made = 0

    def conv(x: Any, name: str, scale: float = 2.0) -> Any:
        nonlocal made
        made += 1
        start = keras.initializers.VarianceScaling(scale, "fan_in", "truncated_normal", seed=seed * 1009 + made)
        return layers.Conv3D(
            config.features, config.kernel, padding="same", kernel_initializer=start, name=name, dtype=policy
        )(x)

    def relu(x: Any, name: str) -> Any:
        return layers.ReLU(name=name, dtype=policy)(x)

    inputs = keras.Input((*config.fov_vx, MASK_CHANNELS), name="window")
    x = conv(relu(conv(inputs, "conv0_a"), "relu0_a"), "conv0_b")
    for i in range(1, config.depth):
        h = conv(relu(x, f"relu{i}"), f"conv{i}_a")
        h = conv(relu(h, f"relu{i}_a"), f"conv{i}_b", 0.2)
        x = layers.Add(name=f"add{i}", dtype=policy)([x, h])
    start = keras.initializers.VarianceScaling(1.0, "fan_in", "truncated_normal", seed=seed * 1009)
    update = layers.Conv3D(1, 1, kernel_initializer=start, name="conv_lom", dtype="float32")(relu(x, "relu"))
    return keras.Model(inputs, update, name="ffn")


@dataclass(frozen=True)
class FloodNetwork:
    """A model ready to fill; a `kernels.flood_types.Window`."""

    model_id: str
    config: FFNConfig
    batch: int
    """Rows of every call: the network always computes one shape, so that no row depends on how many there are."""
    answering: Callable[[], Answer]
    """Makes `answer` when the first window comes."""

    @cached_property
    def answer(self) -> Answer:
        """As `predict`, but what comes back is the backend's, perhaps before it is computed."""
        return self.answering()

    @property
    def fov_vx(self) -> Triple:
        """Window (z, y, x)."""
        return self.config.fov_vx

    @property
    def deltas_vx(self) -> Triple:
        """Step (z, y, x)."""
        return self.config.deltas_vx

    def predict(self, images: NDArray[np.uint8], masks: NDArray[np.float32]) -> NDArray[np.float32]:
        """Image uint8 and mask so far (logits float32), both (batch, z, y, x) -> new logits of the same shape."""
        wanted = (self.batch, *self.fov_vx)
        if images.shape != wanted or masks.shape != wanted:
            raise StageError(f"windows: wanted image and mask {wanted}, got {images.shape} and {masks.shape}")
        answers: NDArray[np.float32] = np.asarray(self.answer(images, masks))
        return answers


def keras_answer(model: Any, config: FFNConfig) -> Answer:
    """From a keras.Model, a function from images and masks (batch, z, y, x) to new masks.

    It is one call of the backend that Keras runs on, with the weights that the model has now.

    On JAX that is one compiled program with the weights of the model (`networks.ffn_jax`). On TensorFlow only the
    network is compiled, without XLA, which is 6-11 times slower on CPUs.
    """
    if keras_module().backend.backend() == "jax":
        weights = {weight.path: np.asarray(weight, np.float32) for weight in model.weights}
        return jax_answer(weights, config.depth, config.precision, config.image_mean, config.image_std)
    mean, std = np.float32(config.image_mean), np.float32(config.image_std)

    def step(images: NDArray[np.uint8], masks: NDArray[np.float32]) -> NDArray[np.float32]:
        stacked = np.empty((*images.shape, MASK_CHANNELS), np.float32)
        stacked[..., 0] = (images.astype(np.float32) - mean) / std
        stacked[..., 1] = masks
        update: NDArray[np.float32] = np.asarray(model.predict_on_batch(stacked))[..., 0]
        return masks + update

    return step


def write_ffn(
    folder: Path, config: FFNConfig, weights: Sequence[tuple[str, NDArray[np.floating[Any]]]], card: dict[str, Any]
) -> None:
    """Write a model folder (see `networks.registry`) with weights in float32, as they were trained.

    Rounded to float16, as smaller networks are kept, the answers would differ from those it had elsewhere. Weights
    that are not finite are a ConfigError.
    """
    for name, value in weights:
        if not np.isfinite(value).all():
            raise ConfigError(
                f"{folder}: weight {name}: wanted finite values; training diverged, or the file is damaged"
            )
    folder.mkdir(parents=True, exist_ok=True)
    numbered = {f"{i:03d}:{name}": value.astype("<f4") for i, (name, value) in enumerate(weights)}
    left_out = None if config.int8_ranges else {"int8_ranges"}  # so that older models keep their identity
    write_json(folder / ARCHITECTURE, {"format": FORMAT, "config": config.model_dump(mode="json", exclude=left_out)})
    np.savez(folder / WEIGHTS, allow_pickle=False, **numbered)
    write_json(folder / CARD, card)


def read_config(folder: Path) -> FFNConfig:
    """Read the architecture of a flood-filling network; one of another kind is a ConfigError."""
    found = read_architecture(folder)
    if found.get("kind") != "ffn":
        raise ConfigError(
            f"{folder}: wanted a flood-filling network (kind 'ffn'), got kind {found.get('kind')!r}; "
            "name one that `connectome models import-ffn` made"
        )
    try:
        return FFNConfig.model_validate(found)
    except ValidationError as problem:
        raise ConfigError(f"{folder}: wanted the architecture of a flood-filling network, got: {problem}") from problem


def load_ffn(folder: Path, *, batch: int = 1) -> FloodNetwork:
    """Read a model folder (see `networks.registry`) for filling on PREDICTION_THREADS CPU threads.

    `batch` is the number of windows of every call. A folder whose weights do not fit is a ConfigError.
    """
    if batch < 1:
        raise ConfigError(f"batch: wanted at least 1, got {batch}")
    config = read_config(folder)
    weights = fitting_weights(folder, config)
    if config.precision == "int8":
        openvino_module()  # what is missing is told before anything is computed
        make = partial(
            int8_answer, weights, config.int8_ranges, batch, config.fov_vx, config.image_mean, config.image_std
        )
        return FloodNetwork(model_id(folder), config, batch, make)
    use_threads(PREDICTION_THREADS)
    model = build_ffn(config)
    model.set_weights(list(weights.values()))
    model.compile(jit_compile=False)
    return FloodNetwork(model_id(folder), config, batch, partial(keras_answer, model, config))


def fitting_weights(folder: Path, config: FFNConfig) -> dict[str, NDArray[np.float32]]:
    """Return the weights of a model folder by their paths ("conv0_a/kernel"), in the model's order.

    Others than the architecture has are a ConfigError.
    """
    stored = [(name.split(":", 1)[-1], value.astype(np.float32)) for name, value in read_weights(folder)]
    wanted = weight_shapes(config)
    if [(name, value.shape) for name, value in stored] != list(wanted.items()):
        raise ConfigError(f"{folder}: wanted {len(wanted)} weights that fit the architecture, got {len(stored)} others")
    return dict(stored)


def weight_shapes(config: FFNConfig) -> dict[str, tuple[int, ...]]:
    """Paths and shapes of the weights that `build_ffn` makes, in its order."""
    shapes: dict[str, tuple[int, ...]] = {}
    channels = MASK_CHANNELS
    for name in (*(f"conv{i}_{part}" for i in range(config.depth) for part in "ab"), "conv_lom"):
        last = name == "conv_lom"
        made = 1 if last else config.features
        shapes[f"{name}/kernel"] = (*((1, 1, 1) if last else config.kernel), channels, made)
        shapes[f"{name}/bias"] = (made,)
        channels = config.features
    return shapes
