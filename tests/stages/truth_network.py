"""Networks that read the truth: grey levels are the colours of labels, and affinities are exact."""

from __future__ import annotations

from dataclasses import dataclass, field

import cc3d
import numpy as np


def colour(labels: np.ndarray) -> np.ndarray:
    """Labels (z, y, x) -> uint8 in which touching labels differ; 0 stays 0 (greedy colouring in label order)."""
    _, dense = np.unique(np.append(0, labels.ravel()), return_inverse=True)
    dense = dense[1:].reshape(labels.shape)
    neighbours: dict[int, set[int]] = {}
    for axis in range(3):
        a = np.moveaxis(dense, axis, 0)
        apart = a[1:] != a[:-1]
        for u, v in np.unique(np.stack([a[1:][apart], a[:-1][apart]], axis=1), axis=0).tolist():
            neighbours.setdefault(u, set()).add(v)
            neighbours.setdefault(v, set()).add(u)
    level = np.zeros(int(dense.max()) + 1, np.uint8)
    for label in range(1, len(level)):
        used = {int(level[n]) for n in neighbours.get(label, ())}
        level[label] = next(c for c in range(1, 255) if c not in used)
    return level[dense]


@dataclass(frozen=True)
class TruthAffinity:
    """Affinity 1 between equal grey levels other than 0, plus smooth noise that depends on the voxel's surroundings."""

    noise: float = 0.0
    model_id: str = "truth-affinity@000000000000"
    channels: tuple[str, ...] = ("aff_x1", "aff_z1", "aff_y1")
    margin_vx: tuple[int, int, int] = (1, 1, 1)
    alignment_vx: tuple[int, int, int] = (1, 4, 4)

    def predict(self, image: np.ndarray) -> np.ndarray:
        out = np.zeros((len(self.channels), *image.shape), np.float32)
        rng = np.random.default_rng(int(image.sum()))
        for k, name in enumerate(self.channels):
            axis, step = "zyx".index(name[4]), int(name[5:])
            a = np.moveaxis(image, axis, 0)
            same = np.zeros(a.shape, np.float32)
            same[step:] = (a[step:] == a[:-step]) & (a[step:] > 0)
            same[:step] = a[:step] > 0
            out[k] = np.moveaxis(same, 0, axis)
        if self.noise:
            out += rng.normal(0, self.noise, out.shape).astype(np.float32)
        return np.clip(out, 0, 1)


@dataclass(frozen=True)
class TruthCleft:
    """An image of levels 0 none, 50 pre side, 100 cleft, 150 post side, read back as probabilities."""

    model_id: str = "truth-cleft@000000000000"
    channels: tuple[str, ...] = ("cleft", "pre", "post")
    margin_vx: tuple[int, int, int] = (0, 0, 0)
    alignment_vx: tuple[int, int, int] = (1, 8, 8)

    def predict(self, image: np.ndarray) -> np.ndarray:
        return np.stack([image == level for level in (100, 50, 150)]).astype(np.float32) * np.float32(0.9)


@dataclass(frozen=True)
class TruthWindow:
    """A flood-filling network for images of colours: the piece of the middle's colour is the object, as far as seen."""

    model_id: str = "truth-window@000000000000"
    fov_vx: tuple[int, int, int] = (9, 25, 25)
    deltas_vx: tuple[int, int, int] = (2, 5, 5)
    batch: int = 1
    blind: int = 0
    """A colour that it never fills."""

    def predict(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        assert images.shape == masks.shape == (self.batch, *self.fov_vx)
        centre = tuple(n // 2 for n in self.fov_vx)
        out = np.full(images.shape, -4, np.float32)
        for row, image in zip(out, images, strict=True):
            if image[centre] and image[centre] != self.blind:
                parts = cc3d.connected_components(image == image[centre], connectivity=6)
                row[parts == parts[centre]] = 4
        return out


@dataclass(frozen=True)
class WatchingWindow(TruthWindow):
    """One that keeps the lowest grey level of every window that it saw."""

    lowest: list[int] = field(default_factory=list)

    def predict(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        self.lowest.append(int(images.min()))
        return super().predict(images, masks)
