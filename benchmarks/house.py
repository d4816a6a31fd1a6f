"""Prints how the code is arranged: packages, import levels and cycles, long signatures, room to
read, and types of errors.

    python benchmarks/house.py [--list]

``--list`` names the functions with too many parameters and the lines with parallel assignments.
Counted are the files of ``latentedit/``, ``directions/``, ``cli/`` and ``studio/``. CLI callbacks,
which have a parameter per option, are counted apart; GPU kernels are not counted.
"""

import argparse
import ast
import io
import itertools
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import grimp

from latentedit import errors

TOP = Path(__file__).parents[1]
FOLDERS = ("latentedit", "directions", "cli", "studio")
MOST_PARAMETERS = 8


@dataclass
class Source:
    """What is counted in one file."""

    path: Path
    lines: list[str]
    code: int = 0
    """Lines with code on them, docstrings excluded."""
    comments: int = 0
    explained: int = 0
    """Texts under constants and fields, which other projects write as comments beside them."""
    inside: int = 0
    """Lines inside functions, docstrings excluded."""
    blank_inside: int = 0
    wide: list[tuple[str, int]] = field(default_factory=list)
    """Functions with more than `MOST_PARAMETERS` parameters, and how many they have."""
    callbacks: list[tuple[str, int]] = field(default_factory=list)
    """The same of click commands."""
    parallel: list[int] = field(default_factory=list)
    """Lines with parallel assignments, ``a, b = x, y``."""
    untyped: int = 0
    """Calls of `Error` itself."""


def sources() -> Iterator[Path]:
    """Yield the files that are counted; links to other folders are not followed."""
    for folder in FOLDERS:
        for path in sorted((TOP / folder).rglob("*.py")):
            if not any(parent.is_symlink() for parent in path.parents if parent != TOP):
                yield path


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the number of parameters, without self, cls and torch's ctx, and without ``*`` and
    ``**``."""
    given = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return len([argument for argument in given if argument.arg not in ("self", "cls", "ctx")])


def is_kernel(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether this is a GPU kernel, which takes every pointer and stride by itself."""
    return any("triton" in ast.unparse(decorator) for decorator in function.decorator_list)


