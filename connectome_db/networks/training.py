"""Train a U-Net: seeded, resumable, with a loss history. A resumed training ends as an unbroken one would."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectome_db.errors import ConfigError
from connectome_db.kernels.shape_descriptors import DESCRIPTORS
from connectome_db.networks.architecture import UNetConfig, alignment_vx
from connectome_db.networks.backend import PREDICTION_THREADS, keras_module, use_threads
from connectome_db.networks.datasets import TrainingVolume
from connectome_db.networks.registry import model_id, read_weights, write_model
from connectome_db.networks.sampling import SamplingConfig, batch_at, channels_of, descriptors_of, prepare
from connectome_db.networks.unet import build

CHECKPOINT = "checkpoint.npz"
HISTORY = "loss.csv"
CURVE = "loss.png"
Optimizer = Literal["adamw", "adam", "sgd"]
Progress = Callable[[int, float], None]
"""Called after each step with (steps done, loss)."""


class TrainConfig(BaseModel):
    """Everything that decides the weights, besides the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: UNetConfig
    sampling: SamplingConfig
    steps: int = Field(ge=1)
    seed: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest rate of the optimizer; warmed up over 5% of the steps, then a cosine down to 1%."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled from the gradient, for every optimizer (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    optimizer: Optimizer = "adamw"
    """adamw, adam (the same without weight decay) or sgd (Nesterov momentum 0.9)."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """The weights kept are an exponential moving average with this momentum."""
    policy: Literal["float32", "mixed_bfloat16"] = "float32"
    """Arithmetic of training; prediction is always float32."""
    checkpoint_every: int = Field(default=100, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        step = alignment_vx(self.network)
        if any(extent % s for extent, s in zip(self.sampling.patch_vx, step, strict=True)):
            raise ValueError(f"sampling.patch_vx: wanted a multiple of {step}, got {self.sampling.patch_vx}")
        if channels_of(self.sampling) != len(self.network.channels):
            raise ValueError(f"network.channels: wanted {channels_of(self.sampling)}, got {self.network.channels}")
        return self


def train(
    config: TrainConfig,
    volumes: Sequence[TrainingVolume],
    out_folder: Path,
    progress: Progress | None = None,
    *,
    threads: int = PREDICTION_THREADS,
    helpers: int = 1,
    resume: bool = True,
    initial: Path | None = None,
    card: dict[str, Any] | None = None,
) -> Path:
    """Train and write the model folder `out_folder`: architecture, weights, card, loss.csv, loss.png.

    A checkpoint is kept in out_folder every `checkpoint_every` steps; with `resume` an interrupted training goes on
    from it (one made with other parameters or data is a ConfigError) and removes it at the end. `initial`: a model
    folder to start from; weights of equal name and shape are taken over, the others (such as another task's last
    layer) start anew. `card` is merged into the model card. `threads`: of TensorFlow on the CPU. `helpers`: threads
    that make the next batches meanwhile; more of them let a fast device wait less and change no number.
    """
    if not volumes:
        raise ConfigError("volumes: wanted at least one training volume, got none")
    out_folder.mkdir(parents=True, exist_ok=True)
    use_threads(threads)
    keras = keras_module()
    start = None if initial is None else model_id(initial)
    identity = f"{config.model_dump_json()} {start} " + " ".join(volume.digest for volume in volumes)
    sources = [prepare(volume, config.sampling) for volume in volumes]
    model = build(config.network, seed=config.seed, policy=config.policy)
    if initial is not None:
        take_over(model, initial)
    optimizer = _optimizer(keras, config)
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer, loss=loss_of(keras, config.sampling), jit_compile=_compiled(keras))
    variables = [*model.weights, *optimizer.variables]
    checkpoint = out_folder / CHECKPOINT
    history = restore_checkpoint(checkpoint, identity, variables) if resume and checkpoint.is_file() else []

    def make(step: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return batch_at(sources, config.sampling, config.seed, step)

    mean, std = np.float32(config.network.image_mean), np.float32(config.network.image_std)
    with ThreadPoolExecutor(helpers) as helper:  # the next batches are made while the network works on this one
        ahead = deque(helper.submit(make, len(history) + i) for i in range(helpers))
        for step in range(len(history), config.steps):
            image, truth = ahead.popleft().result()
            ahead.append(helper.submit(make, step + helpers))
            scaled = (image.astype(np.float32) - mean) / std
            loss = float(model.train_on_batch(scaled[..., None], truth))
            if not np.isfinite(loss):
                raise ConfigError(f"step {step}: the loss is {loss}; lower learning_rate ({config.learning_rate})")
            history.append(loss)
            if progress is not None:
                progress(step + 1, loss)
            if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
                save_checkpoint(checkpoint, identity, variables, history)
    optimizer.finalize_variable_values(model.trainable_variables)
    weights = [(weight.path, np.asarray(weight, np.float32)) for weight in model.weights]
    write_model(
        out_folder,
        config.network.model_dump(mode="json"),
        weights,
        _card(config, volumes, model, {"initialised_from": start, **(card or {})}),
    )
    write_history(out_folder, history)
    checkpoint.unlink(missing_ok=True)
    return out_folder


def take_over(model: Any, folder: Path) -> None:
    """Give a model those weights of a model folder that have its names and shapes; none fitting is a ConfigError."""
    stored = {name.split(":", 1)[1]: value for name, value in read_weights(folder)}
    fitting = [w for w in model.weights if w.path in stored and stored[w.path].shape == tuple(w.shape)]
    if not fitting:
        raise ConfigError(f"{folder}: wanted a model to start from, but none of its weights fits this architecture")
    for weight in fitting:
        weight.assign(stored[weight.path].astype(np.float32))


def write_history(folder: Path, history: Sequence[float]) -> None:
    """Write loss.csv (step, loss: means over at most 400 equal spans) and its curve loss.png."""
    span = max(1, len(history) // 400)
    steps = list(range(span, len(history) + 1, span))
    losses = [float(np.mean(history[step - span : step])) for step in steps]
    with (folder / HISTORY).open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["step", "loss"])
        writer.writerows([step, f"{loss:.6f}"] for step, loss in zip(steps, losses, strict=True))
    figure = Figure(figsize=(6, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot(steps, losses, linewidth=0.8, color="#9ab")
    window = max(1, len(losses) // 20)
    smooth = np.convolve(losses, np.ones(window) / window, mode="valid")
    axes.plot(steps[window - 1 :], smooth, linewidth=1.6, color="#124")
    axes.set(xlabel="step", ylabel="loss", title=folder.name, yscale="log")
    figure.savefig(folder / CURVE, dpi=90, metadata={"Software": None})


def _optimizer(keras: Any, config: TrainConfig) -> Any:
    warm = max(1, config.steps // 20)
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate / warm,
        max(1, config.steps - warm),
        alpha=0.01,
        warmup_target=config.learning_rate,
        warmup_steps=warm,
    )
    average: dict[str, Any] = {"use_ema": True, "ema_momentum": config.average} if config.average > 0 else {}
    common: dict[str, Any] = {"global_clipnorm": 1.0, **average}
    if config.optimizer == "adam":
        return keras.optimizers.Adam(schedule, **common)
    common["weight_decay"] = config.weight_decay
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(schedule, momentum=0.9, nesterov=True, **common)
    return keras.optimizers.AdamW(schedule, **common)


def _weighted_cross_entropy(keras: Any) -> Callable[[Any, Any], Any]:
    ops = keras.ops

    def loss(truth: Any, logits: Any) -> Any:
        channels = logits.shape[-1]
        target, weight = truth[..., :channels], truth[..., channels:]
        logits = ops.cast(logits, "float32")
        each = ops.relu(logits) - logits * target + ops.log1p(ops.exp(-ops.abs(logits)))
        return ops.sum(weight * each) / (ops.sum(weight) + 1e-6)

    return loss


def loss_of(keras: Any, sampling: SamplingConfig) -> Callable[[Any, Any], Any]:
    """The loss of a task, a function of (truth, logits), both (batch, z, y, x, channels).

    Truth holds the targets of all channels and then their weights. Cross-entropy of what is yes or no; shape
    descriptors, if any, add the mean squared error of their sigmoid.
    """
    yes_or_no = _weighted_cross_entropy(keras)
    shapes = descriptors_of(sampling)
    if shapes == 0:
        return yes_or_no
    ops = keras.ops

    def loss(truth: Any, logits: Any) -> Any:
        channels = logits.shape[-1]
        first = channels - shapes
        logits = ops.cast(logits, "float32")
        crossed = ops.concatenate([truth[..., :first], truth[..., channels : channels + first]], -1)
        target, weight = truth[..., first:channels], truth[..., channels + first :]
        squared = ops.sum(weight * ops.square(ops.sigmoid(logits[..., first:]) - target)) / (ops.sum(weight) + 1e-6)
        return yes_or_no(crossed, logits[..., :first]) + sampling.descriptor_weight * squared

    return loss


def _compiled(keras: Any) -> bool:
    """JAX has no graph but the compiled one: without it every operation is a call of its own."""
    return bool(keras.backend.backend() == "jax")


def save_checkpoint(path: Path, identity: str, variables: Sequence[Any], history: Sequence[float]) -> None:
    """Write the values of variables, the losses so far, and what they belong to."""
    arrays = {f"v{i:04d}": np.asarray(variable) for i, variable in enumerate(variables)}
    partial = path.with_suffix(".partial.npz")
    np.savez(partial, identity=np.array(identity), history=np.array(history, np.float64), allow_pickle=False, **arrays)
    partial.replace(path)  # a kill while writing leaves the previous checkpoint


def restore_checkpoint(path: Path, identity: str, variables: Sequence[Any]) -> list[float]:
    """Assign what `save_checkpoint` wrote; return the losses. One of another `identity` is a ConfigError."""
    with np.load(path, allow_pickle=False) as stored:
        if str(stored["identity"]) != identity:
            raise ConfigError(
                f"{path}: made with other parameters or data than asked for now; use another folder, or do not resume"
            )
        for i, variable in enumerate(variables):
            variable.assign(stored[f"v{i:04d}"])
        return [float(loss) for loss in stored["history"]]


def _card(config: TrainConfig, volumes: Sequence[TrainingVolume], model: Any, more: dict[str, Any]) -> dict[str, Any]:
    return {
        "task": config.sampling.task,
        "channels": dict(zip(config.network.channels, _meanings(config), strict=True)),
        "voxel_nm": list(volumes[0].voxel_nm),
        "parameters_count": int(model.count_params()),
        "training_data": [{"name": v.name, "sha256": v.digest, "shape_zyx": list(v.image.shape)} for v in volumes],
        "steps": config.steps,
        "seed": config.seed,
        "training": config.model_dump(mode="json", exclude={"network"}),
        "loss_history": HISTORY,
        **more,
    }


def _meanings(config: TrainConfig) -> list[str]:
    if config.sampling.task == "affinity":
        sigma_nm, shapes = config.sampling.descriptor_sigma_nm, DESCRIPTORS[: descriptors_of(config.sampling)]
        return [
            *(
                f"probability that voxels v and v - {list(offset)} (z, y, x) are in one object"
                for offset in config.sampling.offsets
            ),
            *(f"local shape descriptor {name}, window of {sigma_nm:g} nm" for name in shapes),
        ]
    return [
        "probability of a synaptic cleft",
        "probability of the presynaptic side, within 60 nm of a cleft",
        "probability of the postsynaptic side, within 60 nm of a cleft",
    ]
