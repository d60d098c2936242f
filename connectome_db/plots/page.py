"""A picture as a page of its own: the figure, the numbers behind it, and for neurons a model to turn.

One file, no request to anywhere; the scripts are constant and named by their digest in the page's policy, so that
nothing that stands in the data can run.
"""

from __future__ import annotations

import json

import pyarrow as pa

from connectome_db.diagnosis.pages.html_tags import Markup, data_uri, document, join, section, table, tag
from connectome_db.plots.model_view import MODEL_SCRIPT
from connectome_db.plots.picture import Picture, svg_of, to_bytes

MOST_ROWS = 300


def page(picture: Picture) -> str:
    """The HTML of the page."""
    figure = Markup(svg_of(picture))
    # white in the dark theme too: the figure's own text is black
    look = "background:#fff;border-radius:8px;padding:.5rem"
    card = tag("div", figure, role="img", aria_label=f"{picture.title}. {picture.says}", style=look)
    body = [tag("h1", picture.title), tag("p", picture.about, class_="muted"), tag("p", picture.says, class_="lead")]
    links = [("figure", "Figure")]
    if picture.scene:
        links.insert(0, ("model", "Model"))
        body.append(section("model", "Model to turn", _model(picture)))
    body.append(section("figure", "Figure", tag("figure", card)))
    if picture.rows is not None and picture.rows.num_rows:
        links.append(("numbers", "Numbers"))
        body.append(section("numbers", "Numbers", _numbers(picture.rows)))
    footer = tag("p", "Made by connectome_db. This page holds all that it shows.")
    scripts = (MODEL_SCRIPT,) if picture.scene else ()
    return document(f"{picture.title} · {picture.about}", join(body), links, footer, scripts)


def inline(picture: Picture) -> str:
    """An image for a notebook: PNG, because parts of several SVGs in one page would share their names."""
    address = data_uri(to_bytes(picture, ".png"), "image/png")
    return tag("img", src=address, alt=f"{picture.title}. {picture.says}", style="max-width:100%")


def _model(picture: Picture) -> Markup:
    # "<" must not end the element, whatever a neuron is called
    content = json.dumps(picture.scene, separators=(",", ":")).replace("<", "\\u003c")
    return join(
        [
            tag("p", "Drag or use the arrow keys to turn; the wheel brings it nearer.", class_="small muted"),
            tag("div", tag("button", "Turn by itself", type="button", id="spin", class_="js"), id="shown"),
            tag(
                "canvas", id="space", tabindex="0", role="img", aria_label=picture.says,
                style="width:100%;height:34rem;max-height:80vh;background:#fff;border:1px solid var(--line);"
                "border-radius:8px;touch-action:none;cursor:grab;margin-top:.5rem",
            ),
            Markup(f'<script type="application/json" id="scene">{content}</script>'),
        ]
    )  # fmt: skip


def _numbers(rows: pa.Table) -> Markup:
    shown = rows.slice(0, MOST_ROWS)
    number = {f.name for f in rows.schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)}
    head = [tag("th", c, scope="col", class_="number" if c in number else None) for c in rows.column_names]
    lines = [
        tag("tr", *(tag("td", _text(v), class_="number" if c in number else None) for c, v in r.items()))
        for r in shown.to_pylist()
    ]
    caption = f"{rows.num_rows:,} rows" + (f", the first {MOST_ROWS}" if rows.num_rows > MOST_ROWS else "")
    return table(head, lines, caption)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
