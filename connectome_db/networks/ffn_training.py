"""Train a flood-filling network: seeded, resumable, on one rank or many. A resumed training ends as an unbroken one.

A step is one window in every row of the batch. A row whose example has no move left gets the next one. Every
`refresh_every` steps all rows begin new examples: there a checkpoint is kept, which then needs no canvases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from connectome_db.errors import ConfigError
from connectome_db.networks.backend import PREDICTION_THREADS, keras_module, use_threads
from connectome_db.networks.ffn import FFNConfig, FloodNetwork, build_ffn, keras_answer, read_config, write_ffn
from connectome_db.networks.ffn_history import Validation, read_validations, write_pictures, write_validations
from connectome_db.networks.ffn_sampling import FFNSamplingConfig, Pool
from connectome_db.networks.ffn_steps import Looks, Reduce, StepConfig, Stepper, window_of
from connectome_db.networks.ffn_supply import Supply
from connectome_db.networks.registry import CARD, model_id, write_json
from connectome_db.networks.training import (
    CHECKPOINT,
    HISTORY,
    restore_checkpoint,
    save_checkpoint,
    take_over,
    write_history,
)

if TYPE_CHECKING:
    from connectome_db.networks.datasets import TrainingVolume

Progress = Callable[[int, float], None]
"""Called after each step with (steps done, loss)."""
Validate = Callable[[FloodNetwork], Validation]
"""Scores a network on data it does not learn from."""


class FFNTrainConfig(BaseModel):
    """Everything that decides the weights, besides the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: FFNConfig
    sampling: FFNSamplingConfig = FFNSamplingConfig()
    steps: int = Field(ge=1)
    batch: int = Field(default=4, ge=1)
    """Windows of a step, over all ranks."""
    seed: int = Field(default=0, ge=0)
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw"
    """sgd has momentum 0.9; adamw is that of Loshchilov & Hutter 2019."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest rate, for the whole batch; warmed up, then a cosine down to 1%. For a batch k times as large, Dong et al.
    2019 (arXiv:1905.06236v1) found k times the rate and a warm-up best on up to 16 nodes, and the square root of k
    times on more."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """None: 5% of the steps."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of adamw."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """The weights kept are an exponential moving average with this momentum."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of training; that of the model made is `network.precision`."""
    looks: int = Field(default=0, ge=0)
    """Windows of an example at most, so that first windows, which see nothing but a seed, are a larger share; 0: until
    it has no move left."""
    refresh_every: int = Field(default=200, ge=1)
    """All rows begin new examples, and a checkpoint is kept, every so many steps."""
    validate_every: int = Field(default=0, ge=0)
    """Steps between two validations; 0: only at the end."""
    teacher_share: float = Field(default=0.5, gt=0, le=1)
    """With a teacher: its share of the target; the rest is the truth."""

    @model_validator(mode="after")
    def _consistent(self) -> FFNTrainConfig:
        if self.warmup_steps is not None and self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps: wanted fewer than the {self.steps} steps, got {self.warmup_steps}")
        return self


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this one is. Each learns from its share of the rows."""

    rank: int = 0
    size: int = 1
    reduce: Reduce | None = None
    """Means over all ranks; needed if there are several."""


def train_ffn(
    config: FFNTrainConfig,
    volumes: Sequence[TrainingVolume],
    out_folder: Path,
    progress: Progress | None = None,
    *,
    threads: int = PREDICTION_THREADS,
    makers: int = 0,
    resume: bool = True,
    initial: Path | None = None,
    teacher: Path | None = None,
    validate: Validate | None = None,
    ranks: Ranks | None = None,
    card: dict[str, Any] | None = None,
) -> Path:
    """Train and write the model folder `out_folder`: architecture, weights, card, loss.csv, validation.csv, loss.png.

    A checkpoint is kept in out_folder every `refresh_every` steps; with `resume` an interrupted training goes on from
    it (one made with other parameters or data is a ConfigError) and removes it at the end. `initial`: a model folder to
    start from; weights of equal name and shape are taken over. `teacher`: a model folder whose answers are part of the
    target; its window must not be smaller. `makers`: processes that make examples, 0 for a thread. `validate` is called
    on the first rank, every `validate_every` steps and at the end. All ranks call this with equal arguments; the first
    one writes. `card` is merged into the model card.
    """
    if not volumes:
        raise ConfigError("volumes: wanted at least one training volume, got none")
    ranks = ranks or Ranks()
    if config.batch % ranks.size:
        raise ConfigError(f"batch: wanted a multiple of the {ranks.size} ranks, got {config.batch}")
    out_folder.mkdir(parents=True, exist_ok=True)
    use_threads(threads)
    run = _Run(config, volumes, initial, teacher, ranks)
    checkpoint = out_folder / CHECKPOINT
    if resume and checkpoint.is_file():
        run.history = restore_checkpoint(checkpoint, run.identity, run.stepper.variables())
        run.stepper.reload()
    first = ranks.rank == 0
    scores = read_validations(out_folder, len(run.history)) if first else []
    share = config.batch // ranks.size
    rows = range(ranks.rank * share, (ranks.rank + 1) * share)
    with Supply(run.pool, config.seed, rows, makers) as supply:
        for step in range(len(run.history), config.steps):
            run.step(supply, step)
            done = step + 1
            if progress is not None and first:
                progress(done, run.history[-1])
            if first and done % config.refresh_every == 0 and done < config.steps:
                save_checkpoint(checkpoint, run.identity, run.stepper.variables(), run.history)
            last = done == config.steps
            if first and validate and (last or (config.validate_every and done % config.validate_every == 0)):
                scores.append({"step": done, **validate(run.network(out_folder.name))})
                write_validations(out_folder, scores)
    if first:
        run.write(out_folder, volumes, scores, {"initialised_from": run.start, "teacher": run.taught, **(card or {})})
        checkpoint.unlink(missing_ok=True)
    return out_folder


class _Run:
    """What a training holds, and its loss so far."""

    def __init__(
        self,
        config: FFNTrainConfig,
        volumes: Sequence[TrainingVolume],
        initial: Path | None,
        teacher: Path | None,
        ranks: Ranks,
    ) -> None:
        self.config, self.ranks = config, ranks
        keras = keras_module()
        seen_by = None if teacher is None else read_config(teacher)
        if seen_by is not None and any(a < b for a, b in zip(seen_by.fov_vx, config.network.fov_vx, strict=True)):
            raise ConfigError(
                f"{teacher}: wanted a teacher whose window is at least {config.network.fov_vx} (z, y, x), got "
                f"{seen_by.fov_vx}; give the network a smaller fov_vx"
            )
        self.start = None if initial is None else model_id(initial)
        self.taught = None if teacher is None else model_id(teacher)
        self.identity = f"ffn {config.model_dump_json()} {self.start} {self.taught} " + " ".join(
            volume.digest for volume in volumes
        )
        self.pool = Pool(volumes, config.sampling, window_of(config.network, seen_by), config.network.deltas_vx)
        self.model = build_ffn(config.network.model_copy(update={"precision": config.precision}), seed=config.seed)
        if initial is not None:
            take_over(self.model, initial)
        else:  # it adds nothing to the mask at first: answers of random weights, looked at again, grow without bound
            last = self.model.get_layer("conv_lom").kernel
            last.assign(np.zeros(last.shape, np.float32))
        step = StepConfig(teacher_share=0.0 if seen_by is None else config.teacher_share)
        looks = Looks(config.batch // ranks.size, config.network, seen_by, step)
        guide = None
        if teacher is not None and seen_by is not None:
            guide = build_ffn(seen_by)
            take_over(guide, teacher)
        self.stepper = Stepper(looks, self.model, _optimizer(keras, config), guide)
        self.judged: Any = None
        self.history: list[float] = []
        self.left: NDArray[np.bool_] = np.zeros(looks.batch, np.bool_)
        self.looked = np.zeros(looks.batch, np.int64)

    def step(self, supply: Supply, step: int) -> None:
        """Refill rows, look once in each, learn."""
        if step % self.config.refresh_every == 0:
            supply.begin(step // self.config.refresh_every)
            self.left = np.zeros_like(self.left)
        empty = np.flatnonzero(~self.left).tolist()
        if empty:
            self.stepper.fill(empty, [supply.take(row) for row in empty])
            self.looked[empty] = 0
        loss, left = self.stepper.step(self.ranks.reduce)
        self.looked += 1
        self.left = left & (self.looked < self.config.looks) if self.config.looks else left
        if not np.isfinite(loss):
            raise ConfigError(
                f"step {step}: the loss is {loss}; lower learning_rate ({self.config.learning_rate})"
                + (", or train in float32" if self.config.precision != "float32" else "")
            )
        self.history.append(loss)

    def network(self, name: str) -> FloodNetwork:
        """The network as it would be kept now, ready to fill."""
        if self.judged is None:
            self.judged = build_ffn(self.config.network)
            self.judged.compile(jit_compile="auto" if keras_module().backend.backend() == "jax" else False)
        self.judged.set_weights(self.stepper.averaged())
        answering = partial(keras_answer, self.judged, self.config.network)
        return FloodNetwork(f"{name}, in training", self.config.network, 1, answering)

    def write(
        self,
        folder: Path,
        volumes: Sequence[TrainingVolume],
        scores: Sequence[Validation],
        more: dict[str, Any],
    ) -> None:
        """Write the model folder."""
        weights = [
            (weight.path, value) for weight, value in zip(self.model.weights, self.stepper.averaged(), strict=True)
        ]
        card = {
            "task": "flood",
            "voxel_nm": list(volumes[0].voxel_nm),
            "parameters_count": int(self.model.count_params()),
            "training_data": [{"name": v.name, "sha256": v.digest, "shape_zyx": list(v.image.shape)} for v in volumes],
            "steps": self.config.steps,
            "seed": self.config.seed,
            "training": self.config.model_dump(mode="json", exclude={"network"}),
            "backend": keras_module().backend.backend(),
            "loss_history": HISTORY,
            **more,
            "scores_on_held_out_data": [{k: v if np.isfinite(v) else None for k, v in s.items()} for s in scores[-1:]],
        }
        write_ffn(folder, self.config.network, weights, card)
        write_json(folder / CARD, {**card, "model_id": model_id(folder)})
        write_history(folder, self.history)
        write_pictures(folder, self.history, scores)


def _optimizer(keras: Any, config: FFNTrainConfig) -> Any:
    warm = config.steps // 20 if config.warmup_steps is None else config.warmup_steps
    warm = max(1, warm)
    schedule = keras.optimizers.schedules.CosineDecay(
        config.learning_rate / warm,
        max(1, config.steps - warm),
        alpha=0.01,
        warmup_target=config.learning_rate,
        warmup_steps=warm,
    )
    more: dict[str, Any] = {"global_clipnorm": 1.0}
    if config.average > 0:
        more |= {"use_ema": True, "ema_momentum": config.average}
    if config.optimizer == "sgd":
        return keras.optimizers.SGD(schedule, momentum=0.9, **more)
    if config.optimizer == "adam":
        return keras.optimizers.Adam(schedule, **more)
    return keras.optimizers.AdamW(schedule, weight_decay=config.weight_decay, **more)
