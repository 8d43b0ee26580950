"""What reward code may use: a few functions of numpy, math and Python, methods of arrays, and how each may be called.

Read by code.py, which holds a syntax tree against it, by sandbox.py, which gives code these names and no others, and by
prompts.py, which tells a language model.  A function has the positional arguments and keywords that are listed, and nothing else:
no `out` and `where` of element-wise functions, `buffer`, `key` or `like`, by which code could reach memory that nobody has
written, or call what it is given.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Form:
    """How a function may be called."""

    least: int  # positional arguments
    most: int
    keywords: frozenset[str]
    dtype: int | None  # which positional argument is a type of numbers, as the keyword `dtype` is


# NAMES: LEAST or LEAST-MOST positional arguments, keywords.  `2=dtype`: the one of this number, from 0 on, is a type.
# 32: as many as there is a use for.
OF_NUMPY = """
abs absolute arccos arcsin arctan cbrt ceil cos cosh deg2rad degrees exp exp2 expm1 fabs floor isfinite isinf isnan log log10
log1p log2 logical_not negative rad2deg radians rint sign sin sinh sqrt square tan tanh: 1
add arctan2 copysign divide equal fmax fmin greater greater_equal heaviside hypot less less_equal logaddexp logical_and logical_or
logical_xor matmul maximum minimum mod multiply not_equal power remainder subtract true_divide: 2
all any: 1-2 axis keepdims where
amax amin max min: 1-2 axis keepdims initial where
prod sum: 1-3 axis keepdims initial where dtype 2=dtype
mean: 1-3 axis keepdims where dtype 2=dtype
std var: 1-3 axis keepdims where dtype ddof 2=dtype
median: 1-2 axis keepdims
average: 1-3 axis weights keepdims
argmax argmin: 1-2 axis keepdims
cumsum: 1-3 axis dtype 2=dtype
allclose isclose: 2-4 rtol atol equal_nan
arange: 1-4 start stop step dtype 3=dtype
array asarray: 1-2 dtype copy 1=dtype
ones zeros: 1-2 shape dtype 1=dtype
ones_like zeros_like: 1-2 dtype shape 1=dtype
full full_like: 2-3 fill_value dtype shape 2=dtype
around round: 1-2 decimals
atleast_1d atleast_2d copy column_stack hstack ravel vstack: 1
broadcast_to reshape: 1-2 shape
clip: 1-3 a_min a_max min max
concatenate stack: 1-2 axis
cross: 2 axis
diff: 1-3 n axis prepend append
dot: 2
expand_dims squeeze: 1-2 axis
linalg.norm: 1-4 ord axis keepdims
nan_to_num: 1 nan posinf neginf
repeat: 2-3 axis
select: 2-3 default
split: 2-3 axis
swapaxes: 3
tile: 2
transpose: 1-2 axes
where: 1-3
bool_ float32 float64 int32 int64: 1
"""
OF_MATH = """
acos asin atan ceil cos cosh degrees exp fabs floor isfinite log10 radians sin sinh sqrt tan tanh: 1
log: 1-2
atan2 pow: 2
hypot: 1-32
"""
OF_PYTHON = """
abs bool float int len: 1
max min: 1-32
range: 1-3
round: 1-2 ndigits
sum: 1-2 start
"""
OF_ARRAYS = """
all any: 0-1 axis keepdims where
max min: 0-1 axis keepdims initial where
prod sum: 0-2 axis keepdims initial where dtype 1=dtype
mean: 0-2 axis keepdims where dtype 1=dtype
std var: 0-2 axis keepdims where dtype ddof 1=dtype
astype: 1 dtype copy 0=dtype
clip: 0-2 min max
copy flatten ravel: 0
dot: 1
reshape: 1-32
round: 0-1 decimals
squeeze: 0-1 axis
transpose: 0-32
"""
CONSTANTS = {"np": frozenset({"e", "inf", "nan", "newaxis", "pi"}), "math": frozenset({"e", "inf", "pi", "tau"})}
ATTRIBUTES = frozenset({"T", "ndim", "shape", "size"})
"""What arrays have and is no method."""
TYPES = frozenset({"bool_", "float32", "float64", "int32", "int64"})
"""Types of numbers, of numpy; those of Python are PLAIN_TYPES."""
PLAIN_TYPES = frozenset({"bool", "float", "int"})
TYPE_WORDS = frozenset({"bool", "float", "int", "float32", "float64", "int32", "int64", "f4", "f8", "i4", "i8"})
"""The only texts that code may hold beside docstrings, and only where a type is meant."""


def forms(table: str) -> dict[str, Form]:
    """How each function of one of the tables above may be called."""
    found: dict[str, Form] = {}
    names: list[str] = []
    for line in table.strip().splitlines():
        words, colon, rest = line.partition(":")
        names += words.split()
        if not colon:  # the names go on in the next line
            continue
        count, *others = rest.split()
        least, _, most = count.partition("-")
        place = next((int(word.partition("=")[0]) for word in others if "=" in word), None)
        keywords = frozenset(word for word in others if "=" not in word)
        found |= dict.fromkeys(names, Form(int(least), int(most or least), keywords, place))
        names = []
    return found


NUMPY, MATH, PLAIN, METHODS = (forms(table) for table in (OF_NUMPY, OF_MATH, OF_PYTHON, OF_ARRAYS))
"""Functions of numpy, without `np.`, of math and of Python, and methods of arrays."""
