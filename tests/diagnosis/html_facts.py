"""What a page holds, read with Python's own HTML parser."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "hr", "input", "link"}


class Facts(HTMLParser):
    """Elements in their order as (name, attributes), the text, and whether tags close as they opened."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(text)
        self.close()
        self.unbalanced += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {k: v or "" for k, v in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if not self._open or self._open[-1] not in {"script", "style"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, name: str, **wanted: str) -> list[dict[str, str]]:
        """Attributes of the elements of a name that have the wanted ones (`_` for `-`)."""
        return [
            a
            for n, a in self.elements
            if n == name and all(a.get(k.rstrip("_").replace("_", "-")) == v for k, v in wanted.items())
        ]

    def requests(self) -> list[str]:
        """Every address that a browser would fetch by itself."""
        found = []
        for name, attributes in self.elements:
            for key, value in attributes.items():
                fetched = key in {"src", "srcset", "data", "poster", "action", "background", "xlink:href"}
                fetched |= key == "href" and name != "a"
                if fetched and not value.startswith(("data:", "#")):
                    found.append(f"{name} {key}={value[:60]}")
        return found
