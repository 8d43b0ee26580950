"""What a reward that a language model wrote may say: read as a syntax tree, held against a list of what is allowed, never run.

    check_code(source, Fields(obs, act))

This is the first layer of the sandbox (sandbox.py), and the guard against invented variables: every name must be an argument,
defined before, a declared field, or of the few names of contract.py; what a field's number cannot be is refused as well.  It
knows nothing of what the code computes; what slips through meets the other layers.

Functions, methods and types are no values: they stand where they are called, types also where a type of numbers is meant.  There
are no texts but docstrings and the names of such types, so `%` is of numbers alone.  What is written to is a name, or a part of
what a name stands for.

A reward is one function, `def reward(obs, act, next_obs)`, on N rows at once; a field's name stands for its column, as in
obs[:, height].
"""

from __future__ import annotations

import ast
import keyword
import threading
import unicodedata
from dataclasses import dataclass, field

from robopref.configs.errors import RoboprefError, nearest, visible
from robopref.preference.prof.contract import (
    ATTRIBUTES,
    CONSTANTS,
    MATH,
    METHODS,
    NUMPY,
    PLAIN,
    PLAIN_TYPES,
    TYPE_WORDS,
    TYPES,
    Form,
)

NAME, ARGUMENTS = "reward", ("obs", "act", "next_obs")
LONGEST = 20_000  # characters
LONGEST_REASON = 400  # characters of what is wrong with code
LONGEST_PATH = 3  # names behind the first: more than anything that is allowed has
MOST_NODES = 5_000
ANNOTATION = (
    ast.Name, ast.Attribute, ast.Subscript, ast.Constant, ast.Tuple, ast.List, ast.BinOp, ast.BitOr, ast.expr_context,
)  # fmt: skip
"""What an annotation is made of: it is stripped before the code runs, and calls nothing."""
MODULES = {"np": NUMPY, "math": MATH}
STATEMENTS = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Return, ast.Expr, ast.If, ast.For, ast.Pass,
              ast.Break, ast.Continue)  # fmt: skip
EXPRESSIONS = (
    ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.IfExp, ast.Name, ast.Attribute, ast.Subscript, ast.Slice,
    ast.Constant, ast.Tuple, ast.List, ast.ListComp,
)  # fmt: skip
PARSING = threading.Lock()  # Python 3.11 counts a tree's depth for all threads: to switch within a parse is a SystemError
SMALL_PARTS = (ast.expr_context, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.arguments, ast.arg, ast.keyword, ast.alias)


class RefusedCode(RoboprefError):
    """Code that is not run, and why, in one line of bounded length, since it quotes the code."""

    def __init__(self, why: str) -> None:
        super().__init__(short_reason(why))


def short_reason(text: str) -> str:
    """Return text from elsewhere as one line of at most LONGEST_REASON letters that a terminal, a table and a file can take."""
    plain = visible(" ".join(text.split()))
    return plain if len(plain) <= LONGEST_REASON else f"{plain[:LONGEST_REASON]} ..."


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
        taken = {*ARGUMENTS, NAME, *MODULES, *PLAIN}
        return {k: v for k, v in self._columns.items() if k.isidentifier() and not keyword.iskeyword(k) and k not in taken}


@dataclass
class Places:
    """Numbers (`id`) of the nodes of a function that stand in places where more, or other things, are allowed."""

    called: set[int] = field(default_factory=set)
    owners: set[int] = field(default_factory=set)  # what stands in front of an attribute's dot
    typed: set[int] = field(default_factory=set)  # where a type of numbers is meant
    index: set[int] = field(default_factory=set)  # in brackets behind an array
    alone: set[int] = field(default_factory=set)  # texts on their own, which nothing reads
    annotations: set[int] = field(default_factory=set)  # which the child strips before it runs the code


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
    except (ValueError, RecursionError, MemoryError) as error:  # half a character; nesting beyond what the parser can do
        raise RefusedCode(f"it cannot be read: {error or type(error).__name__}") from None
    if sum(1 for _ in ast.walk(tree)) > MOST_NODES:
        raise RefusedCode(f"the code has more than {MOST_NODES} parts")
    function = the_function(tree)
    places = places_of(function)
    for node in ast.walk(function):
        if node is function or id(node) in places.annotations:
            continue
        if problem := refusal(node, places):
            raise RefusedCode(f"line {line_of(node, function)}: {problem}")
    check_names(function, fields, places)
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
        elif isinstance(node, ast.ImportFrom) and node.module == "__future__" and [a.name for a in node.names] == ["annotations"]:
            continue  # they are stripped
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
        if annotation is not None and (problem := annotated(annotation)):
            raise RefusedCode(f"line {annotation.lineno}: {problem}")
    return function


