"""Flood-filling networks in whole numbers of 8 bits, computed by OpenVINO on a CPU: the one door to it.

Every convolution but the first and the last sees its input as one of 256 levels between 0 and a largest value that is
part of the architecture, and its weights as one of 255 levels per channel (symmetric, as in Jacob et al. 2018,
10.1109/CVPR.2018.00286). Products are summed exactly, so a row's answer does not depend on threads or on other rows.
What is added along the residual way stays in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import ConfigError
from connectome_db.networks.architecture import Triple
from connectome_db.networks.backend import PREDICTION_THREADS

Answer = Callable[[NDArray[np.uint8], NDArray[np.float32]], NDArray[np.float32]]
Look = Callable[[NDArray[np.uint8], NDArray[np.float32]], tuple[NDArray[np.float32], list[NDArray[np.float32]]]]
"""From one image and mask (1, z, y, x) to (the new mask, what each of `quantised` sees)."""
Weights = Mapping[str, NDArray[np.float32]]
_LEVELS = 256
_SIGNED = 127
"""Weights are -127 ... 127 times their scale."""


def openvino_module() -> Any:
    """Return OpenVINO; where it is not installed, a ConfigError."""
    try:
        import openvino  # noqa: PLC0415 - an optional part, paid only by models in 8 bits
    except ImportError as problem:
        raise ConfigError(
            f"a network in int8: wanted OpenVINO, got: {problem}; "
            'install it with `pip install "connectome-db[int8]"`, or name a model in bfloat16 or float32'
        ) from problem
    return openvino


def quantised(depth: int) -> tuple[str, ...]:
    """Names of the convolutions that are computed in 8 bits, in order: all but the first and the last."""
    pairs = [f"conv{i}_{part}" for i in range(depth) for part in "ab"]
    return tuple(pairs[1:])


def int8_answer(
    weights: Weights, ranges: Sequence[float], batch: int, fov_vx: Triple, image_mean: float, image_std: float
) -> Answer:
    """Return a function from images uint8 and masks float32, (batch, z, y, x), to new masks.

    `weights` are those of `networks.ffn.build_ffn` by their paths ("conv0_a/kernel"); `ranges` holds the largest value
    that each of the convolutions `quantised` is to tell from larger ones.
    """
    depth = (len(ranges) + 1) // 2
    steps = dict(zip(quantised(depth), ranges, strict=True))
    request = _compiled(weights, depth, batch, fov_vx, steps, looked_at=False)

    def answer(images: NDArray[np.uint8], masks: NDArray[np.float32]) -> NDArray[np.float32]:
        update: NDArray[np.float32] = request.infer([_seen(images, masks, image_mean, image_std)])[0]
        return masks + update[:, 0]

    return answer


def inner_values(weights: Weights, depth: int, fov_vx: Triple, image_mean: float, image_std: float) -> Look:
    """Return what looks at a window in float32 arithmetic and tells what its convolutions see."""
    request = _compiled(weights, depth, 1, fov_vx, None, looked_at=True)

    def look(
        images: NDArray[np.uint8], masks: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
        found = request.infer([_seen(images, masks, image_mean, image_std)])
        return masks + found[0][:, 0], [found[k + 1] for k in range(2 * depth - 1)]

    return look


def _seen(images: NDArray[np.uint8], masks: NDArray[np.float32], mean: float, std: float) -> NDArray[np.float32]:
    """What the network sees: (batch, 2, z, y, x)."""
    return np.stack([(images.astype(np.float32) - np.float32(mean)) / np.float32(std), masks], axis=1)


def _compiled(
    weights: Weights, depth: int, batch: int, fov_vx: Triple, ranges: Mapping[str, float] | None, *, looked_at: bool
) -> Any:
    """A request to the compiled layers: in 8 bits with `ranges`, else in float32; with `looked_at` what each of
    `quantised` sees is given too."""
    ov = openvino_module()
    from openvino import opset13 as op  # noqa: PLC0415 - as above

    channels = weights["conv0_a/kernel"].shape[3]
    window = op.parameter([batch, channels, *fov_vx], np.float32)
    seen: list[Any] = []

    def conv(x: Any, name: str) -> Any:
        kernel = np.ascontiguousarray(np.transpose(weights[f"{name}/kernel"], (4, 3, 0, 1, 2)))
        taps = op.constant(kernel)
        if name in inside:
            seen.append(x)
            if ranges is not None:
                low, high = np.float32(0), np.float32(ranges[name])
                x = op.fake_quantize(x, low, high, low, high, _LEVELS)
                largest = np.abs(kernel).reshape(len(kernel), -1).max(axis=1).reshape(-1, 1, 1, 1, 1)
                scale = np.where(largest > 0, largest, np.float32(1))  # a channel without weights has any scale
                taps = op.fake_quantize(taps, -scale, scale, -scale, scale, 2 * _SIGNED + 1)
        pads = [extent // 2 for extent in kernel.shape[2:]]
        bias = op.constant(weights[f"{name}/bias"].reshape(1, -1, 1, 1, 1))
        return op.add(op.convolution(x, taps, [1, 1, 1], pads, pads, [1, 1, 1]), bias)

    inside = set(quantised(depth))
    x = conv(op.relu(conv(window, "conv0_a")), "conv0_b")
    for i in range(1, depth):
        x = op.add(x, conv(op.relu(conv(op.relu(x), f"conv{i}_a")), f"conv{i}_b"))
    update = conv(op.relu(x), "conv_lom")
    results = [op.result(y) for y in (update, *(seen if looked_at else ()))]
    # float32 between the convolutions whatever the CPU can do, and no thread bound to a core: ranks share them.
    settings = {
        "INFERENCE_PRECISION_HINT": "f32",
        "INFERENCE_NUM_THREADS": PREDICTION_THREADS,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    return ov.Core().compile_model(ov.Model(results, [window]), "CPU", settings).create_infer_request()
