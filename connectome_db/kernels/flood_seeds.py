"""Where flood-filling starts: points far from every edge (Januszewski et al. 2018, 10.1038/s41592-018-0049-4).

Edges are where the Sobel gradient exceeds its own local mean; seeds are the local maxima of the distance to the nearest
edge. Most seeds are never used: they lie in objects that earlier seeds have filled by then.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Order = Literal["forward", "backward"]

_EDGE_MEAN_VX = 49.0 / 6.0
"""Standard deviation of the Gaussian over which an edge is compared with its surroundings."""
APART_VX = 3
"""Two seeds are more than this far apart along at least one axis, and so far from the border of the image."""
_NOISE = 1e-4
"""Equal distances are told apart by noise below this, always the same for one shape."""


def boundary_distance(image: npt.NDArray[np.uint8], tissue: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.float32]:
    """Distance in voxels to the nearest edge: image uint8 (z, y, x) -> float32 (z, y, x), 0 on edges.

    What `tissue` (bool, same shape) excludes counts as edge. An image without any edge is measured from its border.
    """
    edges = ndimage.generic_gradient_magnitude(image.astype(np.float32), ndimage.sobel)
    inside = edges <= ndimage.gaussian_filter(edges, _EDGE_MEAN_VX, mode="reflect")
    if tissue is not None:
        inside &= tissue
    if inside.all():
        return ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1, 1:-1].astype(np.float32)
    return ndimage.distance_transform_edt(inside).astype(np.float32)


def boundary_peaks(
    image: npt.NDArray[np.uint8], tissue: npt.NDArray[np.bool_] | None = None, order: Order = "forward"
) -> npt.NDArray[np.int64]:
    """Seeds (n, 3) of z, y, x in raster order, or from the end of the image with `order` "backward".

    The order decides which of two overlapping objects keeps the voxels that both claim, so that two orders give two
    segmentations for a consensus.
    """
    noise = np.random.RandomState(42).random_sample(image.shape) * _NOISE  # the published stream and seed
    height = boundary_distance(image, tissue) + noise
    top = ndimage.maximum_filter(height, size=2 * APART_VX + 1, mode="constant") == height
    inner = (slice(APART_VX, -APART_VX),) * 3
    peaks = np.argwhere(top[inner]) + APART_VX
    if tissue is not None:
        peaks = peaks[tissue[tuple(peaks.T)]]
    return np.ascontiguousarray(peaks[::-1] if order == "backward" else peaks)
