"""Read a network that was trained with the published code (google/ffn, TensorFlow) into a model folder.

The checkpoint holds the weights: `seed_update/conv0_a/weights` and so on, in the layout that Keras uses as well. What
it does not hold (window, steps, scaling of the image, how to fill) stands in the text file of an inference request that
is kept beside it, with axes in the order x, y, z.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectome_db.errors import ConfigError, StageError
from connectome_db.geometry import Vec3
from connectome_db.kernels.flood_types import FloodOptions
from connectome_db.networks.backend import keras_module
from connectome_db.networks.ffn import FFNConfig, write_ffn
from connectome_db.networks.registry import ARCHITECTURE, CARD, model_id, write_json

SCOPE = "seed_update/"
_OPTIONS = {
    "init_activation": "init_activation",
    "pad_value": "pad_value",
    "move_threshold": "move_threshold",
    "segment_threshold": "segment_threshold",
    "disco_seed_threshold": "disco_seed_threshold",
    "min_segment_size": "min_segment_vx",
}
"""Names in an inference request and in `FloodOptions`."""

Arrays = list[tuple[str, NDArray[np.floating[Any]]]]


@dataclass(frozen=True)
class Request:
    """What a text file of an inference request says; None or empty where it says nothing."""

    depth: int | None = None
    fov_vx: Vec3 | None = None
    deltas_vx: Vec3 | None = None
    image_mean: float | None = None
    image_std: float | None = None
    options: dict[str, Any] | None = None


def import_ffn(
    checkpoint: Path,
    folder: Path,
    *,
    given: Request | None = None,
    precision: str = "float32",
    source: str = "unknown",
    licence: str = "unknown",
) -> str:
    """Write the model folder `folder` from a checkpoint; return the model's ID.

    `checkpoint`: the prefix of its files, its index file, or a folder that holds one. `given` overrules the inference
    request beside it. Weights are kept in float32, as they were trained. What is missing, does not fit or is there
    already is a ConfigError.
    """
    if (folder / ARCHITECTURE).exists():
        raise ConfigError(f"{folder}: wanted a new model, and there is one; choose another name or remove it")
    prefix = find_checkpoint(checkpoint)
    request_file = find_request(prefix)
    said = read_request(request_file) if request_file else Request()
    given = given or Request()
    weights, step = read_checkpoint(prefix)
    depth, features, kernel = shape_of(weights, prefix)
    if said.depth not in (None, depth):
        raise ConfigError(f"{request_file}: says depth {said.depth}, but {prefix} has {depth} pairs of convolutions")
    config: dict[str, Any] = {"depth": depth, "features": features, "kernel": kernel, "precision": precision}
    for name in ("fov_vx", "deltas_vx", "image_mean", "image_std"):
        value = getattr(given, name) if getattr(given, name) is not None else getattr(said, name)
        if value is None:
            raise ConfigError(
                f"{name}: {prefix} does not hold it, and no inference request (.pbtxt) beside it says it; "
                f"give --{name.replace('_', '-')}"
            )
        config[name] = value
    try:
        checked = FFNConfig.model_validate(config)
        options = FloodOptions(**(said.options or {}))
    except (ValueError, StageError) as problem:
        raise ConfigError(
            f"{request_file or prefix}: wanted the settings of a flood-filling network, got: {problem}"
        ) from problem
    files = sorted([*prefix.parent.glob(prefix.name + ".*"), *([request_file] if request_file else [])])
    card = {
        "task": "flood",
        "source": source,
        "licence": licence,
        "imported_from": {
            "format": "TensorFlow checkpoint of google/ffn",
            "global_step": step,
            "files": {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files},
        },
        "options": {name: getattr(options, name) for name in (said.options or {})},
    }
    write_ffn(folder, checked, weights, card)
    write_json(folder / CARD, {**card, "model_id": model_id(folder)})
    return model_id(folder)


def find_checkpoint(path: Path) -> Path:
    """The prefix of a checkpoint's files: `path` itself, `path` without ".index", or the only one in a folder."""
    if path.is_dir():
        found = sorted(path.glob("*.index"))
        if len(found) != 1:
            names = ", ".join(f.name for f in found) or "none"
            raise ConfigError(f"{path}: wanted a folder with one checkpoint (*.index), got {names}; name the file")
        return found[0].with_suffix("")
    prefix = path.with_suffix("") if path.suffix == ".index" else path
    if not prefix.with_name(prefix.name + ".index").is_file():
        raise ConfigError(
            f"{path}: wanted a TensorFlow checkpoint (prefix, .index file or folder); no {prefix.name}.index there"
        )
    return prefix


def find_request(prefix: Path) -> Path | None:
    """The inference request (.pbtxt) beside a checkpoint that names it; None if there is none, or more than one."""
    found = [f for f in sorted(prefix.parent.glob("*.pbtxt")) if prefix.name in f.read_text(errors="replace")]
    return found[0] if len(found) == 1 else None


