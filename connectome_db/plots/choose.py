"""Which picture suits the answer of a query: chosen by the query's name and the columns of its rows, and said."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import pyarrow as pa

from connectome_db.plots import about as read
from connectome_db.plots.against_null import rich_club, statistics
from connectome_db.plots.bars import bars, changes
from connectome_db.plots.communities import communities
from connectome_db.plots.curves import binned, stability
from connectome_db.plots.degrees import degrees
from connectome_db.plots.density import density
from connectome_db.plots.distribution import distribution
from connectome_db.plots.matrix import groups, of_rows
from connectome_db.plots.motifs import motif_table
from connectome_db.plots.paths import paths
from connectome_db.plots.picture import Picture
from connectome_db.plots.sankey import sankey

Draw = Callable[[pa.Table, str], Picture]
GROUPED = ("source", "pre_group", "pre_type", "pre_roi", "from_group", "from_type")
COUNTS = ("synapses", "connections", "weight")


@dataclass(frozen=True)
class _Choice:
    what: str
    draw: Draw
    words: tuple[str, ...]
    """A query whose name holds one of these is drawn so when its columns allow it."""
    wants: tuple[tuple[str, ...], ...]
    """Of each of these, one column is needed."""


def _places() -> tuple[tuple[str, ...], ...]:
    return tuple((f"{a}_nm", f"{a}0_nm", f"{a}_um") for a in "zyx")


FOUND = ("observed", "count", "triads", "occurrences")
MEASURED = ("observed", "value")
SHARES = ("connections_share", "synapses_share", "neurons_share")
NUMBERS = ("neurons", "synapses", "connections", "rows", "voxels", "share")
CHOICES = (
    _Choice("motif table", motif_table, ("motif", "triad"), (("motif", "triad"), FOUND)),
    _Choice("rich-club curve", rich_club, ("rich",), (("degree", "k"), ("observed", "rich_club", "phi", "density"))),
    _Choice("statistics", statistics, ("summary", "small"), (("statistic", "measure", "metric"), MEASURED)),
    _Choice("sizes of communities", communities, ("communit",), (("community",), ("neuron", "neurons", "size"))),
    _Choice(
        "degree distribution",
        degrees,
        ("degree", "strength"),
        (("direction",), ("partners", "degree", "synapses", "strength"), ("neurons", "count")),
    ),
    _Choice(
        "degree distribution",
        degrees,
        ("degree", "neurons"),
        (("partners_out", "synapses_out"), ("partners_in", "synapses_in")),
    ),
    _Choice("histogram in bins", binned, ("strength", "distribution"), (("at_least",), ("below",), ("count",))),
    _Choice("curve over a threshold", stability, ("stability",), (("min_synapses", "min_confidence"), SHARES)),
    _Choice("connections before and after", changes, ("comparison",), (("synapses_a",), ("synapses_b",), ("what",))),
    _Choice("bars", bars, ("completeness", "by_region", "by_type"), (("group", "roi", "type", "region"), NUMBERS)),
    _Choice("map of synapses", density, ("density", "in_box", "map"), _places()),
    _Choice(
        "diagram of paths",
        paths,
        ("path", "hop"),
        (("step", "path"), ("neuron", "steps")),
    ),
    _Choice("matrix of groups", groups, ("matrix",), (GROUPED, COUNTS)),
    _Choice("Sankey diagram", sankey, ("flow", "region", "roi"), (GROUPED, COUNTS)),
    _Choice("matrix of neurons", of_rows, ("adjacency", "matrix", "connections"), (("pre",), ("post",), COUNTS)),
)


def choice_of(columns: Collection[str], name: str = "") -> tuple[str, Draw, str] | None:
    """(What the picture is, what draws it, why) for rows of these columns; None when only numbers can be drawn."""
    fitting = [c for c in CHOICES if all(set(one) & set(columns) for one in c.wants)]
    named = [c for c in fitting if any(w in name.lower() for w in c.words)]
    if "path" in name.lower() and {"pre", "post"} <= set(columns):
        return "diagram of paths", paths, f"the query is called {name}"
    if named:
        return named[0].what, named[0].draw, f"the query is called {name}"
    if fitting:
        found = ", ".join(next(n for n in one if n in columns) for one in fitting[0].wants)
        return fitting[0].what, fitting[0].draw, f"the rows have {found}"
    return None


def picture_of(rows: pa.Table, about: str = "", name: str = "") -> tuple[Picture, str]:
    """(Picture, what it is and why in a sentence) of the answer of a query called `name` ("" for SQL).

    A name that speaks of a picture is heard first, then the columns; where neither fits, the numbers are drawn as
    distributions. Raises QueryError when there are no rows, or no numbers.
    """
    read.refuse_empty(rows, "rows")
    chosen = choice_of(rows.column_names, name)
    if chosen is None:
        return distribution(rows, about), "distribution of the numbers, since the columns fit no other picture"
    what, draw, why = chosen
    return draw(rows, about), f"{what}, because {why}"
