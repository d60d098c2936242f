"""The section `qa` of params.yaml: what is expected of the data beyond the schema, and what follows when it is not met.

Nothing here enters the key of any unit: an edit recomputes no data, it only has the results judged again.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from connectome_db.errors import nearest
from connectome_db.spec import Params

Severity = Literal["info", "warning", "error"]
Strict = Literal["off", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
"""The gravest first."""

_LIMITS = ("_min", "_max", "_range")
WITHOUT_LIMIT = ("sections_placed", "connection_sums", "neuron_sums", "object_sizes")
"""Expectations that hold or do not: there is nothing to choose about them but their severity."""

Share = Annotated[float, Field(ge=0, le=1)] | None
Amount = Annotated[float, Field(ge=0)] | None


class QaParams(Params):
    """What is expected of the data. A limit of null turns an expectation off."""

    strict: Strict = "off"
    """When `dvc repro` fails: off (never), error (when an expectation of severity error is not met), or warning (also
    at one of severity warning)."""
    severity: dict[str, Literal["off", "info", "warning", "error"]] = Field(default_factory=dict)
    """Expectations that weigh more or less here than by default, e.g. {coverage: error, tile_noise: off}."""

    unusable_tiles_max: Share = 0.0
    """Share of a section's tiles that could not be used."""
    tile_valid_min: Share = 0.5
    """Share of a tile's pixels that are not black border."""
    tile_saturation_max: Share = 0.05
    """Share of a tile's valid pixels at the ends of the grey range."""
    tile_sharpness_min: Amount = 0.3
    """Sharpness of a tile against the median of the dataset."""
    tile_contrast_min: Amount = 0.4
    """Membrane contrast of a tile: depth of dark ridges over the spread of its grey values."""
    tile_noise_max: Amount = 0.5
    """Noise of a tile over the spread of its grey values."""
    section_grey_step_max: Amount = 60.0
    """Change of the mean grey value from one section to the next, in grey values."""
    section_gap_max: Annotated[int, Field(ge=0)] | None = 1
    """Sections that may be lost in a row."""

    tile_matches_min: Share = 0.5
    """Share of a section's tile matches that carry weight in the montage."""
    tile_residual_px_max: Amount = 1.5
    """Median distance that is left between tiles of a section at their accepted matches."""
    loose_tiles_max: Share = 0.0
    """Share of a section's tiles that no chain of matches links to its largest group."""
    section_matches_min: Share = 0.3
    """Share of the matches of two neighbouring sections that were accepted."""
    section_residual_px_max: Amount = 4.0
    """Median distance that is left between a section and the ones it was matched to."""
    coverage_min: Amount = 0.8
    """What tiles cover of a section in the volume, against the median of the sections."""
    masked_max: Share = 0.3
    """Share of a block inside the tissue's outline that is fold, crack, blank or low signal."""

    tissue_in_objects_min: Amount = 0.6
    """Voxels of objects over voxels of tissue."""
    overlap_accepted_min: Share = 0.25
    """Share of the voxels, claimed by both sides of a block face, whose overlaps were accepted."""
    largest_object_max: Share = 0.5
    """Share of all objects' volume that the largest one has."""
    weak_merges_max: Share = 0.2
    """Share of the merged contact area whose score was below 0.5."""
    borderline_max: Amount = 0.5
    """Pairs of objects left apart near the threshold, per object."""

    synapse_density_range: Annotated[tuple[float, float], Field()] | None = (0.1, 15.0)
    """Lowest and highest plausible number of detected synapses per cubic micrometre of tissue."""
    synapse_confidence_min: Share = 0.6
    """Median confidence of the synapses."""
    synapse_polarity_min: Share = 0.2
    """Median evidence for the direction of the synapses."""
    counted_min: Share = 0.7
    """Share of the synapses (repeats left out) that count in a connection."""
    duplicates_max: Share = 0.2
    """Share of the synapses that repeat what another block saw."""
    autapses_max: Share = 0.05
    """Share of the synapses (repeats left out) of a neuron onto itself."""
    unconnected_max: Share = 0.6
    """Share of the neurons without a counted synapse."""
    connection_synapses_max: Amount = 200.0
    """Synapses of one connection."""
    serious_flags_max: Annotated[int, Field(ge=0)] | None = 0
    """Regions flagged as serious by the stage `flag`, where there is one."""

    @field_validator("strict", mode="before")
    @classmethod
    def _yaml_off(cls, value: Any) -> Any:
        return "off" if value is False else value  # `off` is a truth value in YAML 1.1

    @field_validator("severity", mode="before")
    @classmethod
    def _known(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name in value:
            if name not in names():
                raise ValueError(f"no expectation {name!r}{nearest(str(name), names())}")
        return {name: "off" if weight is False else weight for name, weight in value.items()}

    @field_validator("synapse_density_range")
    @classmethod
    def _ordered(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 <= value[0] < value[1]:
            raise ValueError("wanted (lowest, highest), both 0 or more")
        return value

    def limits(self, name: str) -> tuple[float | None, float | None] | None:
        """Lowest and highest value that an expectation allows; None when it was turned off."""
        value = getattr(self, f"{name}{_FIELDS[name]}")
        if value is None:
            return None
        match _FIELDS[name]:
            case "_min":
                return float(value), None
            case "_max":
                return None, float(value)
            case _:
                return float(value[0]), float(value[1])


_FIELDS: dict[str, str] = {
    field.removesuffix(end): end for field in QaParams.model_fields for end in _LIMITS if field.endswith(end)
}
"""Expectation -> how the field that holds its limit ends."""


def names() -> tuple[str, ...]:
    """Names of all expectations that go beyond the schema."""
    return (*_FIELDS, *WITHOUT_LIMIT)
