"""The coarse map between two sections: image features (Lowe 2004), then a robust affine (Fischler and Bolles 1981)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from connectome_db.kernels.correlate import bandpass, best_peaks, masked_ncc, parabola

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]
Bool = npt.NDArray[np.bool_]

cv2.setNumThreads(1)

_REMEMBERED = 8
"""Sections whose features are kept, of a few MB each."""
_MOST_FEATURES = 2000
_RATIO = 0.92


@dataclass(frozen=True)
class CoarseMap:
    """b = linear (2, 2) @ a + shift (2,), (y, x) px; how it was found, and on what evidence."""

    linear: F64
    shift_px: F64
    method: str
    features: int
    inliers: int
    rms_px: float

    @property
    def trusted(self) -> bool:
        """False for the identity that stands in where nothing was found."""
        return self.method != "identity"


def coarse_map(
    a: U8,
    b: U8,
    valid_a: Bool,
    valid_b: Bool,
    *,
    tolerance_px: float,
    min_inliers: int,
    max_strain: float,
    smooth_px: float,
) -> CoarseMap:
    """The affine map from image `a` to image `b`, uint8 (y, x).

    SIFT features that match both ways, RANSAC for a similarity (deterministic), then least squares for an affine map on
    its inliers. Refused when fewer than `min_inliers` agree within `tolerance_px`, or when lengths change by more than
    `max_strain`. Then masked correlation tries a translation (method "correlation"); failing that, the identity.
    """
    pa, pb = _matched_features(a, b, valid_a, valid_b, smooth_px)
    found = _robust_affine(pa, pb, tolerance_px)
    if found is not None:
        linear, shift, inside = found
        strain = float(np.abs(np.linalg.svd(linear, compute_uv=False) - 1.0).max())
        if int(inside.sum()) >= min_inliers and strain <= max_strain and np.linalg.det(linear) > 0:
            left = pa[inside] @ linear.T + shift - pb[inside]
            rms = float(np.sqrt((left**2).sum(axis=1).mean()))
            return CoarseMap(linear, shift, "features", len(pa), int(inside.sum()), rms)
    move = _translation(a, b, valid_a, valid_b)
    if move is not None:
        return CoarseMap(np.eye(2), np.asarray(move), "correlation", len(pa), 0, 0.0)
    return CoarseMap(np.eye(2), np.zeros(2), "identity", len(pa), 0, 0.0)


def _features(image: U8, valid: Bool, smooth_px: float) -> tuple[F64, npt.NDArray[np.float32]]:
    """Positions (N, 2) as (y, x) and root-SIFT descriptors (N, 128) (Arandjelovic and Zisserman 2012); read-only."""
    return _features_of(image.tobytes(), valid.tobytes(), image.shape, smooth_px)


@lru_cache(maxsize=_REMEMBERED)
def _features_of(
    grey: bytes, covered: bytes, shape: tuple[int, ...], smooth_px: float
) -> tuple[F64, npt.NDArray[np.float32]]:
    """The same, remembered: a section is in several pairs, which come one soon after the other."""
    image = np.frombuffer(grey, np.uint8).reshape(shape)
    valid = np.frombuffer(covered, np.bool_).reshape(shape)
    where, descriptors = _detect(image, valid, smooth_px)
    where.flags.writeable = descriptors.flags.writeable = False
    return where, descriptors


def _detect(image: U8, valid: Bool, smooth_px: float) -> tuple[F64, npt.NDArray[np.float32]]:
    even = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(8, 8)).apply(cv2.GaussianBlur(image, (0, 0), smooth_px))
    inner = cv2.erode(valid.astype(np.uint8), np.ones((17, 17), np.uint8), borderValue=0)
    sift = cv2.SIFT_create(nfeatures=_MOST_FEATURES, contrastThreshold=0.02, sigma=2.0)  # type: ignore[attr-defined]
    points, descriptors = sift.detectAndCompute(even, inner)
    if descriptors is None or len(points) == 0:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    where = np.asarray([(p.pt[1], p.pt[0]) for p in points], dtype=np.float64)
    total = descriptors.sum(axis=1, keepdims=True)
    return where, np.sqrt(descriptors / np.maximum(total, 1e-6)).astype(np.float32)


def _matched_features(a: U8, b: U8, valid_a: Bool, valid_b: Bool, smooth_px: float) -> tuple[F64, F64]:
    """Positions in a and b of features that are each other's best match and clearly better than the second best."""
    where_a, da = _features(a, valid_a, smooth_px)
    where_b, db = _features(b, valid_b, smooth_px)
    if len(da) < 2 or len(db) < 2:
        return np.zeros((0, 2)), np.zeros((0, 2))
    near = da @ db.T
    best = near.argmax(axis=1)
    top = near[np.arange(len(da)), best]
    mutual = near.argmax(axis=0)[best] == np.arange(len(da))
    near[np.arange(len(da)), best] = -1.0
    second = near.max(axis=1)
    # Unit vectors: squared distance = 2 - 2 * dot.
    clear = (2.0 - 2.0 * top) < _RATIO**2 * (2.0 - 2.0 * second)
    kept = mutual & clear
    return where_a[kept], where_b[best[kept]]


