"""What a picture is, and how it becomes a file: PNG and SVG by matplotlib, HTML that asks for nothing from outside.

The same picture gives the same bytes in the same environment: no date is written, and the names of parts inside an SVG
are seeded.
"""

from __future__ import annotations

import io
import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import pyarrow as pa
from matplotlib.figure import Figure

from connectome_db.errors import QueryError

FORMATS = (".png", ".svg", ".html")
DOTS_PER_INCH = 150
STYLE: Mapping[str, Any] = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.axisbelow": True,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "svg.hashsalt": "connectome_db",
    "svg.fonttype": "path",
    "text.parse_math": False,
}
"""What differs from matplotlib's defaults. Names of neurons may hold a $: they are never read as formulas."""
OUT_COLOUR, IN_COLOUR, NULL_COLOUR = "#4477aa", "#ee6677", "#999999"
"""Where a neuron is presynaptic, where it is postsynaptic, and what a null model gives."""


@dataclass(frozen=True)
class Picture:
    """A picture that can be saved. Made by the functions of this package."""

    figure: Figure
    title: str
    """What is shown, in one line: the title of the figure."""
    about: str
    """Of what: dataset, version, filter."""
    says: str
    """What there is to see, for those who cannot."""
    rows: pa.Table | None = None
    """The numbers drawn, shown under the figure in HTML."""
    scene: Mapping[str, Any] = field(default_factory=dict)
    """What the rotating view of the HTML page draws; empty: the page holds the figure alone."""

    def _repr_html_(self) -> str:
        """How a notebook shows it."""
        from connectome_db.plots.page import inline  # noqa: PLC0415 a page needs this module

        return inline(self)


@contextmanager
def style() -> Iterator[None]:
    """Figures made inside look alike, whatever the user's own matplotlib settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)  # type: ignore[arg-type]
        yield


def new_figure(title: str, about: str, width_in: float, height_in: float, *, placed: bool = False) -> Figure:
    """An empty figure with its title, and what it is of in grey below. Not known to pyplot, so nothing leaks.

    Its axes are laid out by matplotlib below the title, unless they are `placed` by the caller.
    """
    fig = Figure(figsize=(width_in, height_in), layout=None if placed else "constrained")
    margin_in = 0.1
    head = 0.28 if not about else 0.5
    fig.text(margin_in / width_in, 1 - 0.08 / height_in, title, fontsize=12, weight="bold", va="top")
    if about:
        fig.text(margin_in / width_in, 1 - 0.31 / height_in, about, fontsize=8.5, color="#525d6d", va="top")
    engine = fig.get_layout_engine()
    if engine is not None:
        engine.set(rect=(0, 0, 1, 1 - head / height_in))  # type: ignore[call-arg]
    return fig


def check_path(path: Path) -> Path:
    """Refuse a file name that no picture can have, before anything is computed. Raises QueryError."""
    if path.suffix.lower() not in FORMATS:
        what = f"ends in {path.suffix!r}" if path.suffix else "has no ending"
        raise QueryError(f"{path}: a picture is {', '.join(FORMATS[:-1])} or {FORMATS[-1]}, and this {what}")
    return path


def to_bytes(picture: Picture, kind: str) -> bytes:
    """The file's content; `kind` is one of FORMATS."""
    if kind == ".html":
        from connectome_db.plots.page import page  # noqa: PLC0415 a page needs this module

        return page(picture).encode()
    out = io.BytesIO()
    with style():
        if kind == ".png":
            picture.figure.savefig(out, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
        else:
            told = {"Date": None, "Creator": None, "Title": f"{picture.title}. {picture.about}"}
            picture.figure.savefig(out, format="svg", dpi=DOTS_PER_INCH, metadata=told)
    return out.getvalue()


def svg_of(picture: Picture) -> str:
    """The figure as an <svg> element for a page."""
    text = to_bytes(picture, ".svg").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text, count=1, flags=re.DOTALL)
    return text[text.index("<svg") :]


def save(picture: Picture, path: Path) -> Path:
    """Write a picture as the kind of file that its name says; whole or not at all. Returns `path`.

    Raises QueryError for another kind, or a place that cannot be written.
    """
    kind = check_path(path).suffix.lower()
    content = to_bytes(picture, kind)
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(content)
        new.replace(path)
    except OSError as e:
        with suppress(OSError):  # what keeps it from being written may keep it from being removed
            new.unlink()
        raise QueryError(f"{path}: cannot be written ({e.strerror}); choose another place") from None
    return path
