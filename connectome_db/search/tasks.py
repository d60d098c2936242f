"""What can be searched for: per task of `connectome train`, the parameters it takes, how it trains, how it scores.

A task is one entry of TASKS. A search calls `train` with values of `parameters`, and ranks by the number that `score`
takes from the model card.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from connectome_db.errors import ConfigError, SourceError, nearest
from connectome_db.networks.architecture import UNetConfig
from connectome_db.networks.datasets import AC3_FILES, FIB25_FILES, Split
from connectome_db.networks.presets import default_training
from connectome_db.networks.registry import ARCHITECTURE
from connectome_db.networks.sampling import Task as UNetTask
from connectome_db.networks.training import Optimizer, TrainConfig


class UNetParameters(BaseModel):
    """Hyper-parameters of `train affinity` and `train cleft`. None: as the preset for the data's voxels has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=2e-3, gt=0)
    """Highest rate of the optimizer."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Decoupled weight decay; adam ignores it."""
    optimizer: Optimizer = "adamw"
    """adamw, adam or sgd."""
    batch: int = Field(default=1, ge=1)
    """Patches per step."""
    steps: int = Field(default=1500, ge=1)
    """Steps of a training."""
    depth: int | None = Field(default=None, ge=1, le=4)
    """Resolutions of the U-Net: the first so many of the preset's four."""
    features: int | None = Field(default=None, ge=1, le=128)
    """Channels at full resolution; deeper levels in the preset's proportion."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """Momentum of the average of the weights that is kept."""
    balance: float | None = Field(default=None, ge=0, le=1)
    """How far the loss evens out rare and frequent targets."""


class FFNParameters(BaseModel):
    """Hyper-parameters of `train ffn`. None: as the published network for the data's voxels, or `initial`, has it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: float = Field(default=1e-3, gt=0)
    """Highest rate of the optimizer, for the whole batch."""
    weight_decay: float = Field(default=1e-4, ge=0)
    """Of adamw."""
    optimizer: Optimizer = "adamw"
    """adamw, adam or sgd."""
    batch: int = Field(default=4, ge=1)
    """Windows per step."""
    steps: int = Field(default=2000, ge=1)
    """Steps of a training."""
    warmup_steps: int | None = Field(default=None, ge=0)
    """Until the highest rate is reached; None: 5% of the steps."""
    depth: int | None = Field(default=None, ge=1, le=64)
    """Pairs of convolutions."""
    features: int | None = Field(default=None, ge=1, le=512)
    """Channels of every convolution."""
    average: float = Field(default=0.99, ge=0, lt=1)
    """Momentum of the average of the weights that is kept."""
    initial: str | None = None
    """Absolute path of a model folder to start from."""
    teacher: str | None = None
    """Absolute path of a model folder to imitate."""
    teacher_share: float = Field(default=0.5, gt=0, le=1)
    """The teacher's share of the target; the rest is the truth."""
    validate_vx: str = Field(default="40,160,160", pattern=r"^\d+,\d+,\d+$")
    """Box z,y,x in voxels of the held-out data that is filled for the score."""

    @field_validator("initial", "teacher")
    @classmethod
    def _is_a_model(cls, folder: str | None) -> str | None:
        if folder is not None and not (Path(folder).is_absolute() and (Path(folder) / ARCHITECTURE).is_file()):
            raise ValueError("wanted the absolute path of a model folder, as trials run in a clone of the project")
        return folder


@dataclass(frozen=True)
class Task:
    """One thing that `connectome train` trains, as a search sees it."""

    name: str
    parameters: type[BaseModel]
    """What may be varied or set, with bounds and defaults."""
    metric: str
    """What the score is."""
    minimise: bool
    code: tuple[str, ...]
    """Modules below the package that a training reaches: their digest is recorded with each trial."""
    train: Callable[[Any, Split, int, int, Path], dict[str, Any]]
    """(parameters, data, seed, threads, model folder) -> model card; raises ConfigError when training fails."""
    measures: Callable[[Mapping[str, Any]], dict[str, float]]
    """Model card -> named numbers, `metric` among them; not a number where there is none."""
    load: Callable[[str], Split]
    """Data by its name -> volumes."""


def unet_config(task: UNetTask, split: Split, chosen: UNetParameters, seed: int) -> TrainConfig:
    """The preset for the data's voxels, with these parameters. Raises ConfigError for what does not fit together."""
    preset = default_training(task, split.train[0].voxel_nm, steps=chosen.steps, seed=seed)
    sampling = preset.sampling.model_copy(
        update={"batch": chosen.batch} | ({} if chosen.balance is None else {"balance": chosen.balance})
    )
    return TrainConfig(
        network=_resized(preset.network, chosen.depth, chosen.features),
        sampling=sampling,
        steps=chosen.steps,
        seed=seed,
        policy=preset.policy,
        **chosen.model_dump(include={"learning_rate", "weight_decay", "optimizer", "average"}),
    )


def _resized(network: UNetConfig, depth: int | None, features: int | None) -> UNetConfig:
    levels = network.levels[: depth or len(network.levels)]
    scale = 1.0 if features is None else features / levels[0].features
    # The levels are validated again: model_copy alone would not.
    sized = [{**level.model_dump(), "features": max(1, round(level.features * scale))} for level in levels]
    return UNetConfig.model_validate({**network.model_dump(), "levels": sized})


