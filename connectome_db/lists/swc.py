"""Folders of skeletons in SWC: one file per neuron, lines `node type x y z radius parent`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from connectome_db.errors import SourceError
from connectome_db.lists.names import Names
from connectome_db.lists.specs import NM_PER, SkeletonFolder
from connectome_db.schema.imported import SKELETON_NODE

FIELDS = ("node", "kind", "x", "y", "z", "radius", "parent")
WHOLE = frozenset({"node", "kind", "parent"})
I64 = npt.NDArray[np.int64]


def files(spec: SkeletonFolder, root: Path) -> list[Path]:
    """The .swc files of the folder, sorted by name. Raises SourceError when there is none."""
    folder = (root / spec.folder).resolve()
    found = sorted(folder.glob("*.swc")) if folder.is_dir() else []
    if not found:
        raise SourceError(f"{folder}: wanted a folder of .swc files, one per neuron; there is none")
    return found


def scale_nm(spec: SkeletonFolder) -> npt.NDArray[np.float64]:
    """Nanometres per unit along z, y and x. Raises SourceError for voxels without a size."""
    if spec.unit == "vx":
        if spec.voxel_nm is None:
            raise SourceError(f"{spec.folder}: skeletons in voxels need the size of a voxel: give --voxel-nm z,y,x")
        return np.asarray(spec.voxel_nm)
    return np.full(3, NM_PER[spec.unit])


def read(spec: SkeletonFolder | None, root: Path) -> pa.Table:
    """Rows of `skeleton_node`, sorted by (neuron, node); none for None.

    A skeleton may have several roots (a neuron traced in pieces). Raises SourceError that names the file, and the node:
    a parent that is missing, a cycle, a number twice, a line that is not SWC, a file name that is no neuron.
    """
    if spec is None:
        return SKELETON_NODE.arrow().empty_table()
    paths, scale = files(spec, root), scale_nm(spec)
    names = Names(mixed=True).resolve("file name", pa.chunked_array([pa.array([p.stem for p in paths])]))
    for reason, mask in names.faults:
        k = int(np.flatnonzero(mask)[0])
        raise SourceError(f"{paths[k]}: the name of the file {reason}; {int(mask.sum())} such files")
    parts = []
    for k in np.argsort(names.ids, kind="stable").tolist():
        nodes = _nodes(paths[k])
        order = np.argsort(nodes["node"], kind="stable")
        _check(paths[k], nodes["node"][order], nodes["parent"][order])
        parts.append(_rows(names.ids[k], names.names[k], {n: v[order] for n, v in nodes.items()}, scale))
    return pa.concat_tables(parts).combine_chunks()


def _nodes(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The columns of one file."""
    try:
        lines = [t for line in path.read_text(encoding="utf-8-sig").splitlines() if (t := line.split("#")[0].split())]
    except UnicodeDecodeError as e:
        raise SourceError(f"{path}: is not text: {e}") from e
    if not lines:
        raise SourceError(f"{path}: has no nodes")
    for number, fields in enumerate(lines, 1):
        if len(fields) != len(FIELDS):
            raise SourceError(
                f"{path}: node line {number}: wanted 7 values ({' '.join(FIELDS)}), got {' '.join(fields)}"
            )
    found: dict[str, npt.NDArray[Any]] = {}
    for k, name in enumerate(FIELDS):
        try:
            found[name] = np.asarray([f[k] for f in lines]).astype(np.int64 if name in WHOLE else np.float64)
        except (ValueError, OverflowError) as e:
            raise SourceError(f"{path}: column {name}: {e}") from e
        if name not in WHOLE and not np.isfinite(found[name]).all():
            line = int(np.flatnonzero(~np.isfinite(found[name]))[0])
            raise SourceError(f"{path}: node line {line + 1}: {name} is {lines[line][k]}")
    return found


def _check(path: Path, node: I64, parent: I64) -> None:
    """Raise SourceError unless the nodes, ascending, are different and their parents make a forest."""
    if (twice := node[1:][node[1:] == node[:-1]]).size:
        raise SourceError(f"{path}: node {twice[0]} is there twice")
    index = np.minimum(np.searchsorted(node, parent), len(node) - 1)
    root = parent < 0
    if (lost := (node[index] != parent) & ~root).any():
        k = int(np.flatnonzero(lost)[0])
        raise SourceError(f"{path}: node {node[k]} has the parent {parent[k]}, which is not in the file")
    # Pointer doubling: after k steps each node knows its ancestor 2**k up; who never arrives at a root is in a cycle.
    end = len(node)
    up = np.append(np.where(root, end, index), end)
    for _ in range(len(node).bit_length() + 1):
        up = up[up]
    if (circling := up[:-1] != end).any():
        raise SourceError(
            f"{path}: node {node[np.flatnonzero(circling)[0]]} leads to no root: the parents make a cycle"
        )


def _rows(
    neuron: np.uint64, name: pa.Scalar, nodes: dict[str, npt.NDArray[Any]], nm: npt.NDArray[np.float64]
) -> pa.Table:
    n = len(nodes["node"])
    # A radius has no axis; of voxels that are no cubes, the edge in the plane of the sections is meant.
    return pa.table(
        {
            "neuron": np.full(n, neuron, np.uint64),
            "node": nodes["node"],
            "parent": np.maximum(nodes["parent"], -1),
            "kind": nodes["kind"].astype(np.int32),
            "z_nm": nodes["z"] * nm[0],
            "y_nm": nodes["y"] * nm[1],
            "x_nm": nodes["x"] * nm[2],
            "radius_nm": nodes["radius"] * nm[2],
            "name": pa.array([name.as_py()] * n, pa.string()),
        },
        schema=SKELETON_NODE.arrow(),
    )