def read_request(path: Path) -> Request:
    """Read what an inference request says about the network and how to fill; the rest is left alone."""
    text = path.read_text(encoding="utf-8", errors="replace")

    def number(name: str) -> float | None:
        found = re.search(rf"\b{name}\s*:\s*([-+.\deE]+)", text)
        return float(found.group(1)) if found else None

    arguments: dict[str, Any] = {}
    quoted = re.search(r'\bmodel_args\s*:\s*("(?:[^"\\]|\\.)*")', text)
    if quoted:
        try:
            arguments = json.loads(json.loads(quoted.group(1)))
        except ValueError as problem:
            raise ConfigError(f"{path}: model_args: wanted JSON in a string, got {quoted.group(1)}") from problem
    options: dict[str, Any] = {ours: number(theirs) for theirs, ours in _OPTIONS.items() if number(theirs) is not None}
    if "min_segment_vx" in options:
        options["min_segment_vx"] = int(options["min_segment_vx"])
    near = re.search(r"\bmin_boundary_dist\s*\{([^}]*)\}", text)
    if near:
        parts = dict(re.findall(r"([xyz])\s*:\s*(\d+)", near.group(1)))
        options["min_boundary_dist_vx"] = tuple(int(parts.get(axis, 0)) for axis in "zyx")
    return Request(
        depth=arguments.get("depth"),
        fov_vx=_reversed(arguments.get("fov_size")),
        deltas_vx=_reversed(arguments.get("deltas")),
        image_mean=number("image_mean"),
        image_std=number("image_stddev"),
        options=options,
    )


def read_checkpoint(prefix: Path) -> tuple[Arrays, int | None]:
    """Weights in the order of `networks.ffn.build_ffn`, under the names it gives them, and the step of training."""
    keras_module()
    try:
        import tensorflow as tf  # noqa: PLC0415 - seconds to import: paid only by those who import a checkpoint
    except ImportError as problem:
        raise ConfigError(
            f"{prefix}: wanted TensorFlow to read its checkpoint, got: {problem}; install it"
        ) from problem
    try:
        reader = tf.train.load_checkpoint(str(prefix))
        shapes = reader.get_variable_to_shape_map()
        ours = sorted((n.removeprefix(SCOPE) for n in shapes if n.startswith(SCOPE)), key=_place)
        weights = [(_name(n), np.asarray(reader.get_tensor(SCOPE + n))) for n in ours if _place(n) < (_UNKNOWN,)]
        step = int(reader.get_tensor("global_step")) if "global_step" in shapes else None
    except (tf.errors.OpError, RuntimeError, ValueError, IndexError) as problem:  # IndexError: a file that ends early
        raise ConfigError(f"{prefix}: wanted a readable TensorFlow checkpoint, got: {problem}") from problem
    if not weights:
        known = ", ".join(sorted(shapes)[:5])
        raise ConfigError(f"{prefix}: wanted variables {SCOPE}conv0_a/weights …, got {known or 'none'}, …")
    return weights, step


def shape_of(weights: Arrays, prefix: Path) -> tuple[int, int, Vec3]:
    """Depth, features and kernel (z, y, x) that the weights have; ConfigError if they are those of another network."""
    found = {name: value.shape for name, value in weights}
    first = found.get("conv0_a/kernel", ())
    depth = sum(name.endswith("_b/kernel") for name in found)
    if len(first) == 5:
        kernel, features = first[:3], int(first[-1])
        wanted: dict[str, tuple[int, ...]] = {
            f"conv{i}_{k}/kernel": (*kernel, features, features) for i in range(depth) for k in "ab"
        }
        wanted |= {f"conv{i}_{k}/bias": (features,) for i in range(depth) for k in "ab"}
        wanted |= {
            "conv0_a/kernel": (*kernel, 2, features),
            "conv_lom/kernel": (1, 1, 1, features, 1),
            "conv_lom/bias": (1,),
        }
        if found == wanted:
            return depth, features, (int(kernel[0]), int(kernel[1]), int(kernel[2]))
    raise ConfigError(
        f"{prefix}: wanted pairs of convolutions conv0_a, conv0_b, … of one width, and conv_lom, got "
        + ", ".join(f"{name}{shape}" for name, shape in list(found.items())[:6])
    )


_UNKNOWN = 1 << 20


def _place(name: str) -> tuple[int, ...]:
    """Where a variable such as conv3_a/weights comes in the network; from (_UNKNOWN,) on: none of ours."""
    found = re.fullmatch(r"conv(?:(\d+)_([ab])|_(lom))/(weights|biases)", name)
    if not found:
        return (_UNKNOWN,)
    pair = _UNKNOWN - 1 if found[3] else int(found[1])
    return pair, int(found[2] == "b"), int(found[4] == "biases")


def _name(name: str) -> str:
    return name.replace("/weights", "/kernel").replace("/biases", "/bias")


def _reversed(axes: Any) -> Vec3 | None:
    """(x, y, z) of the published code as (z, y, x); None if it is no such triple."""
    if not isinstance(axes, list) or len(axes) != 3 or not all(isinstance(n, int) for n in axes):
        return None
    x, y, z = axes
    return z, y, x
