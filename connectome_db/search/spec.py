"""What a search is: the task, its data, which hyper-parameters vary in which range, which are fixed."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML

from connectome_db.config import parse_yaml
from connectome_db.errors import ConfigError, nearest
from connectome_db.provenance import digest
from connectome_db.search.tasks import Task, task_named

Scalar = int | float | str
Parameters = dict[str, Scalar]
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,40}")
"""Names of searches: they become folders, model names and parts of git references."""


class Choices(BaseModel):
    """One of a few values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    choices: tuple[Scalar, ...]


class Range(BaseModel):
    """Any value from `low` to `high`, both included; `log`: evenly in the logarithm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: int | float
    high: int | float
    log: bool = False


class Spec(BaseModel):
    """A search, as `search.yaml` holds it. With its seed it decides every suggestion, given the scores."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    task: str
    data: str
    """As of `connectome train affinity --data`; folders are absolute."""
    seed: int = Field(default=0, ge=0)
    """Of the suggestions and of every training."""
    threads: int = Field(default=2, ge=1)
    startup: int = Field(default=10, ge=1)
    """Trials with random values before the sampler learns from scores."""
    vary: dict[str, Range | Choices]
    fixed: dict[str, Scalar] = Field(default_factory=dict, alias="set")

    @property
    def digest(self) -> str:
        """Digest of everything above."""
        return digest("search", self.model_dump(mode="json", by_alias=True))


def parse(values: Mapping[str, Any], where: str) -> Spec:
    """A search from plain values; `where` names their source in messages. Lists in `vary` are choices.

    Raises ConfigError for an unknown task, parameter or key, an empty range, and values the task does not accept.
    """
    plain = dict(values)
    vary = plain.get("vary")
    if isinstance(vary, Mapping):
        plain["vary"] = {k: {"choices": v} if isinstance(v, list) else v for k, v in vary.items()}
    if not isinstance(plain.get("vary"), Mapping) or not plain["vary"]:
        raise ConfigError(
            f"{where}: wanted at least one parameter to vary, e.g. `vary: {{learning_rate: {{low: 1.0e-4, high: "
            "1.0e-2, log: true}}`, got none"
        )
    for name, given in plain["vary"].items():
        plain["vary"][name] = _given(name, given, where)
    try:
        spec = Spec.model_validate(plain)
    except ValidationError as e:
        raise ConfigError("\n".join(_problem(p, where) for p in e.errors())) from e
    task = task_named(spec.task)
    if twice := sorted(set(spec.vary) & set(spec.fixed)):
        raise ConfigError(f"{where}: {', '.join(twice)}: either varied or set, not both")
    for name in (*spec.vary, *spec.fixed):
        known = task.parameters.model_fields
        if name not in known:
            raise ConfigError(f"{where}: {name!r}: task {task.name} has no such parameter{nearest(name, known)}")
    for name, given in spec.vary.items():
        _check_range(task, name, given, where)
    for values_ in _corners(spec):
        accepted(task, values_, where)
    return spec


def _given(name: object, given: object, where: str) -> object:
    """Which of the two kinds is meant, so that messages speak of that one."""
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{where}: vary.{name}: wanted a list of choices or {{low: …, high: …}}, got {given!r}; "
            "a fixed value belongs under `set`"
        )
    kind: type[BaseModel] = Choices if "choices" in given else Range
    try:
        return kind.model_validate(dict(given))
    except ValidationError as e:
        raise ConfigError("\n".join(_problem(p, f"{where}: vary.{name}") for p in e.errors())) from e


def _problem(problem: Any, where: str) -> str:
    at = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{where}: {at}: no such key{nearest(at, [*Spec.model_fields, 'set', 'low', 'high', 'log', 'choices'])}"
    if problem["type"] == "missing":
        return f"{where}: {at}: is missing and has no default"
    return f"{where}: {at}: {problem['msg']}, got {problem['input']!r}"


def is_whole(task: Task, name: str) -> bool:
    """Whether a parameter takes whole numbers only."""
    kind = task.parameters.model_fields[name].annotation
    return int in (kind, *get_args(kind))


def _check_range(task: Task, name: str, given: Range | Choices, where: str) -> None:
    at = f"{where}: vary.{name}"
    if isinstance(given, Choices):
        if len(set(given.choices)) < 2 or len(set(given.choices)) < len(given.choices):
            raise ConfigError(f"{at}: wanted two different choices or more, each once, got {list(given.choices)}")
        return
    if not given.low < given.high:
        raise ConfigError(f"{at}: the range from {given.low:g} to {given.high:g} is empty; wanted low < high")
    if given.log and given.low <= 0:
        raise ConfigError(f"{at}: log wants low > 0, got {given.low:g}")
    if is_whole(task, name) and not (float(given.low).is_integer() and float(given.high).is_integer()):
        raise ConfigError(f"{at}: wanted whole numbers, got {given.low:g} to {given.high:g}")


def _corners(spec: Spec) -> list[Parameters]:
    """Parameter sets that hold each end of each range and each choice once."""
    ends = {n: list(g.choices) if isinstance(g, Choices) else [g.low, g.high] for n, g in spec.vary.items()}
    first = {**spec.fixed, **{name: values[0] for name, values in ends.items()}}
    return [{**first, name: value} for name, values in ends.items() for value in values]


def accepted(task: Task, values: Mapping[str, Scalar], where: str) -> Any:
    """The task's parameters with these values. Raises ConfigError for one that it does not accept."""
    try:
        return task.parameters.model_validate(dict(values))
    except ValidationError as e:
        raise ConfigError("\n".join(_problem(p, where) for p in e.errors())) from e


def read(path: Path) -> Spec:
    """A search from its YAML file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{path}: wanted the file of a search, got: {e.strerror}") from e
    return parse(parse_yaml(text, str(path)), str(path))


def render(spec: Spec) -> str:
    """The YAML text of a search."""
    values = spec.model_dump(mode="json", by_alias=True)
    values["vary"] = {n: g.get("choices", g) for n, g in values["vary"].items()}
    return yaml_text(values)


def yaml_text(values: Mapping[str, Any]) -> str:
    """Plain values as YAML, keys in the order given."""
    yaml = YAML()
    yaml.default_flow_style = False
    sink = io.StringIO()
    yaml.dump(dict(values), sink)
    return sink.getvalue()


def options(vary: Sequence[str], fixed: Sequence[str]) -> dict[str, Any]:
    """`vary` and `set` from command-line words: NAME=LOW:HIGH, NAME=LOW:HIGH:log, NAME=A,B,C; NAME=VALUE."""
    found: dict[str, Any] = {"vary": {}, "set": {}}
    for text in vary:
        name, value = _pair("--vary", text, "NAME=LOW:HIGH, NAME=LOW:HIGH:log or NAME=A,B,C")
        if ":" not in value:
            found["vary"][name] = [_scalar(part) for part in value.split(",")]
            continue
        low, high, *kind = value.split(":")
        if kind not in ([], ["log"]):
            raise ConfigError(f"--vary {text}: wanted NAME=LOW:HIGH or NAME=LOW:HIGH:log")
        found["vary"][name] = {"low": _scalar(low), "high": _scalar(high), "log": bool(kind)}
    for text in fixed:
        name, value = _pair("--set", text, "NAME=VALUE")
        found["set"][name] = _scalar(value)
    return found


def _pair(option: str, text: str, wanted: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ConfigError(f"{option} {text}: wanted {wanted}")
    return name, value


def _scalar(text: str) -> Scalar:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text.strip()
