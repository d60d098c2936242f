"""HTML that is safe by construction: whatever is not `Markup` already is escaped when it becomes part of a page.

A page is one file without external requests; its content security policy lets the browser load nothing but what the
file itself holds, and run no script but the page's own.
"""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Iterable, Sequence

from connectome_db.diagnosis.pages.style import CSS, SCRIPT

_MARKS = {
    **{"serious": "▲", "error": "▲", "warning": "◆", "info": "●", "no flags": "○"},
    **{"not measured": "–", "not searched": "–"},
}
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_VOID = {"meta", "img", "br", "hr", "rect", "line", "circle", "path", "image", "polygon", "use"}


class Markup(str):
    """Text that is HTML already. Made here only, from escaped parts."""

    __slots__ = ()


def esc(text: object) -> Markup:
    """Any value as text of a page; Markup stays as it is."""
    if isinstance(text, Markup):
        return text
    # Control characters are not allowed in HTML, and hide what a browser or terminal would make of a copied command.
    clean = "".join(c if c >= " " or c in "\n\t" else "\ufffd" for c in str(text))
    return Markup(html.escape(clean, quote=True))


def join(parts: Iterable[object]) -> Markup:
    """Parts one after the other, escaped."""
    return Markup("".join(esc(p) for p in parts))


def tag(name: str, /, *inside: object, **attributes: object) -> Markup:
    """An element: `tag("td", text, class_="number", data_severity="info")`. None and False leave an attribute out."""
    told = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        told.append(f" {label}" if value is True else f' {label}="{esc(value)}"')
    if name in _VOID and not inside:
        return Markup(
            f"<{name}{''.join(told)}>" if name in {"meta", "img", "br", "hr"} else f"<{name}{''.join(told)}/>"
        )
    return Markup(f"<{name}{''.join(told)}>{join(inside)}</{name}>")


def number(value: float, digits: int = 4) -> str:
    """A number with some significant digits; whole from 1,000 on, with a power of ten from a million on."""
    if not math.isfinite(value):
        return "not a number"
    if 1000 <= abs(value) < 1e6:
        return f"{value:,.0f}".replace("-", "−")
    told, _, power = f"{value:.{digits}g}".replace("-", "−").partition("e")
    if power or abs(value) >= 1e6:
        told, _, power = f"{value:.{digits - 1}e}".partition("e")
        told = f"{float(told):g}×10{str(int(power)).translate(_RAISED)}"
    return told.replace("-", "−")


def unit_of(measure: str) -> str:
    """A unit of measure as it is written after a number; "1" has none."""
    return {"1": "", "um-3": "µm⁻³", "nm3": "nm³", "log10 um3": "log₁₀ µm³"}.get(measure, measure)


def text_of(value: float, measure: str = "1") -> str:
    """A number with four digits and its unit of measure."""
    return f"{number(value)} {unit_of(measure)}".rstrip()


def ends_of(low: float, high: float) -> tuple[str, str]:
    """Both ends of a range, with as many digits as it takes to tell them apart."""
    for digits in range(3, 8):
        ends = number(low, digits), number(high, digits)
        if ends[0] != ends[1]:
            break
    return ends


def percent(fraction: float) -> str:
    """A fraction as a percentage, with its sign where it is negative."""
    digits = 1 if abs(fraction) < 0.0995 else 0
    return f"{100 * fraction:.{digits}f} %".replace("-", "−")


def box_um(box_nm: Sequence[float]) -> str:
    """A box (z0, y0, x0, z1, y1, x1) in nm, told in micrometres."""
    return ", ".join(f"{a} {box_nm[k] / 1000:.4g}–{box_nm[k + 3] / 1000:.4g}" for k, a in enumerate("zyx")) + " µm"


def command(text: str) -> Markup:
    """A shell command with a button that copies it."""
    button = tag("button", "Copy", type="button", class_="copy js", aria_label=f"Copy: {text}")
    return tag("div", tag("code", text), button, class_="command")


def table(head: Sequence[object], rows: Iterable[Markup], caption: str, class_: str = "") -> Markup:
    """A table that scrolls sideways where the screen is narrow; `rows` are <tr> elements."""
    top = tag("thead", tag("tr", *(h if isinstance(h, Markup) else tag("th", h, scope="col") for h in head)))
    inner = tag("table", tag("caption", caption), top, tag("tbody", *rows), class_=class_ or None)
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def section(name: str, title: str, *body: object) -> Markup:
    """A part of the page with a heading that can be linked to."""
    return tag("section", tag("h2", title, id=name), *body, aria_labelledby=name)


def severity(word: str) -> Markup:
    """A severity as a word with a mark of its own shape, so that it does not rest on colour."""
    mark = _MARKS.get(word, "?")
    known = word.replace(" ", "-") if mark != "?" else "unknown"
    return tag("span", tag("span", mark, aria_hidden="true"), f" {word}", class_=f"severity {known}")


def data_uri(content: bytes, kind: str) -> str:
    """Bytes as an address that needs no request; `kind` is the media type."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def document(
    title: str, body: Markup, links: Sequence[tuple[str, str]], footer: Markup, scripts: Sequence[str] = ()
) -> str:
    """A whole page. `links` are (id of a section, what the list of contents calls it).

    `scripts` are further ones that run after the page's own: constant text of this package, never made from data.
    """
    hashes = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in (SCRIPT, *scripts)]
    allowed = " ".join(f"'sha256-{h}'" for h in hashes)
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src {allowed}; base-uri 'none'; form-action 'none'"
    )
    head = join(
        [
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=policy),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("meta", name="color-scheme", content="light dark"),
            tag("title", title),
            Markup(f"<style>{CSS}</style>"),
        ]
    )
    contents = tag("nav", *(tag("a", text, href=f"#{name}") for name, text in links), aria_label="Contents")
    theme = tag("button", "Light or dark", type="button", class_="theme js")
    page = join(
        [
            tag("a", "Skip to the content", class_="skip", href="#content"),
            tag("header", tag("div", contents, theme, class_="bar")),
            tag("main", body, id="content"),
            tag("footer", footer),
            *(Markup(f"<script>{s}</script>") for s in (SCRIPT, *scripts)),
        ]
    )
    return f'<!DOCTYPE html>\n<html lang="en">\n<head>{head}</head>\n<body>{page}</body>\n</html>\n'
