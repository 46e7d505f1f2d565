"""Where the code of a function stands: its syntax tree, found in its file, its notebook cell, or under a cell magic."""

import ast
import functools
import linecache
import sys
import types
from collections.abc import Iterator

DEF = (ast.FunctionDef, ast.AsyncFunctionDef)


def of(code: types.CodeType, where: str) -> ast.AST:
    """Return the syntax tree of a function's code; errors call the function `where`.

    Raises ValueError where there is no source, or where several different functions start on its line.
    """
    linecache.checkcache(code.co_filename)
    if lines := linecache.getlines(code.co_filename):
        found = [n for n in _functions("".join(lines), code) if _first_line(n) == code.co_firstlineno]
    else:
        found = _under_magic(code)
    if not found:
        raise ValueError(
            f"{where}: the source of {code.co_name} is not to be found; define it in a notebook cell or a file."
        )
    if len(found) > 1 and len({ast.dump(n) for n in found}) > 1:
        raise ValueError(f"{where}: several functions start on one line; put each on a line of its own.")
    return found[0]


def is_current(code: types.CodeType) -> bool:
    """Say whether a function's file still says what Python loaded from it."""
    linecache.checkcache(code.co_filename)
    compiled = _compiled("".join(linecache.getlines(code.co_filename)), code.co_filename)
    return any(same(code, other) and code.co_firstlineno == other.co_firstlineno for other in compiled)


def same(code: types.CodeType, other: types.CodeType) -> bool:
    """Say whether two pieces of code do the same, wherever they stand."""
    fields = ("co_name", "co_code", "co_names", "co_varnames", "co_freevars", "co_cellvars")
    alike = all(getattr(code, field) == getattr(other, field) for field in fields)
    pairs = list(zip(code.co_consts, other.co_consts, strict=False))
    return alike and len(code.co_consts) == len(other.co_consts) and all(_same_constant(a, b) for a, b in pairs)


def _same_constant(a, b) -> bool:
    if isinstance(a, types.CodeType):
        return isinstance(b, types.CodeType) and same(a, b)
    return type(a) is type(b) and repr(a) == repr(b)


def _functions(source: str, code: types.CodeType) -> list[ast.AST]:
    kind = ast.Lambda if code.co_name == "<lambda>" else DEF
    return [node for node in _all_functions(source) if isinstance(node, kind)]


@functools.lru_cache(maxsize=64)
def _all_functions(source: str) -> list[ast.AST]:
    return [node for node in ast.walk(ast.parse(source)) if isinstance(node, (*DEF, ast.Lambda))]


def _first_line(node: ast.AST) -> int:
    return min(n.lineno for n in (node, *getattr(node, "decorator_list", ())))


@functools.lru_cache(maxsize=64)
def _compiled(source: str, filename: str) -> list[types.CodeType]:
    """Return the code of all functions of a file."""
    return list(_inside(compile(source, filename, "exec", dont_inherit=True)))


def _inside(code: types.CodeType) -> Iterator[types.CodeType]:
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield part
            yield from _inside(part)


def _under_magic(code: types.CodeType) -> list[ast.AST]:
    """Find a function in the notebook's cells: %%time and its like run a cell's code without saying where it stands."""
    for body in _wrapped_cells():
        try:
            compiled = _compiled(body, "<cell>")
        except SyntaxError:
            continue
        lines = {other.co_firstlineno for other in compiled if same(code, other)}
        if found := [node for node in _functions(body, code) if _first_line(node) in lines]:
            return found
    return []


def _wrapped_cells() -> Iterator[str]:
    """The code of the cells that ran under magics (and of lines such as `%time f = lambda x: x`), the latest first."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    for cell in reversed(shell.history_manager.input_hist_raw if shell else []):
        for line in cell.splitlines():
            if line.startswith("%time "):
                yield shell.transform_cell(line.removeprefix("%time "))
        while cell.lstrip().startswith("%%"):
            cell = cell.lstrip().partition("\n")[2]
            yield shell.transform_cell(cell)
