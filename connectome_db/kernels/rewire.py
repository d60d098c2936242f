"""Random graphs with the degrees of a given one: double edge swaps.

Two connections a -> b and c -> d become a -> d and c -> b, unless that makes a self-connection or a connection that is
there already: every node keeps its number of partners in each direction (Maslov & Sneppen 2002,
10.1126/science.1065103; Milo et al. 2003, arXiv:cond-mat/0312028). With places, a swap also has to leave the number of
connections of each length as it is, so that what is compared is not explained by distance alone.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

I32 = npt.NDArray[np.int32]
F64 = npt.NDArray[np.float64]

_EMPTY = np.uint64(0xFFFFFFFFFFFFFFFF)


def swap_edges(
    pre: I32, post: I32, *, attempts: int, seed: int, place_nm: F64 | None = None, length_edges_nm: F64 | None = None
) -> tuple[I32, int]:
    """New postsynaptic ends int32[E] for connections pre[k] -> post[k], and how many of `attempts` swaps were made.

    No connection may be listed twice or lead to itself. `place_nm` float64[N, 3] and the ascending ends of the classes
    of length, `length_edges_nm`, keep the number of connections per class. The same seed gives the same graph.
    """
    out = post.copy()
    size = 1 << max(4, int(4 * len(pre)).bit_length())
    slots = np.full(size, _EMPTY, np.uint64)
    places = np.zeros((0, 3)) if place_nm is None else np.ascontiguousarray(place_nm, dtype=np.float64)
    edges = np.zeros(0) if length_edges_nm is None else np.ascontiguousarray(length_edges_nm, dtype=np.float64)
    made = _swap(pre.astype(np.int64), out, slots, np.int64(attempts), np.uint64(seed), places, edges)
    return out, int(made)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _key(a, b):  # type: ignore[no-untyped-def]  # compiled
    return (np.uint64(a) << np.uint64(32)) | np.uint64(b)


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _mix(z):  # type: ignore[no-untyped-def]  # compiled
    """SplitMix64's finaliser: spreads keys over the slots, and makes the random numbers (Steele et al. 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _find(slots, key):  # type: ignore[no-untyped-def]  # compiled
    """Where `key` is, or the empty slot where it would go."""
    mask = np.uint64(len(slots) - 1)
    at = _mix(key) & mask
    while slots[at] != _EMPTY and slots[at] != key:
        at = (at + np.uint64(1)) & mask
    return at


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _remove(slots, key):  # type: ignore[no-untyped-def]  # compiled
    """Empty the key's slot and move later keys of the run up, so that no search stops too early."""
    one, mask = np.uint64(1), np.uint64(len(slots) - 1)
    hole = _find(slots, key)
    at = hole
    while True:
        at = (at + one) & mask
        if slots[at] == _EMPTY:
            break
        home = _mix(slots[at]) & mask
        if ((at - home) & mask) >= ((at - hole) & mask):
            slots[hole] = slots[at]
            hole = at
    slots[hole] = _EMPTY


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _class_of(places, edges, a, b):  # type: ignore[no-untyped-def]  # compiled
    square = 0.0
    for axis in range(3):
        square += (places[a, axis] - places[b, axis]) ** 2
    return np.searchsorted(edges, np.sqrt(square))


@numba.njit(cache=True)  # type: ignore[untyped-decorator, unused-ignore]  # numba ships no types
def _swap(pre, post, slots, attempts, seed, places, edges):  # type: ignore[no-untyped-def]  # compiled
    n = len(pre)
    for k in range(n):
        key = _key(pre[k], post[k])
        slots[_find(slots, key)] = key
    made = 0
    if n < 2:
        return made
    state = _mix(seed + np.uint64(0x9E3779B97F4A7C15))
    for _ in range(attempts):
        state += np.uint64(0x9E3779B97F4A7C15)
        drawn = _mix(state)
        i = np.int64((drawn >> np.uint64(32)) % np.uint64(n))
        j = np.int64((drawn & np.uint64(0xFFFFFFFF)) % np.uint64(n))
        a, b, c, d = pre[i], post[i], pre[j], post[j]
        if a == c or b == d:  # nothing would change
            continue
        if a == d or c == b:  # a self-connection would come
            continue
        if slots[_find(slots, _key(a, d))] != _EMPTY or slots[_find(slots, _key(c, b))] != _EMPTY:
            continue
        if len(places):
            old = (_class_of(places, edges, a, b), _class_of(places, edges, c, d))
            new = (_class_of(places, edges, a, d), _class_of(places, edges, c, b))
            if (min(old[0], old[1]), max(old[0], old[1])) != (min(new[0], new[1]), max(new[0], new[1])):
                continue
        _remove(slots, _key(a, b))
        _remove(slots, _key(c, d))
        first, second = _key(a, d), _key(c, b)
        slots[_find(slots, first)] = first
        slots[_find(slots, second)] = second
        post[i], post[j] = d, b
        made += 1
    return made