def annotated(annotation: ast.expr) -> str | None:
    """Why an annotation is not allowed."""
    strange = next((node for node in ast.walk(annotation) if not isinstance(node, ANNOTATION)), None)
    return None if strange is None else f"{type(strange).__name__} is not allowed in an annotation"


def places_of(function: ast.FunctionDef) -> Places:
    """Where the nodes of a function stand."""
    found = Places()
    for node in ast.walk(function):
        for name in ("annotation", "returns"):
            if (annotation := getattr(node, name, None)) is not None:
                found.annotations |= {id(part) for part in ast.walk(annotation)}
        if isinstance(node, ast.Call):
            found.called.add(id(node.func))
            form = form_of(node.func)
            typed = [word.value for word in node.keywords if word.arg == "dtype"]
            if form is not None and form.dtype is not None:
                typed += node.args[form.dtype : form.dtype + 1]
            found.typed |= {id(part) for part in typed}
        elif isinstance(node, ast.Attribute):
            found.owners.add(id(node.value))
        elif isinstance(node, ast.Subscript):
            inside = [node.slice, *(node.slice.elts if isinstance(node.slice, ast.Tuple) else ())]
            found.index |= {id(part) for part in inside}
        elif isinstance(node, ast.Expr):
            found.alone.add(id(node.value))
    return found


def refusal(node: ast.AST, places: Places) -> str | None:
    """Why a node is not allowed; names are looked at elsewhere."""
    if isinstance(node, ast.stmt):
        return statement(node)
    if isinstance(node, ast.expr):
        return expression(node, places)
    if isinstance(node, ast.comprehension):
        if node.is_async or not is_range(node.iter) or not isinstance(node.target, ast.Name):
            return "a comprehension is `for i in range(...)`"
        return target(node.target)
    return None if isinstance(node, SMALL_PARTS) else f"{type(node).__name__} is not allowed"


def statement(node: ast.stmt) -> str | None:
    """Likewise of a statement."""
    if not isinstance(node, STATEMENTS):
        return f"{type(node).__name__} is not allowed"
    if isinstance(node, ast.Expr) and not is_text(node):
        return "an expression on its own does nothing"
    if isinstance(node, ast.For):
        if node.orelse or not is_range(node.iter) or not isinstance(node.target, ast.Name):
            return "a loop is `for i in range(...)`"
        return target(node.target)
    if isinstance(node, ast.Assign):
        return next((problem for part in node.targets if (problem := target(part))), None)
    if isinstance(node, ast.AnnAssign) and (problem := annotated(node.annotation)):
        return problem
    return target(node.target) if isinstance(node, ast.AugAssign | ast.AnnAssign) else None


def target(node: ast.expr) -> str | None:
    """Likewise of what is written to."""
    waiting = [node]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.Tuple | ast.List):
            waiting += part.elts
            continue
        while isinstance(part, ast.Subscript):
            part = part.value
        if isinstance(part, ast.Attribute):
            return "an attribute cannot be set"
        if not isinstance(part, ast.Name):
            return "only a name, or a part of what a name stands for, can be set"
        if part.id in ARGUMENTS:
            return "the arguments cannot be changed"
    return None


def expression(node: ast.expr, places: Places) -> str | None:
    """Likewise of an expression."""
    if not isinstance(node, EXPRESSIONS):
        return f"{type(node).__name__} is not allowed"
    if isinstance(node, ast.Constant):
        return constant(node, places)
    if isinstance(node, ast.Attribute):
        return attribute(node, places)
    if isinstance(node, ast.List | ast.Tuple) and id(node) not in places.index and any(map(is_none, node.elts)):
        return "None is not allowed in a list"
    return call(node) if isinstance(node, ast.Call) else None


def constant(node: ast.Constant, places: Places) -> str | None:
    """Likewise of a constant."""
    value = node.value
    if isinstance(value, str):
        if id(node) in places.alone or (id(node) in places.typed and value in TYPE_WORDS):
            return None
        return "a text is not allowed, but for a docstring and the name of a type of numbers"
    if value is ... and id(node) not in places.index:
        return "... is not allowed outside of brackets behind an array"
    if type(value) is int and value >= 2**63:
        return "an integer of more than 64 bits is not allowed"
    if not isinstance(value, bool | int | float | type(None) | type(...)):
        return f"a constant of type {type(value).__name__} is not allowed"
    return None


