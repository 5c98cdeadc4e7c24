"""No array is freed while a kernel works on its address: addresses are taken where that cannot happen, nowhere else.

Numba frees an array after its last use by name, and does not know of an address taken from it. The arguments of a
function live until it returns. So an address is taken within a compiled function, of an array that is one of its
arguments or a view of one, and is never returned; or in a call of `parallel`, of an argument of the caller.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kernels.cpu

FOLDER = Path(kernels.cpu.__file__).parent
ALLOCATORS = ("arena.py", "memory.py")  # they make the arrays: aligning them takes their address
VIEWS = {"reshape", "view", "ravel"}  # methods whose result shares the memory of what they are called on


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def is_compiled(function: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "compiled" for d in function.decorator_list)


def addresses(tree: ast.AST) -> list[ast.Attribute]:
    """Each `a.ctypes` and its like, by which an array gives its address away."""
    names = {"ctypes", "__array_interface__", "data_as", "from_buffer", "addressof"}
    return [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in names]


def owners(node: ast.expr) -> set[str]:
    """The names of the arrays that an expression may be a view of: `a`, `a[i, j:]`, `(a if … else b)[i]`, `a.T`."""
    if isinstance(node, ast.Name):
        return {node.id}
    if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "T"):
        return owners(node.value)
    if isinstance(node, ast.IfExp):
        return owners(node.body) | owners(node.orelse)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in VIEWS:
        return owners(node.func.value)
    return {"something new"}  # no name, so it is nobody's view


def assignments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    """(name, value) of each assignment to a plain name, those of tuples one by one."""
    for node in ast.walk(function):
        if not isinstance(node, ast.Assign):
            continue
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                for part, value in zip(target.elts, node.value.elts, strict=True):
                    if isinstance(part, ast.Name):
                        yield part.id, value
            elif isinstance(target, ast.Tuple):
                for part in target.elts:
                    if isinstance(part, ast.Name):
                        yield part.id, node.value


def views_of_arguments(function: ast.FunctionDef) -> set[str]:
    """The arguments, and the names that are never anything but views of them."""
    arguments = {argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)}
    assigned: dict[str, set[str]] = {}
    for name, value in assignments(function):
        assigned.setdefault(name, set()).update(owners(value))
    known = arguments | assigned.keys()
    while others := {name for name in known if not assigned.get(name, set()) <= known}:
        known -= others
    return known


def passed_to_parallel(function: ast.FunctionDef) -> set[int]:
    """Which addresses of arguments go to `parallel`: it returns when all is done, and the arguments are there still."""
    own = {argument.arg for argument in function.args.args} - {name for name, _ in assignments(function)}
    calls = [n for n in ast.walk(function) if isinstance(n, ast.Call) and ast.unparse(n.func) == "parallel"]
    taken = [a for call in calls for argument in call.args for a in addresses(argument)]
    return {id(a) for a in taken if isinstance(a.value, ast.Name) and a.value.id in own}


def problems(source: str) -> list[str]:
    """What is wrong about the addresses that are taken in this module."""
    tree = ast.parse(source)
    kernels = [f for f in functions(tree) if is_compiled(f)]
    inside = {id(a): views_of_arguments(f) for f in kernels for a in addresses(f)}
    passed = set().union(*(passed_to_parallel(f) for f in functions(tree) if f not in kernels))
    found = []
    for a in addresses(tree):
        text = f"line {a.lineno}: {ast.unparse(a)}"
        if id(a) in inside and not owners(a.value) <= inside[id(a)]:
            found.append(f"{text} is not an argument's, nor a view's of one")
        elif id(a) not in inside and id(a) not in passed:
            found.append(f"{text} is outside compiled code")
    for f in kernels:
        kept = {name for name, value in assignments(f) if addresses(value)}
        for node in ast.walk(f):
            if isinstance(node, ast.Return) and node.value is not None:
                used = {n.id for n in ast.walk(node.value) if isinstance(n, ast.Name)}
                if addresses(node.value) or used & kept:
                    found.append(f"line {node.lineno}: returns an address")
    return found


@pytest.mark.parametrize("file", sorted(p.name for p in FOLDER.rglob("*.py") if p.name not in ALLOCATORS))
def test_addresses_are_taken_only_of_arguments_of_compiled_code(file):
    (path,) = FOLDER.rglob(file) if file != "__init__.py" else [FOLDER / file]
    assert problems(path.read_text(encoding="utf-8")) == []


def test_there_are_addresses_to_look_at():
    """If they were taken in another way, the test above would pass by seeing nothing."""
    assert sum(len(addresses(ast.parse(path.read_text(encoding="utf-8")))) for path in FOLDER.glob("*.py")) > 20


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("@compiled\ndef f(x):\n    g(x.ctypes.data)", None),
        ("@compiled\ndef f(x, n):\n    row = x[n]\n    part = row[1:].reshape(-1)\n    g(part[2:].ctypes.data)", None),
        ("@compiled\ndef f(x, y):\n    a, b = x[0], y.T\n    p = b.ctypes.data\n    g(p)", None),
        ("@compiled\ndef f(x, y, n):\n    g((x[n] if n else y)[1:].ctypes.data)", None),
        ("def f(x, n):\n    parallel(g, n, x.ctypes.data, cost=n)", None),
        ("def f(x):\n    g(x.ctypes.data)", "outside compiled code"),
        ("def f(x, n):\n    x = x.copy()\n    parallel(g, n, x.ctypes.data, cost=n)", "outside compiled code"),
        ("def f(x, n):\n    parallel(g, n, (2 * x).ctypes.data, cost=n)", "outside compiled code"),
        ("@compiled\ndef f(x, n):\n    y = np.zeros(3)\n    g((x if n else y).ctypes.data)", "not an argument's"),
        ("def f(x):\n    g(x.__array_interface__['data'][0])", "outside compiled code"),
        ("@compiled\ndef f(n):\n    x = np.empty(n)\n    g(x.ctypes.data)", "not an argument's"),
        ("@compiled\ndef f(x):\n    g(x.copy().ctypes.data)", "not an argument's"),
        ("@compiled\ndef f(x):\n    x = x + 1\n    g(x.ctypes.data)", "not an argument's"),
        ("@compiled\ndef f(x):\n    y = x[0]\n    y = np.zeros(3)\n    g(y.ctypes.data)", "not an argument's"),
        ("@compiled\ndef f(x):\n    a, b = h(x)\n    g(b.ctypes.data)", "not an argument's"),
        ("@compiled\ndef f(x):\n    return x.ctypes.data", "returns an address"),
        ("@compiled\ndef f(x):\n    p = x.ctypes.data + 4\n    return p", "returns an address"),
    ],
)
def test_the_test_sees_what_it_should(body, problem):
    found = problems(body)
    assert found == [] if problem is None else len(found) == 1 and problem in found[0]
