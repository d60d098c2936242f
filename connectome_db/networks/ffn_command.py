"""Train a flood-filling network from start to scored card: what `connectome train ffn` calls."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from connectome_db.errors import ConfigError
from connectome_db.networks.architecture import Triple
from connectome_db.networks.augment import AugmentConfig
from connectome_db.networks.backend import keras_module
from connectome_db.networks.command import git_revision
from connectome_db.networks.datasets import Split
from connectome_db.networks.ffn import FFNConfig, FloodNetwork, read_config
from connectome_db.networks.ffn_history import Validation
from connectome_db.networks.ffn_sampling import FFNSamplingConfig
from connectome_db.networks.ffn_training import FFNTrainConfig, Ranks, train_ffn
from connectome_db.networks.ffn_validation import validation
from connectome_db.networks.registry import read_card

logger = logging.getLogger(__name__)

LOGS = "tensorboard"
"""Folder of TensorBoard's logs beside the weights."""
LOG_EVERY = 10
"""Steps between two losses in TensorBoard's logs."""


def default_ffn_training(
    voxel_nm: tuple[float, float, float],
    initial: Path | None = None,
    network: dict[str, Any] | None = None,
    **training: Any,
) -> FFNTrainConfig:
    """Return the training parameters for a voxel size (z, y, x) in nm; what does not fit together is a ConfigError.

    `network` and `training` overrule the defaults. The network is that of `initial`, or else the published one
    (Januszewski et al. 2018, 10.1038/s41592-018-0049-4), flat where z is more than 1.5 times x.
    """
    isotropic = voxel_nm[0] <= 1.5 * voxel_nm[2]
    flat: dict[str, Any] = {} if isotropic else {"fov_vx": (9, 33, 33), "deltas_vx": (2, 8, 8)}
    start = flat if initial is None else read_config(initial).model_dump()
    if start.get("precision") == "int8":
        raise ConfigError(
            f"{initial}: wanted a network in float32 or bfloat16 to start from, got one in int8; name the one it was "
            "made from"
        )
    augment = AugmentConfig(isotropic=True, shift_px=0, missing_share=0.0) if isotropic else AugmentConfig()
    try:
        chosen = FFNConfig.model_validate({**start, **(network or {})})
        return FFNTrainConfig(network=chosen, sampling=FFNSamplingConfig(augment=augment), **training)
    except ValidationError as problem:
        said = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'training'}: {e['msg']}" for e in problem.errors())
        raise ConfigError(f"training of a flood-filling network: {said}") from problem


def train_and_validate(
    config: FFNTrainConfig,
    split: Split,
    out: Path,
    *,
    validate_vx: Triple | None,
    threads: int = 2,
    makers: int = 0,
    resume: bool = True,
    initial: Path | None = None,
    teacher: Path | None = None,
    ranks: Ranks | None = None,
    tensorboard: bool = False,
    show_progress: bool = True,
) -> dict[str, Any]:
    """Train on `split.train`, validate on the middle of `split.test`, write the model folder `out`; return its card.

    `validate_vx`: extent (z, y, x) of the box to validate on at most; None: no validation. See `train_ffn` for the
    rest. On ranks other than the first, nothing is written and the card is empty.
    """
    first = ranks is None or ranks.rank == 0
    validate = None
    if validate_vx is not None and first:
        validate = validation(split.test, validate_vx, config.network.fov_vx)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TextColumn("{task.fields[score]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with ExitStack() as stack:
        bar = stack.enter_context(Progress(*columns, disable=not (show_progress and first)))
        row = bar.add_task(f"training {out.name}", total=config.steps, loss=float("nan"), score="")
        log = stack.enter_context(_Log(out / LOGS)) if tensorboard and first and _has_tensorboard() else None
        at = 0

        def advance(done: int, loss: float) -> None:
            nonlocal at
            at = done
            bar.update(row, completed=done, loss=loss)
            if log is not None and done % LOG_EVERY == 0:
                log.write(done, {"loss": loss})

        def judge(network: FloodNetwork) -> Validation:
            assert validate is not None
            scores = validate(network)
            error, coverage = scores["adapted_rand_error_all"], scores["coverage"]
            bar.update(row, score=f"held out: adapted Rand error {error:.3f}, coverage {coverage:.2f}")
            if log is not None:
                log.write(at, scores)
            return scores

        train_ffn(
            config,
            split.train,
            out,
            advance,
            threads=threads,
            makers=makers,
            resume=resume,
            initial=initial,
            teacher=teacher,
            validate=judge if validate else None,
            ranks=ranks,
            card={"source": split.source, "code": git_revision(), "validated_on": _validated_on(split, validate_vx)},
        )
    return read_card(out) if first else {}


def _validated_on(split: Split, extent_vx: Triple | None) -> dict[str, Any] | None:
    if extent_vx is None:
        return None
    data = [{"name": volume.name, "sha256": volume.digest} for volume in split.test]
    return {"data": data, "middle_box_vx": list(extent_vx), "truth": "connected pieces within the box"}


def _has_tensorboard() -> bool:
    if keras_module().backend.backend() == "tensorflow":
        return True
    logger.warning("TensorBoard's logs are written by TensorFlow: none on this backend; loss.csv has the losses")
    return False


class _Log:
    """TensorBoard's log of one training, by TensorFlow alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> _Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add numbers of a step."""
        import tensorflow as tf  # noqa: PLC0415 - seconds to import, and only one of two backends

        if self._writer is None:  # not before a training has chosen TensorFlow's threads
            self._writer = tf.summary.create_file_writer(str(self._folder))
        kind = tf.compat.v1.SummaryMetadata
        scalars = kind(plugin_data=kind.PluginData(plugin_name="scalars"))  # tf.summary.scalar needs TensorBoard itself
        with self._writer.as_default(step=step):
            for name, value in values.items():
                tf.summary.write(name, tf.constant(value, tf.float32), metadata=scalars)
