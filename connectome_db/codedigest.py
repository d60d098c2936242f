"""The code a stage's result depends on, as one digest that comments and docstrings cannot change.

From the stage's module, every module of this package that it imports is followed, and each is written out as a
canonical walk of its syntax tree: node types and fields in name order, docstrings and empty fields dropped (`ast.dump`
differs between Python minors). What the digest could not follow is refused with the line: a package import, a
re-export, `import *`, relative imports, importlib. What a pure function may not touch is refused too: files, clocks,
unseeded randomness.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from connectome_db.errors import StageError

PACKAGE = "connectome_db"
OUTSIDE = frozenset({"spec", "plans", "errors"})
"""Modules whose effect is in boxes, keys and messages: outside the digest."""

PURE = ("stages", "kernels", "schema")
IMPURE_MODULES = frozenset(
    {"os", "sys", "io", "pathlib", "shutil", "tempfile", "glob", "subprocess", "socket", "time", "datetime", "random"}
    | {"secrets", "uuid", "urllib", "requests", "threading", "multiprocessing", "pickle", "shelve", "sqlite3", "ctypes"}
)
IMPURE_CALLS = frozenset({"open", "input", "exec", "eval", "compile", "__import__", "print"})


@dataclass(frozen=True)
class Module:
    """One module of the closure: dotted name below the package, file, digest of its canonical syntax tree."""

    name: str
    file: Path
    digest: str
    imports: tuple[str, ...]


def _refuse(file: Path, node: ast.AST, what: str, instead: str) -> StageError:
    line = getattr(node, "lineno", 0)
    return StageError(f"{file.name}:{line}: {what}. {instead}")


def _is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def canonical(node: object) -> Iterator[str]:
    """The walk that is hashed. Bare string expressions (docstrings, also of attributes) are dropped."""
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for name in sorted(node._fields):
            value = getattr(node, name, None)
            if name in {"ctx", "type_comment", "kind", "type_ignores"} or value is None or value == []:
                continue
            yield f" {name}="
            yield from canonical(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for item in node:
            if not _is_docstring(item):
                yield from canonical(item)
        yield "]"
    else:
        yield f"{type(node).__name__}:{node!r}"


@lru_cache(maxsize=512)
def _parse(source: bytes, name: str) -> ast.Module:
    """The syntax tree of a module. Stages share most of theirs, so each is parsed once."""
    return ast.parse(source, filename=name)


@lru_cache(maxsize=512)
def source_digest(source: bytes, name: str = "<unknown>") -> str:
    """The digest that a module with this source has. Raises SyntaxError when it is no Python."""
    return hashlib.sha256("".join(canonical(_parse(source, name))).encode()).hexdigest()


@lru_cache(maxsize=512)
def _top_level(source: bytes, name: str) -> tuple[frozenset[str], frozenset[str]]:
    """Names that a module defines at its top level, and names that it merely imports."""
    tree = _parse(source, name)
    defined: set[str] = set()
    imported: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {(a.asname or a.name).split(".")[0] for a in node.names}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            defined.add(node.name)
        else:
            defined |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return frozenset(defined), frozenset(imported - defined)


class _Package:
    """The package's files; `root` is the folder that holds `connectome_db/` (tests give another)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def file(self, dotted: str) -> Path | None:
        path = self.root.joinpath(PACKAGE, *dotted.split(".")).with_suffix(".py")
        return path if dotted and path.is_file() else None

    def is_package(self, dotted: str) -> bool:
        return (self.root.joinpath(PACKAGE, *dotted.split(".")) if dotted else self.root / PACKAGE).is_dir()

    def _from(self, file: Path, node: ast.ImportFrom) -> set[str]:
        base = (node.module or "").removeprefix(PACKAGE).removeprefix(".")
        found: set[str] = set()
        for alias in node.names:
            if alias.name == "*":
                raise _refuse(file, node, "`import *` hides what is imported", "Name each function.")
            below = f"{base}.{alias.name}" if base else alias.name
            if self.file(below):
                found.add(below)
            elif target := self.file(base):
                defined, imported = _top_level(target.read_bytes(), target.name)
                if alias.name in imported:
                    raise _refuse(
                        file,
                        node,
                        f"{alias.name!r} is only re-exported by {base}",
                        "Import it from where it is defined.",
                    )
                if alias.name not in defined:
                    raise _refuse(file, node, f"{base} does not define {alias.name!r}", "Check the name.")
                found.add(base)
            else:
                kind = "a package" if self.is_package(base) else "no module of this package"
                raise _refuse(
                    file, node, f"{PACKAGE}.{base} is {kind}: the code digest cannot follow it",
                    "Import from the module that defines the name.",
                )  # fmt: skip
        return found

    def imports(self, file: Path, tree: ast.Module) -> set[str]:
        """Modules of this package that `tree` imports, at any depth of nesting."""
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name.split(".")[0] == "importlib":
                        raise _refuse(file, node, "importlib: the code digest cannot follow it", "Import by name.")
                    if alias.name.split(".")[0] == PACKAGE:
                        raise _refuse(
                            file,
                            node,
                            f"`import {alias.name}` binds the package",
                            f"Write `from {PACKAGE}.… import name`.",
                        )
            elif isinstance(node, ast.ImportFrom):
                top = (node.module or "").split(".")[0]
                if node.level:
                    raise _refuse(file, node, "a relative import", f"Write `from {PACKAGE}.… import name`.")
                if top == "importlib":
                    raise _refuse(file, node, "importlib: the code digest cannot follow it", "Import by name.")
                if top == PACKAGE:
                    found |= self._from(file, node)
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "__import__":
                raise _refuse(file, node, "__import__: the code digest cannot follow it", "Import by name.")
        return found

    def module(self, dotted: str) -> Module:
        file = self.file(dotted)
        if file is None:
            raise StageError(f"no module {PACKAGE}.{dotted} below {self.root}")
        return self.read(dotted, file, pure=dotted.partition(".")[0] in PURE)

    def read(self, dotted: str, file: Path, *, pure: bool) -> Module:
        source = file.read_bytes()
        tree = _parse(source, file.name)
        if pure:
            _check_pure(file, tree)
        return Module(dotted, file, source_digest(source, file.name), tuple(sorted(self.imports(file, tree))))