def call(node: ast.Call) -> str | None:
    """Likewise of a call: of what may be called, with as many arguments and with the keywords that it may have."""
    if not isinstance(node.func, ast.Name | ast.Attribute):
        return "only a name can be called"
    if any(word.arg is None for word in node.keywords):
        return "** is not allowed"
    if (form := form_of(node.func)) is None:
        return None  # what it is, attribute() or check_names() says
    name = called_name(node.func)
    for word in node.keywords:
        if word.arg not in form.keywords:
            allowed = f"; {name} has {', '.join(sorted(form.keywords))}" if form.keywords else ""
            return f"{name} with {word.arg}= is not allowed{allowed}"
    if len(node.args) > form.most or len(node.args) + len(node.keywords) < form.least:
        few, many = form.least, form.most
        return f"{name} takes {few if few == many else f'{few} to {many}'} arguments without a name, not {len(node.args)}"
    if any(map(is_none, node.args)) and not form.keywords & {"axis", "min"}:  # no axis, no bound
        return f"{name} of None is not allowed"
    return None


def attribute(node: ast.Attribute, places: Places) -> str | None:
    """Likewise of an attribute, of a module or of an array."""
    path = dotted(node)
    if node.attr.startswith("_"):
        return f"{node.attr}: nothing that begins with an underscore"
    if path == "np.linalg":
        return None if id(node) in places.owners else f"{path} alone cannot be used, only np.linalg.norm"
    if is_module(node):
        module, _, name = path.partition(".")
        functions = MODULES[module]
        if name in CONSTANTS[module]:
            return None if id(node) not in places.called else f"{path} cannot be called"
        if name not in functions:
            return f"{path} is not allowed.{nearest(name, [*functions, *CONSTANTS[module]])}"
        if id(node) in places.called or (name in TYPES and module == "np" and id(node) in places.typed):
            return None
        return f"{path} is a function: it can only be called"
    if node.attr in ATTRIBUTES or (node.attr == "dtype" and id(node) in places.typed):
        return None if id(node) not in places.called else f".{node.attr} cannot be called"
    if node.attr not in METHODS:
        return f".{node.attr} is not allowed.{nearest(node.attr, [*METHODS, *ATTRIBUTES])}"
    return None if id(node) in places.called else f".{node.attr} is a method: write .{node.attr}(...)"


def form_of(function: ast.expr) -> Form | None:
    """How what stands in front of the brackets of a call may be called; None: not at all."""
    if isinstance(function, ast.Name):
        return PLAIN.get(function.id)
    if not isinstance(function, ast.Attribute):
        return None
    if is_module(function):
        module, _, name = dotted(function).partition(".")
        return MODULES[module].get(name)
    return METHODS.get(function.attr)


def called_name(function: ast.expr) -> str:
    """What a function or method is called in a message."""
    if isinstance(function, ast.Attribute):
        return dotted(function) if is_module(function) else f".{function.attr}"
    return dotted(function)


def is_module(node: ast.Attribute) -> bool:
    """Whether it is np.NAME, np.linalg.NAME or math.NAME."""
    module, _, rest = dotted(node).partition(".")
    return module in MODULES and (rest.count(".") == 0 or rest.startswith("linalg."))


def dotted(node: ast.expr) -> str:
    """NAME.NAME.NAME that is written there, and an empty text for anything else; no recursion, which code could exhaust."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute) and len(parts) < LONGEST_PATH:
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def check_names(function: ast.FunctionDef, fields: Fields, places: Places) -> None:
    """RefusedCode for a name that nothing defines: often a quantity that the model invented."""
    defined = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for name in sorted(defined):
        if name.startswith("__") or name in (*MODULES, *PLAIN, NAME, *fields.columns):
            raise RefusedCode(f"{name}: this name cannot be given to something else")
    known = {*ARGUMENTS, *fields.columns, *PLAIN, *MODULES, *defined}
    for node in ast.walk(function):
        if not isinstance(node, ast.Name) or id(node) in places.annotations:
            continue
        if node.id not in known:
            raise RefusedCode(
                f"line {node.lineno}: {node.id} is not defined; declared fields and arguments are all there is."
                f"{nearest(node.id, (*ARGUMENTS, *fields.columns)) or nearest(node.id, known)}"
            )
        if node.id in MODULES and id(node) not in places.owners:
            raise RefusedCode(f"line {node.lineno}: {node.id} alone cannot be used, only what is in it")
        if id(node) in places.called and node.id not in PLAIN:
            raise RefusedCode(f"line {node.lineno}: {node.id} cannot be called")
        typed = node.id in PLAIN_TYPES and id(node) in places.typed
        if node.id in PLAIN and id(node) not in places.called and not typed:
            raise RefusedCode(f"line {node.lineno}: {node.id} is a function: it can only be called")


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


def is_none(node: ast.expr) -> bool:
    """Whether it is None."""
    return isinstance(node, ast.Constant) and node.value is None


def is_range(node: ast.expr) -> bool:
    """Whether it is range(...)."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range"


def line_of(node: ast.AST, function: ast.FunctionDef) -> int:
    """Where a node stands; small parts have no line of their own."""
    return int(getattr(node, "lineno", function.lineno))