def is_callback(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Say whether click calls this function: it has a decorator that makes a command."""
    names = [ast.unparse(decorator) for decorator in function.decorator_list]
    return any(
        ".command" in name or ".group" in name or name.startswith("click.") for name in names
    )


def is_parallel(node: ast.AST) -> bool:
    """Say whether ``node`` assigns several values of their own to several names; an exchange counts
    as one value."""
    if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
        return False
    return any(isinstance(target, ast.Tuple) for target in node.targets) and not is_exchange(node)


def is_exchange(node: ast.Assign) -> bool:
    """Say whether names exchange their values, as in ``a, b = b, a``."""
    targets = node.targets[0]
    assert isinstance(node.value, ast.Tuple)
    if not isinstance(targets, ast.Tuple):
        return False
    return sorted(map(ast.unparse, targets.elts)) == sorted(map(ast.unparse, node.value.elts))


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the lines of all docstrings, those under fields included."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def explanations(tree: ast.Module) -> int:
    """Return the number of texts that stand under an assignment: of constants, fields and
    attributes."""
    count = 0
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for before, text in itertools.pairwise(body if isinstance(body, list) else []):
            count += isinstance(before, ast.Assign | ast.AnnAssign) and is_text(text)
    return count


def is_text(node: ast.AST) -> bool:
    """Return whether a statement is nothing but a text."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def read(path: Path) -> Source:
    """Count what is in a file."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    found = Source(path, text.splitlines())
    documented = docstring_lines(tree)
    found.explained = explanations(tree)

    comments = {
        t.start[0]
        for t in tokenize.generate_tokens(io.StringIO(text).readline)
        if t.type == tokenize.COMMENT
    }
    found.comments = len(comments)
    alone = {number for number in comments if found.lines[number - 1].lstrip().startswith("#")}
    written = {number for number, line in enumerate(found.lines, start=1) if line.strip()}
    found.code = len(written - documented - alone)

    inside: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
            count = parameters(node)
            if count > MOST_PARAMETERS and not is_kernel(node):
                (found.callbacks if is_callback(node) else found.wide).append((node.name, count))
        if is_parallel(node):
            assert isinstance(node, ast.stmt)
            found.parallel.append(node.lineno)
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id == "Error"
        ):
            found.untyped += 1

    inside -= documented
    found.inside = len(inside)
    found.blank_inside = len(inside - written)
    return found


def levels(graph: grimp.ImportGraph) -> tuple[int, int]:
    """Return how many modules the longest chain of imports has, and how many modules lie on
    cycles."""
    modules = sorted(graph.modules)
    imports = {
        module: graph.find_modules_directly_imported_by(module) & set(modules) for module in modules
    }

    # Modules whose imports are all placed get the next level; what is never placed lies on a cycle
    # or above one.
    placed: dict[str, int] = {}
    while True:
        ready = [
            m for m in modules if m not in placed and all(other in placed for other in imports[m])
        ]
        if not ready:
            break
        for module in ready:
            placed[module] = 1 + max((placed[other] for other in imports[module]), default=0)
    return max(placed.values(), default=0), len(modules) - len(placed)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="name the functions and lines")
    listing = parser.parse_args().list

    found = [read(path) for path in sources()]
    graph = grimp.build_graph("latentedit", exclude_type_checking_imports=True, cache_dir=None)
    height, circular = levels(graph)
    per_package = Counter(
        path.parent.relative_to(TOP) for path in sources() if path.name != "__init__.py"
    )
    fullest, most = per_package.most_common(1)[0]

    lines = sum(len(one.lines) for one in found)
    widths = sorted(len(line) for one in found for line in one.lines if line)
    kinds = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.Error)
    ]
    wide = [(one.path, *function) for one in found for function in one.wide]
    callbacks = [function for one in found for function in one.callbacks]
    parallel = sum(len(one.parallel) for one in found)
    code = sum(one.code for one in found)
    inside = sum(one.inside for one in found)

    longest = max((count for *_, count in wide), default=0)

    in_main = per_package[Path("latentedit")]
    rows = {
        "files, lines": f"{len(found)}, {lines}",
        "modules in latentedit/ itself; in the fullest package": f"{in_main}; {most} ({fullest})",
        "levels of imports; modules on cycles": f"{height}; {circular}",
        f"functions with more than {MOST_PARAMETERS} parameters (most)": f"{len(wide)} ({longest})",
        "the same of CLI callbacks (most)": f"{len(callbacks)} "
        f"({max((count for _, count in callbacks), default=0)})",
        "parallel assignments per 1,000 lines": f"{1000 * parallel / lines:.1f}",
        "comments per 100 code lines": f"{100 * sum(one.comments for one in found) / code:.1f}",
        "the same with texts under constants and fields": (
            f"{100 * sum(one.comments + one.explained for one in found) / code:.1f}"
        ),
        "blank lines inside functions": f"{sum(one.blank_inside for one in found) / inside:.1%}",
        "95th percentile of line width; most": f"{widths[int(0.95 * len(widths))]}; {widths[-1]}",
        "error types; errors without a type": f"{len(kinds)}; {sum(one.untyped for one in found)}",
    }
    for name, value in rows.items():
        print(f"{name:54} {value}")

    if listing:
        for path, name, count in sorted(wide, key=lambda row: -row[2]):
            print(f"{path.relative_to(TOP)}: {name} has {count} parameters")
        for one in found:
            for number in one.parallel:
                print(f"{one.path.relative_to(TOP)}:{number}: {one.lines[number - 1].strip()}")


if __name__ == "__main__":
    main()