def _check_pure(file: Path, tree: ast.Module) -> None:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            if name.split(".")[0] in IMPURE_MODULES:
                raise _refuse(
                    file, node, f"imports {name!r}: a stage or kernel is pure and gets all it needs in its block",
                    "Declare an input or a parameter instead.",
                )  # fmt: skip
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_CALLS:
            raise _refuse(
                file, node, f"calls {node.func.id}(): a stage or kernel is pure and touches no file or console",
                "Declare an input or a parameter instead.",
            )  # fmt: skip


def package_root() -> Path:
    """The folder that holds the package."""
    return Path(__file__).resolve().parent.parent


@lru_cache(maxsize=64)
def closure(*roots: str, files: tuple[Path, ...] = (), root: Path | None = None) -> tuple[Module, ...]:
    """Every module that `roots` (dotted, below the package) reach, themselves included, by name.

    `files` are stage modules outside the package (a user's own): they must be pure, and may import only the package.
    """
    package = _Package(root or package_root())
    seen = {f"own:{f.stem}": package.read(f"own:{f.stem}", f, pure=True) for f in files}
    todo = [*roots, *(name for m in seen.values() for name in m.imports)]
    while todo:
        name = todo.pop()
        if name in seen or name in OUTSIDE:
            continue
        seen[name] = package.module(name)
        todo.extend(seen[name].imports)
    return tuple(seen[name] for name in sorted(seen))


def code_digest(*roots: str, files: tuple[Path, ...] = (), root: Path | None = None) -> str:
    """One digest of the closure of `roots` and `files`."""
    h = hashlib.sha256(b"code\0")
    for module in closure(*roots, files=files, root=root):
        h.update(f"{module.name}={module.digest}\n".encode())
    return h.hexdigest()
