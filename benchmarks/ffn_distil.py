"""The small flood-filling network of FIB-25: residual blocks of the published one, distilled from it on a GPU.

    connectome models import-ffn SHARED_DATA/ffn_fib25_checkpoint --name fib25-ffn
    connectome models import-ffn SHARED_DATA/ffn_fib25_checkpoint --name fib25-ffn-bf16 --bfloat16
    KERAS_BACKEND=jax python -m benchmarks.ffn_distil --data SHARED_DATA/fib25 --models models --makers 12
    connectome models quantize fib25-ffn-lite --name fib25-ffn-lite-int8 --data fib25=SHARED_DATA/fib25

It starts from eight of the published network's twelve blocks: of all, those were left out one by one whose loss changed
the answers least. It learns in two parts from z 0-99 alone, mostly from the published network's answers on its own
canvases; the second part sees more first windows, and smaller objects. Needs what training from Python needs
(docs/models.md). About eleven minutes of an H100; give `--steps 3,3 --batch 1` to see whether it runs.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from connectome_db.networks.augment import AugmentConfig
from connectome_db.networks.datasets import load_split
from connectome_db.networks.ffn import fitting_weights, read_config, weight_shapes, write_ffn
from connectome_db.networks.ffn_sampling import FFNSamplingConfig
from connectome_db.networks.ffn_training import FFNTrainConfig, Progress, train_ffn

FULL, TEACHER, LITE = "fib25-ffn", "fib25-ffn-bf16", "fib25-ffn-lite"
BLOCKS = (0, 1, 2, 4, 6, 8, 10, 11)
"""The published network's pairs of convolutions that are kept."""
STEP_VX = 11
"""Step from one window to the next that it is trained for."""


def shallower(source: Path, folder: Path, blocks: tuple[int, ...], step_vx: int) -> None:
    """Write the model folder `folder`: the network of `source` with some of its residual blocks, in float32."""
    config, weights = read_config(source), fitting_weights(source, read_config(source))
    made = config.model_copy(update={"depth": len(blocks), "deltas_vx": (step_vx,) * 3, "precision": "float32"})
    kept = {
        f"conv{new}_{part}/{kind}": weights[f"conv{old}_{part}/{kind}"]
        for new, old in enumerate(blocks)
        for part in "ab"
        for kind in ("kernel", "bias")
    }
    chosen = [(name, kept.get(name, weights.get(name))) for name in weight_shapes(made)]
    write_ffn(folder, made, chosen, {"task": "flood"})


def parts(folder: Path, batch: int, steps: tuple[int, int]) -> tuple[FFNTrainConfig, FFNTrainConfig]:
    usual = {"network": read_config(folder), "batch": batch, "precision": "bfloat16", "refresh_every": 500}
    first, second = (
        AugmentConfig(isotropic=True, shift_px=0, missing_share=0.0, **more)
        for more in (
            {"contrast": 0.1, "brightness": 8.0, "noise": 6.0},
            {"contrast": 0.08, "brightness": 6.0, "noise": 5.0, "gamma": 0.15, "blur_share": 0.5},
        )
    )
    return (
        FFNTrainConfig(
            **usual, steps=steps[0], learning_rate=1e-3, warmup_steps=min(300, steps[0] // 4), average=0.999,
            teacher_share=0.8, sampling=FFNSamplingConfig(augment=first),
        ),
        FFNTrainConfig(
            **usual, steps=steps[1], learning_rate=8e-4, warmup_steps=min(100, steps[1] // 4), average=0.998,
            teacher_share=0.9, looks=6, sampling=FFNSamplingConfig(min_object_vx=50, augment=second),
        ),
    )  # fmt: skip


def told() -> Progress:
    losses, start = [], time.perf_counter()

    def progress(done: int, loss: float) -> None:
        losses.append(loss)
        if done == 1 or done % 100 == 0:
            seconds = time.perf_counter() - start
            print(f"{done:6d} steps, loss {np.mean(losses[-100:]):.4f}, {seconds:.1f} s", flush=True)

    return progress


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--makers", type=int, default=8, help="processes that make examples")
    parser.add_argument("--steps", default="6300,3000", help="of both parts")
    a = parser.parse_args()
    train = load_split("fib25", a.data).train
    start, between, end = (a.models / f"{LITE}{suffix}" for suffix in ("-start", "-between", ""))
    shallower(a.models / FULL, start, BLOCKS, STEP_VX)
    first, second = parts(start, a.batch, tuple(int(n) for n in a.steps.split(",")))
    for config, initial, out in ((first, start, between), (second, between, end)):
        train_ffn(config, train, out, told(), makers=a.makers, initial=initial, teacher=a.models / TEACHER)


if __name__ == "__main__":  # `makers` are fresh processes, which import this file
    main()
