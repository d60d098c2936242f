"""The layers of a flood-filling network as one JAX program.

A 3-D convolution over few channels leaves a GPU's matrix units mostly idle. In bfloat16 the planes that a kernel sees
along z are therefore laid side by side as channels, and a 2-D convolution sees them at once: the same sums, in products
three times as deep (measured in benchmarks/README.md). In float32 the plain convolution is faster.
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

    `weights` are those of `networks.ffn.build_ffn` by their paths ("conv0_a/kernel"). `precision` "bfloat16" computes
    as Keras' mixed_bfloat16 does: all layers but the last, sums in float32. "float32" is float32 throughout: JAX would
    else take 10-bit mantissas on GPUs.
    """
    import jax  # noqa: PLC0415 - only where it is Keras' backend
    from jax import lax  # noqa: PLC0415
    from jax import numpy as jnp  # noqa: PLC0415

    kind = jnp.bfloat16 if precision == "bfloat16" else jnp.float32
    exact = lax.Precision.HIGHEST if precision == "float32" else None
    held = {name: jnp.asarray(value, jnp.float32 if "lom" in name else kind) for name, value in weights.items()}

    def conv(parts: Mapping[str, Any], x: Any, name: str) -> Any:
        kernel, bias = parts[f"{name}/kernel"], parts[f"{name}/bias"]
        if exact is not None:
            y = lax.conv_general_dilated(
                x, kernel, (1, 1, 1), "SAME", dimension_numbers=("NDHWC", "DHWIO", "NDHWC"), precision=exact
            )
            return y + bias
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
        return (y + bias).reshape(n, depth_vx, height, width, -1)

    def answer(parts: Mapping[str, Any], images: Any, masks: Any) -> Any:
        scaled = (images.astype(jnp.float32) - image_mean) / image_std
        x = jnp.stack([scaled, masks], axis=-1).astype(kind)
        x = conv(parts, jax.nn.relu(conv(parts, x, "conv0_a")), "conv0_b")
        for i in range(1, depth):
            x = x + conv(parts, jax.nn.relu(conv(parts, jax.nn.relu(x), f"conv{i}_a")), f"conv{i}_b")
        last, bias = parts["conv_lom/kernel"][0, 0, 0, :, 0], parts["conv_lom/bias"]
        update = jnp.einsum("nzyxc,c->nzyx", jax.nn.relu(x).astype(jnp.float32), last, precision=exact)
        return masks + update + bias

    compiled = jax.jit(answer)
    return lambda images, masks: compiled(held, images, masks)
