"""What a reward that a language model wrote may say: read as a syntax tree, held against a list of what is allowed, never run.

    check_code(source, Fields(obs, act))

This is the first layer of the sandbox (sandbox.py), and the guard against invented variables: every name must be an argument,
defined before, a declared field, or of the few names here; what a field's number cannot be is refused as well.  It knows nothing
of what the code computes; what slips through meets the other layers.

A reward is one function, `def reward(obs, act, next_obs)`, on N rows at once; a field's name stands for its column, as in
obs[:, height].
"""

from __future__ import annotations

import ast
import keyword
import threading
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from robopref.configs.errors import RoboprefError, nearest
from robopref.preference.prof.child import FUNCTIONS, MATH, PLAIN

NAME, ARGUMENTS = "reward", ("obs", "act", "next_obs")
LONGEST = 20_000  # characters
MOST_NODES = 5_000
OF_ARRAYS = """
T all any astype clip copy dot flatten max mean min ndim prod ravel reshape round shape size squeeze std sum transpose var
"""
METHODS = frozenset(OF_ARRAYS.split())
STATEMENTS = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr, ast.If, ast.For, ast.Pass)
EXPRESSIONS = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.IfExp, ast.Name, ast.Attribute, ast.Subscript, ast.Slice,
    ast.Constant, ast.Tuple, ast.List, ast.ListComp,
)  # fmt: skip
PARSING = threading.Lock()  # Python 3.11 counts a tree's depth for all threads: to switch within a parse is a SystemError
SMALL_PARTS = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.arguments, ast.arg, ast.keyword, ast.alias)


class RefusedCode(RoboprefError):
    """Code that is not run, and why."""


@dataclass(frozen=True)
class Fields:
    """Names of the columns of observations and actions, in their order, in the form that Python gives to names in code (NFKC).

    Names that are not identifiers cannot be used.
    """

    obs: tuple[str, ...]
    act: tuple[str, ...]
    _columns: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for attribute in ("obs", "act"):
            names = tuple(unicodedata.normalize("NFKC", name) for name in getattr(self, attribute))
            object.__setattr__(self, attribute, names)
            for number, name in enumerate(names):
                if self._columns.setdefault(name, number) != number:
                    raise RoboprefError(f"two fields are called {name}: give every column a name of its own")

    @property
    def columns(self) -> dict[str, int]:
        """What a field's name stands for in code."""
        taken = {*ARGUMENTS, NAME, "np", "math", *PLAIN}
        return {k: v for k, v in self._columns.items() if k.isidentifier() and not keyword.iskeyword(k) and k not in taken}


