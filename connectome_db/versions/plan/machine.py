"""Machine files: how fast one device fills a volume with a flood-filling network, every number with its source.

Files are YAML, as in `machines/`, and are read by name (`laptop`) or by path (`ours.yaml`).
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from connectome_db.config import parse_yaml
from connectome_db.errors import ConfigError, nearest
from connectome_db.networks.ffn import FFNConfig, flops_per_move
from connectome_db.versions.plan.forecast import Span

Kind = Literal["measured", "published", "assumed", "hoped"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
SUFFIXES = (".yaml", ".yml")


class _Described(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Figure(_Described):
    """A number, or a range, and where it is from."""

    value: Positive | None = None
    """The number; or else `low` and `high`."""
    low: Positive | None = None
    """Lower end of a range."""
    high: Positive | None = None
    """Upper end of a range."""
    kind: Kind
    """measured, published by others, assumed, or hoped for."""
    source: Text
    """By whom, on what, or why."""

    @model_validator(mode="after")
    def _one_or_two(self) -> Figure:
        given = [v is not None for v in (self.value, self.low, self.high)]
        if given not in ([True, False, False], [False, True, True]):
            raise ValueError("wanted either `value`, or `low` and `high`")
        if self.span.low > self.span.high:
            raise ValueError(f"wanted low <= high, got {self.low:g} and {self.high:g}")
        return self

    @property
    def span(self) -> Span:
        """From low to high; both are `value` where there is one."""
        low, high = (self.value if end is None else end for end in (self.low, self.high))
        return Span(low or 0.0, high or 0.0)


class Speed(_Described):
    """How fast one device is in one precision: exactly one of `moves_per_s`, `voxels_per_h` and `share_of_peak`."""

    precision: Text
    """Of the network's convolutions."""
    moves_per_s: Figure | None = None
    """Windows that the network answers per second."""
    voxels_per_h: Figure | None = None
    """Voxels filled per hour."""
    share_of_peak: Figure | None = None
    """Share of `peak_flop_per_s` that the network uses, 0-1."""
    peak_flop_per_s: Figure | None = None
    """Multiplications plus additions per second that the maker promises in this precision, without sparsity."""

    @model_validator(mode="after")
    def _one(self) -> Speed:
        ways = ("moves_per_s", "voxels_per_h", "share_of_peak")
        given = [name for name in ways if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"wanted exactly one of {', '.join(ways)}, got {', '.join(given) or 'none'}")
        if self.share_of_peak is not None and self.peak_flop_per_s is None:
            raise ValueError("share_of_peak needs peak_flop_per_s")
        if self.share_of_peak is not None and self.share_of_peak.span.high > 1:
            raise ValueError(f"share_of_peak: wanted at most 1, got {self.share_of_peak.span.high:g}")
        return self

    @property
    def figure(self) -> Figure:
        """The one that is given."""
        found = self.moves_per_s or self.voxels_per_h or self.share_of_peak
        assert found is not None
        return found


class Machine(_Described):
    """A kind of machine and its flood-filling."""

    name: Text
    """Name in tables."""
    device: Text
    """What one device is: a GPU, or the cores of a machine."""
    devices_per_node: Figure
    """Devices of a node; whole."""
    network: FFNConfig = FFNConfig()
    """The network that the speeds are of. Default: the published one (depth 12, 32 features, window 33³)."""
    voxels_per_move: Figure
    """Voxels that a move fills on average."""
    speeds: Annotated[tuple[Speed, ...], Field(min_length=1)]
    """One per precision."""

    @model_validator(mode="after")
    def _whole(self) -> Machine:
        n = self.devices_per_node.value
        if n is None or n % 1:
            raise ValueError("devices_per_node: wanted a whole `value`, like {value: 4, kind: measured, source: ...}")
        return self

    @property
    def flop_per_move(self) -> float:
        """Multiplications plus additions of all convolutions for one window."""
        return flops_per_move(self.network)


def shipped() -> list[str]:
    """Names of the machines that come with the package."""
    folder = resources.files("connectome_db.versions.plan").joinpath("machines")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def read_machine(name: str) -> Machine:
    """The machine of a shipped name, or of a path that ends in .yaml. Raises ConfigError."""
    if not name.endswith(SUFFIXES):
        if name not in shipped():
            raise ConfigError(
                f"--machine {name!r}: no such machine{nearest(name, shipped())} A file of your own ends in .yaml."
            )
        file = resources.files("connectome_db.versions.plan").joinpath("machines", f"{name}.yaml")
        return parse_machine(file.read_text(encoding="utf-8"), f"{name}.yaml")
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"--machine {name}: cannot be read: {e}") from e
    return parse_machine(text, name)


def parse_machine(text: str, where: str) -> Machine:
    """A machine from YAML. Raises ConfigError that names `where`, the field, and what was wanted."""
    values = parse_yaml(text, where)
    try:
        return Machine(**{str(k): v for k, v in values.items()})
    except ValidationError as e:
        raise ConfigError("\n".join(_problem(p["type"], p["loc"], p["msg"], where) for p in e.errors())) from e


def _problem(kind: str, loc: tuple[int | str, ...], message: str, where: str) -> str:
    at = f"{where}: {'.'.join(str(v) for v in loc)}" if loc else where
    if kind == "extra_forbidden":
        known = {n for m in (Machine, Speed, Figure, FFNConfig) for n in m.model_fields}
        return f"{at}: no such field{nearest(str(loc[-1]), known)}"
    if kind == "missing":
        return f"{at}: is missing"
    return f"{at}: {message.removeprefix('Value error, ')}"
