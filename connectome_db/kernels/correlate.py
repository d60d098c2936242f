"""Where one image lies in another: masked correlation for the search, phase correlation for patches, then subpixel.

All shifts are (y, x) in px and say where the origin of `b` lies in `a`: b[p] shows what a[p + shift] shows.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from scipy import fft

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

cv2.setNumThreads(1)


@dataclass(frozen=True)
class Peak:
    """A correlation peak: shift (y, x) in px, its height, and its height over that of the next best peak."""

    shift_px: tuple[float, float]
    height: float
    ratio: float


def bandpass(image: npt.NDArray[np.generic], valid: Bool, fine_px: float, coarse_px: float) -> F32:
    """Difference of Gaussians (standard deviations `fine_px` < `coarse_px`) that sees valid pixels only; 0 elsewhere.

    Normalised convolution (Knutsson and Westin 1993), so that a black border makes no edge. Shape (y, x) is kept.
    """
    values = np.where(valid, image, 0).astype(np.float32)
    if valid.all():
        coarse = cv2.GaussianBlur(values, (0, 0), coarse_px, borderType=cv2.BORDER_REFLECT_101)
        fine = cv2.GaussianBlur(values, (0, 0), fine_px, borderType=cv2.BORDER_REFLECT_101) if fine_px > 0 else values
        return np.asarray(fine - coarse, dtype=np.float32)
    weight = valid.astype(np.float32)

    def smooth(sigma: float) -> F32:
        above = cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        below = cv2.GaussianBlur(weight, (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
        return np.asarray(above / np.maximum(below, 1e-3), dtype=np.float32)

    fine = smooth(fine_px) if fine_px > 0 else values
    return np.asarray(np.where(valid, fine - smooth(coarse_px), 0), dtype=np.float32)


def masked_ncc(a: F32, b: F32, valid_a: Bool, valid_b: Bool, min_overlap_px: float) -> tuple[F64, F64, tuple[int, int]]:
    """Normalised cross-correlation of two masked images at every shift (Padfield 2012, IEEE TIP 21(5)).

    Returns (correlation, overlap, origin): correlation[i, j] belongs to the shift (i, j) + origin; it is 0 where fewer
    than `min_overlap_px` valid pixels meet. `overlap` counts them.
    """
    shape = (a.shape[0] + b.shape[0] - 1, a.shape[1] + b.shape[1] - 1)
    size = (fft.next_fast_len(shape[0], real=True), fft.next_fast_len(shape[1], real=True))
    mean_a = float(a[valid_a].mean()) if valid_a.any() else 0.0
    mean_b = float(b[valid_b].mean()) if valid_b.any() else 0.0
    va, vb = (
        np.where(valid_a, a - mean_a, 0.0).astype(np.float64),
        np.where(valid_b, b - mean_b, 0.0).astype(np.float64),
    )

    def forward(image: F64) -> npt.NDArray[np.complex128]:
        return np.asarray(fft.rfft2(image, size), dtype=np.complex128)

    fa, fb = forward(va), np.conj(forward(vb))
    fa2, fb2 = forward(va * va), np.conj(forward(vb * vb))
    ma, mb = forward(valid_a.astype(np.float64)), np.conj(forward(valid_b.astype(np.float64)))
    origin = (-(b.shape[0] - 1), -(b.shape[1] - 1))

    def backward(spectrum: npt.NDArray[np.complex128]) -> F64:
        full = fft.irfft2(spectrum, size)
        return np.asarray(
            np.roll(full, (-origin[0], -origin[1]), axis=(0, 1))[: shape[0], : shape[1]], dtype=np.float64
        )

    overlap = np.rint(backward(ma * mb))
    n = np.maximum(overlap, 1.0)
    sum_a, sum_b = backward(fa * mb), backward(ma * fb)
    cross = backward(fa * fb) - sum_a * sum_b / n
    power_a = np.maximum(backward(fa2 * mb) - sum_a * sum_a / n, 0.0)
    power_b = np.maximum(backward(ma * fb2) - sum_b * sum_b / n, 0.0)
    power = np.sqrt(power_a * power_b)
    floor = 1e-6 * float(power.max()) + 1e-12
    good = (overlap >= max(min_overlap_px, 4.0)) & (power > floor)
    return np.where(good, cross / np.maximum(power, floor), 0.0), overlap, origin


def best_peaks(surface: npt.NDArray[np.generic], count: int, radius_px: int) -> npt.NDArray[np.int64]:
    """The `count` highest points (n, 2) of a surface (y, x), no two within `radius_px` (Chebyshev), best first."""
    work = np.array(surface, dtype=np.float64)
    found = []
    for _ in range(count):
        y, x = (int(v) for v in np.unravel_index(int(np.argmax(work)), work.shape))
        if not np.isfinite(work[y, x]):
            break
        found.append((y, x))
        work[max(y - radius_px, 0) : y + radius_px + 1, max(x - radius_px, 0) : x + radius_px + 1] = -np.inf
    return np.asarray(found, dtype=np.int64).reshape(-1, 2)


def parabola(surface: npt.NDArray[np.generic], y: int, x: int) -> tuple[float, float]:
    """Offset (y, x) of the maximum of the parabolas through a peak and its neighbours, each within half a pixel."""
    out = []
    for axis, here in ((0, y), (1, x)):
        line = surface[:, x] if axis == 0 else surface[y, :]
        if not 0 < here < len(line) - 1:
            out.append(0.0)
            continue
        low, mid, high = (float(line[here + d]) for d in (-1, 0, 1))
        bend = low - 2.0 * mid + high
        out.append(float(np.clip(0.5 * (low - high) / bend, -0.5, 0.5)) if bend < 0 else 0.0)
    return out[0], out[1]


def phase_correlation(a: F32, b: F32, search_px: int, band: float = 0.17) -> Peak:
    """Phase correlation of two patches of equal shape (Kuglin and Hines 1975), peak within `search_px` of shift 0.

    Both are windowed (Hann). The whitened spectrum is damped by a Gaussian of `band` cycles/px, since EM noise rules
    above. The shift is exact to about a tenth of a pixel; `refine_shift` does better.
    """
    window = cv2.createHanningWindow((a.shape[1], a.shape[0]), cv2.CV_32F)
    fa, fb = fft.rfft2((a - a.mean()) * window), fft.rfft2((b - b.mean()) * window)
    cross = fa * np.conj(fb)
    size = np.abs(cross)
    fy, fx = fft.fftfreq(a.shape[0])[:, None], fft.rfftfreq(a.shape[1])[None, :]
    damp = np.exp(-(fy * fy + fx * fx) / (2.0 * band * band))
    surface = fft.irfft2(cross / (size + 1e-4 * float(size.mean()) + 1e-12) * damp, a.shape)
    reach = min(search_px, a.shape[0] // 2 - 1, a.shape[1] // 2 - 1)
    near = np.roll(surface, (reach, reach), axis=(0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    peaks = best_peaks(near, 2, 4)
    y, x = (int(v) for v in peaks[0])
    height = float(near[y, x])
    second = float(near[peaks[1][0], peaks[1][1]]) if len(peaks) > 1 else 0.0
    dy, dx = parabola(near, y, x)
    return Peak((y - reach + dy, x - reach + dx), height, height / max(second, 1e-6 * max(height, 1e-12)))


def ncc(a: F32, b: F32, valid: Bool) -> float:
    """Normalised correlation of two patches where `valid`; 0 where there is nothing to compare."""
    va, vb = a[valid].astype(np.float64), b[valid].astype(np.float64)
    if va.size < 16:
        return 0.0
    va, vb = va - va.mean(), vb - vb.mean()
    power = float(np.sqrt((va * va).sum() * (vb * vb).sum()))
    return float((va * vb).sum()) / power if power > 0 else 0.0


def translate(image: F32, shift_px: tuple[float, float]) -> F32:
    """`image` sampled at p + shift (y, x), same shape, 0 outside; cubic convolution (Keys 1981), exact in the shift.

    OpenCV's warps round positions to 1/32 px, which is more than the error of a good match.
    """
    whole = [int(np.floor(v)) for v in shift_px]
    kernels = []
    for v, w in zip(shift_px, whole, strict=True):
        t = v - w
        near, far = np.asarray([t, 1.0 - t]), np.asarray([1.0 + t, 2.0 - t])
        inner = 1.5 * near**3 - 2.5 * near**2 + 1.0
        outer = -0.5 * far**3 + 2.5 * far**2 - 4.0 * far + 2.0
        kernels.append(np.asarray([outer[0], inner[0], inner[1], outer[1]], dtype=np.float32))
    out = cv2.sepFilter2D(image, cv2.CV_32F, kernels[1], kernels[0], anchor=(1, 1), borderType=cv2.BORDER_CONSTANT)
    moved = np.zeros_like(out)
    h, w_ = image.shape
    y, x = whole
    if abs(y) < h and abs(x) < w_:
        moved[max(-y, 0) : h - max(y, 0), max(-x, 0) : w_ - max(x, 0)] = out[
            max(y, 0) : h - max(-y, 0), max(x, 0) : w_ - max(-x, 0)
        ]
    return np.asarray(moved, dtype=np.float32)


def refine_shift(
    a: F32, b: F32, valid_a: Bool, valid_b: Bool, start_px: tuple[float, float], steps: int = 6
) -> tuple[tuple[float, float], float]:
    """Subpixel shift of `b` in `a` (equal shapes) by Gauss-Newton on grey values, from `start_px` within a pixel or so.

    Inverse-compositional registration (Lucas and Kanade 1981; Baker and Matthews 2004), with brightness and contrast
    taken out by normalising both. Returns (shift, normalised correlation there); the start when it diverges.
    """
    shift = np.asarray(start_px, dtype=np.float64)
    rise = np.gradient(b.astype(np.float64))
    gy, gx = np.asarray(rise[0]), np.asarray(rise[1])
    usable = cv2.erode(valid_b.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(bool)
    weight_a = cv2.erode(valid_a.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0).astype(np.float32)
    best = 0.0
    for step in range(steps + 1):
        seen = translate(a, (float(shift[0]), float(shift[1]))).astype(np.float64)
        inside = translate(weight_a, (float(shift[0]), float(shift[1]))) > 0.999
        both = usable & inside
        if int(both.sum()) < 64:
            return start_px, 0.0
        sa, sb, dy, dx = seen[both], b[both].astype(np.float64), gy[both], gx[both]
        sa, sb = sa - sa.mean(), sb - sb.mean()
        norm_a, norm_b = float(np.sqrt((sa * sa).sum())), float(np.sqrt((sb * sb).sum()))
        if norm_a == 0 or norm_b == 0:
            return start_px, 0.0
        best = float((sa * sb).sum()) / (norm_a * norm_b)
        if step == steps:
            break
        error = sa * (norm_b / norm_a) - sb
        normal = np.asarray([[(dy * dy).sum(), (dy * dx).sum()], [(dy * dx).sum(), (dx * dx).sum()]])
        right = np.asarray([(dy * error).sum(), (dx * error).sum()])
        if np.linalg.cond(normal) > 1e6:
            return start_px, best
        delta = np.linalg.solve(normal, right)
        shift = shift - np.clip(delta, -1.0, 1.0)
        if float(np.abs(shift - np.asarray(start_px)).max()) > 2.5:
            return start_px, 0.0
        if float(np.abs(delta).max()) < 1e-4:
            break
    return (float(shift[0]), float(shift[1])), best