def check_code(source: str, fields: Fields) -> None:
    """RefusedCode, which names the line, unless all of `source` is on the list."""
    if len(source) > LONGEST:
        raise RefusedCode(f"the code is {len(source)} characters long; at most {LONGEST}")
    try:
        with PARSING:
            tree = ast.parse(source.removeprefix("\ufeff"))  # a byte order mark; names in the tree are in Python's form, NFKC
    except SyntaxError as error:
        where = "it cannot be read" if error.lineno is None else f"line {error.lineno}"  # None: of a null byte
        raise RefusedCode(f"{where}: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:  # a null byte; nesting beyond what the parser can do
        raise RefusedCode(f"it cannot be read: {error or type(error).__name__}") from None
    if sum(1 for _ in ast.walk(tree)) > MOST_NODES:
        raise RefusedCode(f"the code has more than {MOST_NODES} parts")
    function = the_function(tree)
    for node in ast.walk(function):
        if node is not function and (problem := refusal(node)):
            raise RefusedCode(f"line {line_of(node, function)}: {problem}")
    check_names(function, fields)
    check_columns(function, fields)
    if not any(isinstance(node, ast.Return) and node.value is not None for node in ast.walk(function)):
        raise RefusedCode(f"line {function.lineno}: it returns nothing")


def the_function(tree: ast.Module) -> ast.FunctionDef:
    """The only function of a module that holds nothing else but a docstring and imports of numpy and math."""
    functions = []
    for number, node in enumerate(tree.body):
        if isinstance(node, ast.FunctionDef):
            functions.append(node)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if (alias.name, alias.asname or alias.name) not in (("numpy", "np"), ("math", "math")):
                    raise RefusedCode(f"line {node.lineno}: only `import numpy as np` and `import math`")
        elif not (number == 0 and is_text(node)):
            raise RefusedCode(f"line {node.lineno}: nothing but one function and its imports")
    if len(functions) != 1 or functions[0].name != NAME:
        raise RefusedCode(f"there must be one function, called {NAME}")
    (function,) = functions
    arguments = function.args
    names = tuple(argument.arg for argument in arguments.args)
    others = (*arguments.posonlyargs, *arguments.kwonlyargs, *arguments.defaults, arguments.vararg, arguments.kwarg)
    if names != ARGUMENTS or any(others) or function.decorator_list or getattr(function, "type_params", None):
        raise RefusedCode(f"line {function.lineno}: write def {NAME}({', '.join(ARGUMENTS)})")
    for annotation in (*(argument.annotation for argument in arguments.args), function.returns):
        if annotation is not None and ast.unparse(annotation) not in ("np.ndarray", "float"):
            raise RefusedCode(f"line {annotation.lineno}: the only annotation here is np.ndarray")
    return function


def refusal(node: ast.AST) -> str | None:
    """Why a node is not allowed; names are looked at elsewhere."""
    if isinstance(node, ast.stmt):
        return statement(node)
    if isinstance(node, ast.expr):
        return expression(node)
    if isinstance(node, ast.comprehension):
        return "a comprehension runs over range(...)" if node.is_async or not is_range(node.iter) else None
    return None if isinstance(node, SMALL_PARTS) else f"{type(node).__name__} is not allowed"


def statement(node: ast.stmt) -> str | None:
    """Likewise of a statement."""
    if not isinstance(node, STATEMENTS):
        return f"{type(node).__name__} is not allowed"
    if isinstance(node, ast.Expr) and not is_text(node):
        return "an expression on its own does nothing"
    if isinstance(node, ast.For) and (node.orelse or not is_range(node.iter) or not isinstance(node.target, ast.Name)):
        return "a loop is `for i in range(...)`"
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        for target in node.targets if isinstance(node, ast.Assign) else (node.target,):
            parts = target.elts if isinstance(target, ast.Tuple | ast.List) else [target]
            if any(isinstance(part, ast.Attribute) for part in parts):
                return "an attribute cannot be set"
            if any(root(part) in ARGUMENTS for part in parts):
                return "the arguments cannot be changed"
    return None


def expression(node: ast.expr) -> str | None:
    """Likewise of an expression."""
    if not isinstance(node, EXPRESSIONS):
        return f"{type(node).__name__} is not allowed"
    if isinstance(node, ast.Constant) and not isinstance(node.value, str | bool | int | float | type(None) | type(...)):
        return f"a constant of type {type(node.value).__name__} is not allowed"
    if isinstance(node, ast.Attribute):
        return attribute(node)
    if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name | ast.Attribute):
        return "only a name can be called"
    if isinstance(node, ast.Call) and any(word.arg is None for word in node.keywords):
        return "** is not allowed"
    return None


def attribute(node: ast.Attribute) -> str | None:
    """Likewise of an attribute, of a module or a method of arrays."""
    path = ast.unparse(node)
    if node.attr.startswith("_"):
        return f"{node.attr}: nothing that begins with an underscore"
    if path == "np.linalg" or (isinstance(node.value, ast.Name) and node.value.id == "np"):
        known = FUNCTIONS
        return (
            None
            if path == "np.linalg" or path.removeprefix("np.") in known
            else f"{path} is not allowed.{nearest(path[3:], known)}"
        )
    if path.startswith("np.linalg."):
        return None if path.removeprefix("np.") in FUNCTIONS else f"{path} is not allowed"
    if isinstance(node.value, ast.Name) and node.value.id == "math":
        return None if node.attr in MATH else f"{path} is not allowed.{nearest(node.attr, MATH)}"
    return None if node.attr in METHODS else f".{node.attr} is not allowed.{nearest(node.attr, METHODS)}"


