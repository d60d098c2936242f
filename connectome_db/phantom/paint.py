"""Grey values of the tissue: cytoplasm, membranes, microtubules, mitochondria, reticulum, vesicles, detector noise."""

from __future__ import annotations

import math

import cv2
import numba
import numpy as np
import numpy.typing as npt

from connectome_db.phantom.contacts import Painted, Pieces
from connectome_db.phantom.partition import Partition, ball_distance
from connectome_db.phantom.paths import DENDRITE, Balls

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

_REACH_NM = 45.0


def _organelles(
    rng: np.random.Generator,
    balls: Balls,
    *,
    every_nm: float,
    length_nm: tuple[float, float],
    radius_nm: tuple[float, float],
    inside: float,
) -> tuple[F64, F64]:
    """Balls of tubes that run inside neurites: positions (m, 3), radii (m,). `inside`: largest share of a radius."""
    n = len(balls.radius_nm)
    step = np.linalg.norm(balls.position_nm[balls.after] - balls.position_nm, axis=1)
    starts = np.flatnonzero((rng.random(n) < step / every_nm) & (balls.radius_nm * inside > radius_nm[0]))
    tangent = balls.tangent()
    positions, radii = [np.empty((0, 3))], [np.empty(0)]
    for start in starts:
        chain = [int(start)]
        wanted = rng.uniform(*length_nm)
        run = 0.0
        while run < wanted and balls.after[chain[-1]] != chain[-1]:
            run += float(step[chain[-1]])
            chain.append(int(balls.after[chain[-1]]))
        limit = float(balls.radius_nm[chain].min())
        radius = min(rng.uniform(*radius_nm), limit * inside)
        if len(chain) < 3 or radius < radius_nm[0] * 0.8:
            continue
        side = np.cross(tangent[start], rng.normal(0, 1, 3))
        side *= rng.uniform(0.1, 0.8) * (limit - radius) / (np.linalg.norm(side) + 1e-9)
        at = np.concatenate([[0.0], np.cumsum(step[chain[:-1]])])
        fine = np.arange(0.0, at[-1], 20.0)
        line = np.stack([np.interp(fine, at, balls.position_nm[chain, axis]) for axis in range(3)], axis=1)
        swing = np.sin(fine / rng.uniform(150, 400) + rng.uniform(0, 6.3))
        positions.append(line + side * (0.75 + 0.25 * swing[:, None]))
        radii.append(radius * (1 + 0.1 * np.sin(fine / 90 + rng.uniform(0, 6.3))))
    return np.concatenate(positions), np.concatenate(radii)


