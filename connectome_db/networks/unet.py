"""Build the Keras model of a `UNetConfig`. Only Keras layers: the same model runs on TensorFlow and on JAX."""

from __future__ import annotations

from typing import Any

from connectome_db.networks.architecture import UNetConfig
from connectome_db.networks.backend import keras_module


def build(config: UNetConfig, *, seed: int = 0, policy: str = "float32") -> Any:
    """Return a keras.Model: (batch, z, y, x, in_channels) -> logits (batch, z, y, x, len(channels)), float32.

    z, y and x are free but must be multiples of `alignment_vx(config)`. `policy` is Keras' dtype policy of all layers
    but the last ("float32", or "mixed_bfloat16" for training). Initial weights are a function of `seed` alone: He
    normal, with the last convolution of each residual block scaled to 0.1 of the variance, which keeps the sum of many
    blocks near unit scale without normalisation (after Zhang et al. 2019, Fixup).
    """
    keras = keras_module()
    layers = keras.layers
    made = 0

    def start(scale: float) -> Any:
        nonlocal made
        made += 1
        return keras.initializers.VarianceScaling(scale, "fan_in", "truncated_normal", seed=seed * 1009 + made)

    def conv(x: Any, features: int, kernel: tuple[int, ...], name: str, scale: float = 2.0, **more: Any) -> Any:
        more.setdefault("dtype", policy)
        return layers.Conv3D(features, kernel, padding="same", kernel_initializer=start(scale), name=name, **more)(x)

    def relu(x: Any, name: str) -> Any:
        return layers.ReLU(name=name, dtype=policy)(x)

    def block(x: Any, level: int, name: str) -> Any:
        kernels = config.levels[level].kernels
        features = config.levels[level].features
        h = x
        for i, kernel in enumerate(kernels[:-1]):
            h = conv(h, features, kernel, f"{name}_conv{i}", activation="relu")
        h = conv(h, features, kernels[-1], f"{name}_conv{len(kernels) - 1}", scale=0.2)
        return relu(layers.Add(name=f"{name}_add", dtype=policy)([x, h]), f"{name}_relu")

    inputs = keras.Input((None, None, None, config.in_channels), name="image")
    x = conv(inputs, config.levels[0].features, config.stem_kernel, "stem", activation="relu")
    skips = []
    for i, level in enumerate(config.levels):
        if i > 0:
            x = conv(x, level.features, level.down, f"down{i}", strides=level.down, activation="relu")
        for j in range(level.encoder_blocks):
            x = block(x, i, f"encode{i}_{j}")
        skips.append(x)
    for i in range(len(config.levels) - 2, -1, -1):
        factor = config.levels[i + 1].down
        x = layers.Conv3DTranspose(
            config.levels[i].features,
            factor,
            strides=factor,
            padding="same",
            kernel_initializer=start(1.0),
            name=f"up{i}",
            dtype=policy,
        )(x)
        x = relu(layers.Add(name=f"merge{i}", dtype=policy)([skips[i], x]), f"merge{i}_relu")
        for j in range(config.levels[i].decoder_blocks):
            x = block(x, i, f"decode{i}_{j}")
    logits = conv(x, len(config.channels), (1, 1, 1), "logits", scale=1.0, dtype="float32")
    return keras.Model(inputs, logits, name="unet")