def _train_unet(task: UNetTask) -> Callable[[Any, Split, int, int, Path], dict[str, Any]]:
    def train(chosen: Any, split: Split, seed: int, threads: int, out: Path) -> dict[str, Any]:
        from connectome_db.networks.command import train_and_score  # noqa: PLC0415 only a trial trains

        config = unet_config(task, split, chosen, seed)
        return train_and_score(split, out, task=task, config=config, threads=threads, resume=False, show_progress=False)

    return train


def _load_unet(task: UNetTask) -> Callable[[str], Split]:
    def load(data: str) -> Split:
        from connectome_db.demo import training_split  # noqa: PLC0415 all stages come with it, and only a trial reads

        split = training_split(data, task)
        if task == "cleft" and not all(v.synapses is not None and v.synapses_exhaustive for v in split.test):
            raise ConfigError(
                f"data {data}: the held-out synapses are not listed in full, so there is no precision, and recall "
                "alone would choose a network that sees synapses everywhere; use data with every synapse listed"
            )
        return split

    return load


def _mean(card: Mapping[str, Any], names: Mapping[str, str], inside: str | None = None) -> dict[str, float]:
    rows = [row[inside] if inside else row for row in card["scores_on_held_out_data"]]
    return {told: round(sum(row[name] for row in rows) / len(rows), 5) for told, name in names.items()}


def _affinity_measures(card: Mapping[str, Any]) -> dict[str, float]:
    names = {
        "adapted_rand_error": "adapted_rand_error",
        "vi_split": "voi_false_splits",
        "vi_merge": "voi_false_merges",
    }
    return _mean(card, names)


def _cleft_measures(card: Mapping[str, Any]) -> dict[str, float]:
    return _mean(card, {"f1": "f1", "precision": "precision", "recall": "recall"}, "best")


def _train_ffn(chosen: Any, split: Split, seed: int, threads: int, out: Path) -> dict[str, Any]:
    from connectome_db.networks.ffn_command import default_ffn_training, train_and_validate  # noqa: PLC0415 as above

    initial, teacher = (None if path is None else Path(path) for path in (chosen.initial, chosen.teacher))
    given = chosen.model_dump(exclude={"depth", "features", "initial", "teacher", "validate_vx"})
    network = {k: v for k, v in chosen.model_dump(include={"depth", "features"}).items() if v is not None}
    config = default_ffn_training(split.train[0].voxel_nm, initial, network, seed=seed, **given)
    z, y, x = (int(extent) for extent in chosen.validate_vx.split(","))
    return train_and_validate(
        config,
        split,
        out,
        validate_vx=(z, y, x),
        threads=threads,
        resume=False,
        initial=initial,
        teacher=teacher,
        show_progress=False,
    )


def _ffn_measures(card: Mapping[str, Any]) -> dict[str, float]:
    last = card["scores_on_held_out_data"][-1]
    names = ("adapted_rand_error_all", "adapted_rand_error_covered", "coverage", "moves")
    return {name: float("nan") if last[name] is None else last[name] for name in names}


TASKS: tuple[Task, ...] = (
    Task(
        name="affinity",
        parameters=UNetParameters,
        metric="adapted_rand_error",
        minimise=True,
        code=("networks.command",),
        train=_train_unet("affinity"),
        measures=_affinity_measures,
        load=_load_unet("affinity"),
    ),
    Task(
        name="cleft",
        parameters=UNetParameters,
        metric="f1",
        minimise=False,
        code=("networks.command",),
        train=_train_unet("cleft"),
        measures=_cleft_measures,
        load=_load_unet("cleft"),
    ),
    Task(
        name="ffn",
        parameters=FFNParameters,
        metric="adapted_rand_error_all",
        minimise=True,
        code=("networks.ffn_command",),
        train=_train_ffn,
        measures=_ffn_measures,
        load=_load_unet("affinity"),  # the same volumes
    ),
)
"""Every task. Scores are means over the held-out volumes; of ffn, over one box in their middle."""


def task_named(name: str) -> Task:
    """The task of that name. Raises ConfigError naming the nearest."""
    for task in TASKS:
        if task.name == name:
            return task
    raise ConfigError(f"task {name!r}: not one that can be searched{nearest(name, [t.name for t in TASKS])}")


def absolute(data: str) -> str:
    """Data by its name with absolute folders, so that it means the same wherever a trial runs."""
    kind, equals, folders = data.partition("=")
    return f"{kind}{equals}{','.join(str(Path(f).resolve()) for f in folders.split(','))}" if folders else data


def files_of(data: str) -> list[Path]:
    """Files and folders that data by its name is read from; none for what is grown. SourceError if one is absent.

    They become the dependencies of a trial's DVC stage, so DVC's lock file holds their digests.
    """
    kind, _, folders = data.partition("=")
    if kind == "phantom" and not folders:
        return []
    parts = {
        "ac3": AC3_FILES,
        "fib25": FIB25_FILES,
        "projects": ("params.yaml", "truth", "data/montage", "data/align", "data/render"),
    }
    if kind not in parts or not folders:
        raise ConfigError(f"data {data!r}: wanted phantom, ac3=FOLDER, fib25=FOLDER or projects=FOLDER,FOLDER")
    paths = [Path(folder) / part for folder in folders.split(",") for part in parts[kind]]
    if missing := [str(path) for path in paths if not path.exists()]:
        raise SourceError(f"data {data}: wanted {missing[0]}, which does not exist; give the folder that holds it")
    return paths
