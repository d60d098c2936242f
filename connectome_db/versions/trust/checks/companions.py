"""Companions of tables (other orders, arrays): there, and as recorded?"""

from __future__ import annotations

from connectome_db.companions import file_digest
from connectome_db.versions.trust.findings import Problem
from connectome_db.versions.trust.trees import Tree


def check_companions(tree: Tree, *, read: bool) -> list[Problem]:
    """Every file of a companion against the digest in record.json; with `read` False only whether it is there."""
    out = []
    for name, digest in tree.companions.items():
        path = tree.folder / name
        table = name.partition(".")[0]
        wanted = f"sha256 {digest}" if digest else "a copy of its table in another order"
        if not path.is_file():
            out.append(Problem(tree.name, "missing companion", tree.relative(path), "companion", wanted, "nothing",
                               output=table))  # fmt: skip
        elif read and digest and (found := tree.found.get(name) or file_digest(path)) != digest:
            out.append(Problem(tree.name, "damaged companion", tree.relative(path), "companion", wanted,
                               f"sha256 {found}", output=table, digests=(digest, found)))  # fmt: skip
    return out