def _vesicles(
    rng: np.random.Generator, painted: Painted, part: Partition, cut: Pieces, mito: F32, voxel_nm: tuple[int, int, int]
) -> F64:
    """(m, 3) centres in nm: a jittered lattice thinned with the distance from each synapse, on its presynaptic side."""
    voxel = np.asarray(voxel_nm, np.float64)
    ticks = np.arange(-400.0, 401.0, 44.0)
    lattice = np.stack(np.meshgrid(ticks, ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 3)
    parts = [np.empty((0, 3))]
    for site in painted.sites:
        offset = lattice + rng.uniform(-11, 11, lattice.shape)
        away = np.linalg.norm(offset, axis=1)
        point = site.centre_nm + offset[rng.random(len(offset)) < 0.97 * np.exp(-((away / 350) ** 4))]
        index = np.rint(point / voxel).astype(int)
        inside = np.all((index >= 0) & (index < part.first.shape), axis=1)
        point, index = point[inside], index[inside]
        z, y, x = index.T
        good = (cut.labels[z, y, x] == site.pre) & (part.wall_nm[z, y, x] > 30) & (mito[z, y, x] > 22)
        parts.append(point[good])
    return np.concatenate(parts)


def _stamp_vesicles(darkness: F32, centre_nm: F64, voxel_nm: tuple[int, int, int]) -> None:
    """Add dark 40 nm rings with a light lumen into `darkness` (z, y, x), averaged over each section's thickness."""
    voxel = np.asarray(voxel_nm, np.float64)
    reach = np.maximum(1, np.ceil(30.0 / voxel)).astype(int)
    span = [np.arange(-r, r + 1) for r in reach]
    offset = np.stack(np.meshgrid(*span, indexing="ij"), axis=-1).reshape(-1, 3)
    base = np.rint(centre_nm / voxel).astype(int)
    for step in offset:
        index = base + step
        inside = np.all((index >= 0) & (index < darkness.shape), axis=1)
        delta = index[inside] * voxel - centre_nm[inside]
        across = np.sqrt(delta[:, 1] ** 2 + delta[:, 2] ** 2)
        through = np.clip(1.15 - np.abs(delta[:, 0]) / max(26.0, 0.8 * voxel[0]), 0, 1)
        ring = through * (88 * np.exp(-(((across - 17) / 8) ** 2)) - 14 * np.exp(-((across / 9) ** 2)))
        z, y, x = index[inside].T
        np.maximum.at(darkness, (z, y, x), ring.astype(np.float32))


def _frames(rng: np.random.Generator, balls: Balls) -> tuple[F32, F32, F32]:
    """Tangent and two cross-section axes per ball, steady along a chain: (n, 3) each."""
    tangent = balls.tangent()
    reference = rng.normal(0, 1, (len(balls.role), 3))[balls.neurite]
    one = np.cross(tangent, reference)
    one /= np.linalg.norm(one, axis=1, keepdims=True) + 1e-9
    two = np.cross(tangent, one)
    return tangent.astype(np.float32), one.astype(np.float32), two.astype(np.float32)


def _paint_loop(  # type: ignore[no-untyped-def]  # compiled by numba: arrays as in paint()
    first,
    wall,
    tilt,
    mito,
    reticulum,
    synaptic,
    stain,
    mottle,
    base,
    tubules,
    position,
    one,
    two,
    tangent,
    voxel,
    seed,
    out,
):
    root = math.sqrt(2.0)
    sigma = 8.0
    for z in range(first.shape[0]):
        for y in range(first.shape[1]):
            for x in range(first.shape[2]):
                i = first[z, y, x]
                d = wall[z, y, x]
                value = base[i] + mottle[z, y, x]
                dz = z * voxel[0] - position[i, 0]
                dy = y * voxel[1] - position[i, 1]
                dx = x * voxel[2] - position[i, 2]
                # Microtubules: a jittered lattice in the neurite's cross-section, carried along it.
                u = (dz * one[i, 0] + dy * one[i, 1] + dx * one[i, 2]) / 62.0
                v = (dz * two[i, 0] + dy * two[i, 1] + dx * two[i, 2]) / 62.0
                cu, cv = math.floor(u), math.floor(v)
                h = (int(cu) * 73856093 ^ int(cv) * 19349663 ^ (seed[i] * 83492791)) & 0x7FFFFFFF
                h = (h * 1103515245 + 12345) & 0x7FFFFFFF
                if (h >> 8) % 100 < tubules[i]:
                    ou = u - cu - 0.25 - 0.5 * ((h >> 3) & 255) / 255.0
                    ov = v - cv - 0.25 - 0.5 * ((h >> 11) & 255) / 255.0
                    near = 62.0 * math.sqrt(ou * ou + ov * ov)
                    along = abs(tangent[i, 0])
                    value -= (26.0 + 30.0 * along) * math.exp(-((near / 12.0) ** 2))
                m = max(mito[z, y, x], 26.0 - d)
                if m < 30.0:
                    body = 1.0 / (1.0 + math.exp(m / 4.0))
                    # Cristae: folded sheets about 55 nm apart, turned differently in each organelle.
                    turn = (seed[i] % 628) * 0.01
                    phase = (dy * math.cos(turn) + dx * math.sin(turn) + 0.45 * dz) / 8.5 + 0.16 * mottle[z, y, x]
                    inside = (
                        116.0 + 0.5 * mottle[z, y, x] - 26.0 * math.sin(phase) * min(1.0, max(0.0, (-m - 8.0) / 12.0))
                    )
                    value = value * (1 - body) + inside * body - 48.0 * math.exp(-((m / 8.5) ** 2))
                r = max(reticulum[z, y, x], 20.0 - d)
                if r < 30.0 and m > 12.0:
                    value += 12.0 / (1.0 + math.exp(r / 4.0)) - 52.0 * math.exp(-((r / 8.0) ** 2))
                # Membrane: a Gaussian line averaged over the section's thickness along the wall's normal.
                half = max(1.0, 0.5 * voxel[0] * tilt[z, y, x])
                line = (
                    sigma
                    * 1.2533
                    / (2.0 * half)
                    * (math.erf((d + half) / (sigma * root)) - math.erf((d - half) / (sigma * root)))
                )
                dark = synaptic[z, y, x]
                edge = (102.0 + 12.0 * stain[z, y, x]) * line
                out[z, y, x] = value - max(edge, dark) - 0.25 * min(edge, dark)


_paint = numba.njit(cache=True)(_paint_loop)


def _texture(rng: np.random.Generator, shape: tuple[int, ...], sigma_px: float, keep: float) -> F32:
    """Unit-variance texture, smooth in plane; each section shares the part `keep` with the one before."""
    out = np.empty(shape, np.float32)
    before = np.zeros(shape[1:], np.float32)
    for z in range(shape[0]):
        fresh = cv2.GaussianBlur(rng.standard_normal(shape[1:], dtype=np.float32), (0, 0), sigma_px)
        fresh *= 2.0 * sigma_px * math.sqrt(math.pi)
        before = fresh if z == 0 else keep * before + math.sqrt(1 - keep * keep) * fresh
        out[z] = before
    return out


def paint(
    rng: np.random.Generator,
    balls: Balls,
    part: Partition,
    cut: Pieces,
    painted: Painted,
    voxel_nm: tuple[int, int, int],
    noise_grey: float,
) -> U8:
    """The image, uint8 (z, y, x). `noise_grey` is the standard deviation of the detector noise at mid grey."""
    shape = part.first.shape
    per_px = 8.0 / voxel_nm[1]
    mito = ball_distance(
        shape,
        voxel_nm,
        *_organelles(rng, balls, every_nm=2600, length_nm=(500, 1700), radius_nm=(62, 150), inside=0.62),
        _REACH_NM,
    )
    reticulum = ball_distance(
        shape,
        voxel_nm,
        *_organelles(rng, balls, every_nm=900, length_nm=(250, 1300), radius_nm=(17, 34), inside=0.3),
        _REACH_NM,
    )
    _stamp_vesicles(painted.darkness, _vesicles(rng, painted, part, cut, mito, voxel_nm), voxel_nm)
    mottle = 7.5 * _texture(rng, shape, 1.25 * per_px, 0.35)
    mottle += 6.0 * _texture(rng, shape, 3.2 * per_px, 0.6)
    stain = _texture(rng, shape, 11.0 * per_px, 0.8)
    count = len(balls.role)
    dendrite = balls.role == DENDRITE
    grey = np.where(dendrite, rng.uniform(172, 192, count), rng.uniform(146, 188, count))[balls.neurite]
    tubules = np.where(dendrite, rng.integers(35, 70, count), rng.integers(10, 55, count))[balls.neurite]
    seed = rng.integers(1, 1 << 20, count)[balls.neurite]
    tangent, one, two = _frames(rng, balls)
    clean = np.empty(shape, np.float32)
    _paint(
        part.first,
        part.wall_nm,
        part.tilt,
        mito,
        reticulum,
        painted.darkness,
        stain,
        mottle,
        grey.astype(np.float32),
        tubules.astype(np.int64),
        balls.position_nm.astype(np.float32),
        one,
        two,
        tangent,
        np.asarray(voxel_nm, np.float32),
        seed.astype(np.int64),
        clean,
    )
    image = np.empty(shape, np.uint8)
    for z in range(shape[0]):
        sharp = cv2.GaussianBlur(clean[z], (0, 0), 0.65 * per_px)
        # Shot noise grows with the signal; part of it is spread over neighbours by the detector.
        white = rng.standard_normal(shape[1:], dtype=np.float32)
        spread = cv2.GaussianBlur(rng.standard_normal(shape[1:], dtype=np.float32), (0, 0), 0.8) * 2.8
        grain = noise_grey * np.sqrt(np.maximum(sharp, 8.0) / 128.0) * (0.7 * white + 0.7 * spread)
        image[z] = np.clip(np.rint(sharp + grain), 0, 255).astype(np.uint8)
    return image
