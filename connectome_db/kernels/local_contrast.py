"""Local contrast normalisation: every neighbourhood of a section gets the same mean and spread of grey values."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
F32 = npt.NDArray[np.float32]

MEAN_GREY, SPREAD_GREY = 128.0, 32.0
"""What the image is normalised to as a whole, and what networks were trained on."""
_LEAST_GREY = 2.0
"""Spread below which there is nothing to bring out but noise."""


def equalise(image: U8, sigma_px: float) -> U8:
    """Bring each place of each section of `image` uint8 (z, y, x) to mean 128 and spread 32.

    Mean and spread are taken under a Gaussian of standard deviation `sigma_px` over covered pixels (not 0). Pixels that
    no tile covers stay 0. Where stain is weak this raises membranes, and noise with them. It is the local contrast
    normalisation of Jarrett, Kavukcuoglu, Ranzato and LeCun (2009, ICCV).
    """
    out = np.zeros_like(image)
    for z in range(len(image)):
        covered = (image[z] > 0).astype(np.float32)
        share = _blur(covered, sigma_px)
        grey = image[z].astype(np.float32)
        mean = _blur(grey * covered, sigma_px) / np.maximum(share, 1e-3)
        off = (grey - mean) * covered
        spread = np.sqrt(_blur(off * off, sigma_px) / np.maximum(share, 1e-3))
        value = MEAN_GREY + off * (SPREAD_GREY / np.maximum(spread, _LEAST_GREY))
        out[z] = np.where(covered > 0, np.clip(np.rint(value), 1, 255), 0).astype(np.uint8)
    return out


def _blur(plane: F32, sigma_px: float) -> F32:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT_101), np.float32)
