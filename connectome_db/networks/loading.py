"""A model folder -> a network ready to use, of whichever kind it is."""

from __future__ import annotations

from pathlib import Path

from connectome_db.networks.ffn import FloodNetwork, load_ffn
from connectome_db.networks.inference import Network, load_network
from connectome_db.networks.registry import read_architecture


def load_model(folder: Path, *, flood_batch: int = 1) -> Network | FloodNetwork:
    """Read a model folder (see `networks.registry`); `flood_batch` is the batch of a flood-filling network.

    A folder whose weights do not fit is a ConfigError.
    """
    if read_architecture(folder).get("kind") == "ffn":
        return load_ffn(folder, batch=flood_batch)
    return load_network(folder)
