"""A provenance-first connectome database. `connectome_db.open("project")` opens one.

This file alone of its kind is not empty: it names the one function that people call, and imports nothing until they do,
so commands start as fast and the code digest of a stage reaches no further.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from connectome_db.api.connectome import open_connectome as open  # noqa: A004  # as in tifffile.open, zarr.open

__all__ = ["open"]


def __getattr__(name: str) -> Any:
    if name == "open":
        from connectome_db.api.connectome import open_connectome  # noqa: PLC0415  # nothing is loaded before it is used

        return open_connectome
    raise AttributeError(f"module 'connectome_db' has no attribute {name!r}; it has `open`")
