"""What the pixels of a raw tile look like: brightness, focus, noise and how clearly membranes stand out."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from connectome_db.kernels.border import valid_mask

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]

cv2.setNumThreads(1)

_PATCH_PX = 256
_LEAST_PX = 32


@dataclass(frozen=True)
class TileQuality:
    """See the columns of the table `tile`."""

    valid_fraction: float
    mean: float
    std: float
    saturation: float
    sharpness: float
    noise: float
    membrane_contrast: float


def tile_quality(tile: U8) -> TileQuality:
    """Measure one tile, uint8 (y, x). A tile without valid pixels gets zeros."""
    valid = valid_mask(tile)
    count = np.bincount(tile[valid], minlength=256).astype(np.int64)
    total = int(count.sum())
    if total == 0:
        return TileQuality(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    level = np.arange(256, dtype=np.int64)
    mean = int((count * level).sum()) / total
    std = float(np.sqrt(max(int((count * level * level).sum()) / total - mean * mean, 0.0)))
    noise = noise_std(tile, valid)
    return TileQuality(
        valid_fraction=total / tile.size,
        mean=mean,
        std=std,
        saturation=int(count[0] + count[255]) / total,
        sharpness=sharpness(tile, valid),
        noise=noise,
        membrane_contrast=membrane_contrast(tile, valid, noise),
    )


def noise_std(tile: U8, valid: Bool) -> float:
    """Standard deviation of white noise, in grey values (Immerkaer 1996, CVIU 64(2)).

    The mask is the difference of two Laplacians, blind to slopes and edges; the median takes the mean's place, so that
    texture, which is sparse under this mask, hardly counts.
    """
    mask = np.asarray([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
    inner = cv2.erode(valid.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    if not inner.any():
        return 0.0
    response = np.abs(cv2.filter2D(tile.astype(np.float32), cv2.CV_32F, mask))[inner]
    return float(np.median(response)) / (6.0 * 0.67449)


def sharpness(tile: U8, valid: Bool) -> float:
    """Share of the power above the noise that lies between 0.1 and 0.3 cycles/px; defocus takes it away first.

    Spectral sharpness as in Vladar, Postek and Davidson (1998, Scanning 20), over at most 16 valid patches of 256 px;
    the noise floor is the power above 0.42 cycles/px. Where none is wholly valid (in a small tile that is one patch,
    one speck at the border is enough), patches are halved, down to 32 px; 0 when not even such a one is.
    """
    size = min(_PATCH_PX, *tile.shape)
    power = _power(tile, valid, size)
    while power is None and size >= 2 * _LEAST_PX:
        size //= 2
        power = _power(tile, valid, size)
    if power is None:
        return 0.0
    radius = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    signal = np.maximum(power - float(np.median(power[(radius > 0.42) & (radius < 0.5)])), 0.0)
    whole = float(signal[(radius > 2.5 / size) & (radius < 0.42)].sum())
    return float(signal[(radius >= 0.1) & (radius < 0.3)].sum()) / whole if whole > 0 else 0.0


def _power(tile: U8, valid: Bool, size: int) -> npt.NDArray[np.float64] | None:
    """Sum of the power spectra (size, size // 2 + 1) of up to 16 wholly valid patches; None when there is none."""
    rows = np.unique(np.linspace(0, tile.shape[0] - size, 4).astype(int))
    cols = np.unique(np.linspace(0, tile.shape[1] - size, 4).astype(int))
    window = np.hanning(size)[:, None] * np.hanning(size)[None, :]
    power, seen = np.zeros((size, size // 2 + 1)), 0
    for y in rows.tolist():
        for x in cols.tolist():
            if valid[y : y + size, x : x + size].all():
                patch = tile[y : y + size, x : x + size].astype(np.float64)
                power += np.abs(np.fft.rfft2((patch - patch.mean()) * window)) ** 2
                seen += 1
    return power if seen else None


def membrane_contrast(tile: U8, valid: Bool, noise: float) -> float:
    """How deep dark ridges (membranes) are against the spread of the image without its noise; 0 to 1 or more.

    Depth: the mean of the top tenth of the scale-normalised ridge strength sigma^2 * max(eigenvalue of the Hessian, 0)
    at sigma = 2 px (Lindeberg 1998, IJCV 30(2)). Spread: the image's variance minus the noise's, at that same sigma.
    """
    sigma = 2.0
    smooth = cv2.GaussianBlur(tile.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)
    reach = 2 * round(3 * sigma) + 1
    inner = cv2.erode(valid.astype(np.uint8), np.ones((reach, reach), np.uint8), borderValue=0).astype(bool)
    if int(inner.sum()) < 100:
        return 0.0
    ridge = ridge_strength(smooth)[inner] * sigma * sigma
    top = ridge[ridge >= np.quantile(ridge, 0.9)]
    left = noise / (2.0 * np.sqrt(np.pi) * sigma)  # of white noise, after the Gaussian
    spread = float(np.sqrt(max(float(smooth[inner].astype(np.float64).var()) - left * left, 0.0)))
    return float(np.maximum(top, 0.0).astype(np.float64).mean()) / spread if spread > 0.5 else 0.0


def ridge_strength(smooth: F32) -> F32:
    """Larger eigenvalue of the Hessian of a smoothed image (y, x): positive across dark lines."""
    yy = cv2.Sobel(smooth, cv2.CV_32F, 0, 2, ksize=3, scale=0.25)
    xx = cv2.Sobel(smooth, cv2.CV_32F, 2, 0, ksize=3, scale=0.25)
    xy = cv2.Sobel(smooth, cv2.CV_32F, 1, 1, ksize=3, scale=0.25)
    half = 0.5 * (yy - xx)
    return np.asarray(0.5 * (yy + xx) + np.sqrt(half * half + xy * xy), dtype=np.float32)
