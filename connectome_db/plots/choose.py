"""Which picture suits the answer of a query: chosen by the query's name and the columns of its rows, and said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from connectome_db.plots import about as read
from connectome_db.plots.against_null import rich_club, statistics
from connectome_db.plots.communities import communities
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
    _Choice("map of synapses", density, ("density", "in_box", "map"), _places()),
    _Choice(
        "diagram of paths",
        paths,
        ("path", "hop"),
        (("path", "rank"), ("step", "steps", "hop", "position"), ("neuron",)),
    ),
    _Choice("matrix of groups", groups, ("matrix",), (GROUPED, COUNTS)),
    _Choice("Sankey diagram", sankey, ("flow", "region", "roi"), (GROUPED, COUNTS)),
    _Choice("matrix of neurons", of_rows, ("adjacency", "matrix", "connections"), (("pre",), ("post",), COUNTS)),
)


def picture_of(rows: pa.Table, about: str = "", name: str = "", title: str = "") -> tuple[Picture, str]:
    """(Picture, what it is and why in a sentence) of the answer of a query called `name` ("" for SQL).

    A name that speaks of a picture is heard first, then the columns; where neither fits, the numbers are drawn as
    distributions. Raises QueryError when there are no rows, or no numbers.
    """
    read.refuse_empty(rows, "rows")
    fitting = [c for c in CHOICES if all(set(one) & set(rows.column_names) for one in c.wants)]
    named = [c for c in fitting if any(w in name.lower() for w in c.words)]
    if "path" in name.lower() and {"pre", "post"} <= set(rows.column_names):
        chosen, why = _Choice("diagram of paths", paths, (), ()), f"the query is called {name}"
    elif named:
        chosen, why = named[0], f"the query is called {name}"
    elif fitting:
        chosen = fitting[0]
        why = "the rows have " + ", ".join(next(n for n in one if n in rows.column_names) for one in chosen.wants)
    else:
        picture = distribution(rows, about, title=title or "Distribution")
        return picture, "distribution of the numbers, since the columns fit no other picture"
    picture = chosen.draw(rows, about)
    return picture, f"{chosen.what}, because {why}"