def check_names(function: ast.FunctionDef, fields: Fields) -> None:
    """RefusedCode for a name that nothing defines: often a quantity that the model invented."""
    defined = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    modules = {"np", "math"}
    for name in sorted(defined):
        if name.startswith("_") or name in (*modules, *PLAIN, NAME, *fields.columns):
            raise RefusedCode(f"{name}: this name cannot be given to something else")
    known = {*ARGUMENTS, *fields.columns, *PLAIN, *modules, *defined}
    attributes = {id(node.value) for node in ast.walk(function) if isinstance(node, ast.Attribute)}
    calls = {id(node.func) for node in ast.walk(function) if isinstance(node, ast.Call)}
    annotations = {id(part) for node in ast.walk(function) for part in annotation_parts(node)}
    for node in ast.walk(function):
        if not isinstance(node, ast.Name) or id(node) in annotations:
            continue
        if node.id not in known:
            raise RefusedCode(
                f"line {node.lineno}: {node.id} is not defined; declared fields and arguments are all there is."
                f"{nearest(node.id, (*ARGUMENTS, *fields.columns)) or nearest(node.id, known)}"
            )
        if node.id in modules and id(node) not in attributes:
            raise RefusedCode(f"line {node.lineno}: {node.id} alone cannot be used, only what is in it")
        if id(node) in calls and node.id not in PLAIN:
            raise RefusedCode(f"line {node.lineno}: {node.id} cannot be called")


def annotation_parts(node: ast.AST) -> Iterator[ast.AST]:
    """All parts of a node's annotation: words for readers, which are not evaluated."""
    for name in ("annotation", "returns"):
        if (found := getattr(node, name, None)) is not None:
            yield from ast.walk(found)


def check_columns(function: ast.FunctionDef, fields: Fields) -> None:
    """RefusedCode for a column of an argument that is not there."""
    widths = {"obs": len(fields.obs), "act": len(fields.act), "next_obs": len(fields.obs)}
    for node in ast.walk(function):
        if not (isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id in widths):
            continue
        if not (isinstance(node.slice, ast.Tuple) and len(node.slice.elts) == 2):
            continue
        column, width, name = node.slice.elts[1], widths[node.value.id], node.value.id
        owner = fields.act if name == "act" else fields.obs
        if isinstance(column, ast.Name) and column.id in fields.columns and column.id not in owner:
            raise RefusedCode(f"line {node.lineno}: {name} has no field {column.id}.{nearest(column.id, owner)}")
        number = constant_int(column)
        if number is not None and not -width <= number < width:
            raise RefusedCode(f"line {node.lineno}: {name} has columns 0 to {width - 1}, not {number}")


def constant_int(node: ast.expr) -> int | None:
    """The integer that is written there, if one is."""
    sign = 1
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        node, sign = node.operand, -1
    if isinstance(node, ast.Constant) and type(node.value) is int:
        return sign * node.value
    return None


def is_text(node: ast.stmt) -> bool:
    """Whether it is a docstring or another text on its own."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def is_range(node: ast.expr) -> bool:
    """Whether it is range(...)."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"


def root(node: ast.expr) -> str | None:
    """The name that a target such as a[0][:, 1] begins with."""
    while isinstance(node, ast.Subscript | ast.Attribute | ast.Starred):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def line_of(node: ast.AST, function: ast.FunctionDef) -> int:
    """Where a node stands; small parts have no line of their own."""
    return int(getattr(node, "lineno", function.lineno))