def _robust_affine(pa: F64, pb: F64, tolerance_px: float) -> tuple[F64, F64, Bool] | None:
    if len(pa) < 4:
        return None
    found, inside = cv2.estimateAffinePartial2D(
        pa[:, ::-1].copy(),
        pb[:, ::-1].copy(),
        method=cv2.RANSAC,
        ransacReprojThreshold=tolerance_px,
        maxIters=20000,
        confidence=0.9999,
    )
    if found is None:
        return None
    kept = np.asarray(inside, dtype=np.bool_).ravel()
    linear, shift = np.eye(2), np.zeros(2)
    for _ in range(3):  # affine only when enough points carry it; inliers are counted anew each time
        if int(kept.sum()) < 4:
            return None
        linear, shift = fit_affine(pa[kept], pb[kept]) if int(kept.sum()) >= 30 else _fit_similarity(pa[kept], pb[kept])
        kept = np.hypot(*(pa @ linear.T + shift - pb).T) <= tolerance_px
    return linear, shift, kept


def fit_affine(pa: F64, pb: F64) -> tuple[F64, F64]:
    """Least-squares affine map of points (N, 2) to points (N, 2): (linear, shift)."""
    centre_a, centre_b = pa.mean(axis=0), pb.mean(axis=0)
    answer, *_ = np.linalg.lstsq(pa - centre_a, pb - centre_b, rcond=None)
    linear = np.asarray(answer.T)
    return linear, centre_b - linear @ centre_a


def _fit_similarity(pa: F64, pb: F64) -> tuple[F64, F64]:
    """Least-squares similarity, by complex numbers y + ix."""
    centre_a, centre_b = pa.mean(axis=0), pb.mean(axis=0)
    za = (pa - centre_a) @ np.asarray([1.0, 1.0j])
    zb = (pb - centre_b) @ np.asarray([1.0, 1.0j])
    turn = (np.conj(za) * zb).sum() / max(float((np.abs(za) ** 2).sum()), 1e-12)
    linear = np.asarray([[turn.real, -turn.imag], [turn.imag, turn.real]])
    return linear, centre_b - linear @ centre_a


def _translation(a: U8, b: U8, valid_a: Bool, valid_b: Bool) -> tuple[float, float] | None:
    """The shift a + shift = b of the best masked correlation, if it clearly beats all others."""
    fa, fb = bandpass(a, valid_a, 2.0, 12.0), bandpass(b, valid_b, 2.0, 12.0)
    least = 0.25 * min(int(valid_a.sum()), int(valid_b.sum()))
    surface, overlap, origin = masked_ncc(fb, fa, valid_b, valid_a, least)
    score = np.arctanh(np.clip(surface, -0.999, 0.999)) * np.sqrt(overlap)
    peaks = best_peaks(score, 2, 8)
    (y, x), (y2, x2) = (int(v) for v in peaks[0]), (int(v) for v in peaks[1])
    if surface[y, x] < 0.1 or score[y, x] < 1.5 * score[y2, x2]:
        return None
    dy, dx = parabola(surface, y, x)
    return y + origin[0] + dy, x + origin[1] + dx
