"""The layers of a flood-filling network as one JAX program, to fill with and to train.

A 3-D convolution over few channels leaves a GPU's matrix units mostly idle. In bfloat16 the planes that a kernel sees
along z are therefore laid side by side as channels, and a 2-D convolution sees them at once: the same sums, in products
three times as deep (measured in benchmarks/README.md). In float32 the plain convolution is faster. Training takes the
same layers, for gradients of 3-D convolutions are slower still.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Answer = Callable[[Any, Any], Any]


def jax_answer(
    weights: Mapping[str, NDArray[np.float32]], depth: int, precision: str, image_mean: float, image_std: float
) -> Answer:
    """Return a compiled function from images uint8 and masks float32, (n, z, y, x), to new masks; on JAX alone.

    `weights` and `precision` are as in `added`.
    """
    import jax  # noqa: PLC0415 - only where it is Keras' backend
    from jax import numpy as jnp  # noqa: PLC0415

    held = {name: jnp.asarray(value) for name, value in weights.items()}

    def answer(parts: Mapping[str, Any], images: Any, masks: Any) -> Any:
        scaled = (images.astype(jnp.float32) - image_mean) / image_std
        return masks + added(parts, jnp.stack([scaled, masks], axis=-1), depth, precision)

    compiled = jax.jit(answer)
    return lambda images, masks: compiled(held, images, masks)


def added(weights: Mapping[str, Any], seen: Any, depth: int, precision: str) -> Any:
    """Scaled image and mask (n, z, y, x, 2) float32 -> what is added to the mask, (n, z, y, x) float32; differentiable.

    `weights` are those of `networks.ffn.build_ffn` by their paths ("conv0_a/kernel"), float32. `precision` "bfloat16"
    computes as Keras' mixed_bfloat16 does: all layers but the last, sums in float32. "float32" is float32 throughout:
    JAX would else take 10-bit mantissas on GPUs.
    """
    from jax import lax, nn  # noqa: PLC0415 - as above
    from jax import numpy as jnp  # noqa: PLC0415

    exact = lax.Precision.HIGHEST if precision == "float32" else None

    def conv(x: Any, name: str) -> Any:
        kernel, bias = (weights[f"{name}/{part}"].astype(x.dtype) for part in ("kernel", "bias"))
        return (_planar(x, kernel) if exact is None else _plain(x, kernel)) + bias

    x = seen if exact is not None else seen.astype(jnp.bfloat16)
    x = conv(nn.relu(conv(x, "conv0_a")), "conv0_b")
    for i in range(1, depth):
        x = x + conv(nn.relu(conv(nn.relu(x), f"conv{i}_a")), f"conv{i}_b")
    last, bias = weights["conv_lom/kernel"][0, 0, 0, :, 0], weights["conv_lom/bias"]
    return jnp.einsum("nzyxc,c->nzyx", nn.relu(x).astype(jnp.float32), last, precision=exact) + bias


def _plain(x: Any, kernel: Any) -> Any:
    """Convolve x (n, z, y, x, channels) with a kernel (z, y, x, channels, made) in all of float32."""
    from jax import lax  # noqa: PLC0415 - as above

    form = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(
        x, kernel, (1, 1, 1), "SAME", dimension_numbers=form, precision=lax.Precision.HIGHEST
    )


def _planar(x: Any, kernel: Any) -> Any:
    """As `_plain` in x's precision, by a 2-D convolution over planes side by side."""
    from jax import lax  # noqa: PLC0415 - as above
    from jax import numpy as jnp  # noqa: PLC0415

    n, depth_vx, height, width, channels = x.shape
    planes = kernel.shape[0]
    padded = jnp.pad(x, ((0, 0), (planes // 2,) * 2, (0, 0), (0, 0), (0, 0)))
    beside = jnp.concatenate([padded[:, k : k + depth_vx] for k in range(planes)], axis=-1)
    flat = jnp.transpose(kernel, (1, 2, 0, 3, 4)).reshape(*kernel.shape[1:3], planes * channels, -1)
    y = lax.conv_general_dilated(
        beside.reshape(n * depth_vx, height, width, planes * channels),
        flat,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(n, depth_vx, height, width, -1)
