"""What reward code, its process and a language model may try, and whether each is held.

    python tests/attacks.py

`READER`: code that must be refused before it is run.  `BEHIND`: code that is run with the reader switched off, by which nothing
may leave the process.  `DEPENDENT`: code that the reader has to let through, and whose values are of more than one row.
`REPLIES`: what a process may say in place of an answer.  `ANSWERS`: what a language model may say, none of which may end
`robopref prof`.  tests/test_prof_attacks.py holds each; this program counts them into attacks.csv.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np

from robopref.configs.prof import PROFConfig, SandboxConfig
from robopref.preference.prof import sandbox
from robopref.preference.prof.code import Fields, RefusedCode, check_code
from robopref.preference.prof.sandbox import Conversation, FailedCode, Rows, Said, Sandbox

FIELDS = Fields(obs=("height", "speed", "angle"), act=("torque",))
N = 200
COLUMNS = ("kind", "bubblewrap", "tried", "held")


def code(*lines: str) -> str:
    return "def reward(obs, act, next_obs):\n" + "".join(f"    {line}\n" for line in lines)


def lines_of(text: str) -> dict[str, str]:
    """A line of a table that stands for a body of one line, under its own name."""
    return {line.strip(): code(*line.strip().split("; ")) for line in text.strip().splitlines()}


READER = {
    "import os": "import os\n" + code("return obs[:, 0]"),
    "import another way": "from os import system\n" + code("return obs[:, 0]"),
    "import inside": code("import subprocess", "return obs[:, 0]"),
    "numpy under another name": "import numpy as os\n" + code("return obs[:, 0]"),
    "a part of numpy": "import numpy.ctypeslib\n" + code("return obs[:, 0]"),
    "__import__": code("return __import__('os').system('true') + obs[:, 0]"),
    "open": code("return obs[:, 0] + len(open('/etc/passwd').read())"),
    "eval": code("return eval('obs[:, 0]')"),
    "exec": code("exec('x = 1')", "return obs[:, 0]"),
    "compile": code("return compile('1', '', 'eval')"),
    "getattr": code("return getattr(np, 'load')('x')"),
    "globals": code("return globals()['np']"),
    "vars": code("return vars(np)"),
    "print": code("x = print(obs)", "return obs[:, 0]"),
    "input": code("return obs[:, 0] + float(input())"),
    "breakpoint": code("x = breakpoint()", "return obs[:, 0]"),
    "np.load": code("return np.load('x.npy')"),
    "np.fromfile": code("return np.fromfile('/etc/passwd', np.int8)"),
    "np.memmap": code("return np.memmap('/etc/passwd')"),
    "np.genfromtxt": code("return np.genfromtxt('/etc/passwd')"),
    "np.save": code("x = np.save('x', obs)", "return obs[:, 0]"),
    "tofile": code("x = obs.tofile('x')", "return obs[:, 0]"),
    "dump": code("x = obs.dump('x')", "return obs[:, 0]"),
    "ctypes": code("return obs.ctypes.data"),
    "np.random": code("return np.random.rand(len(obs))"),
    "np.vectorize": code("return np.vectorize(abs)(obs[:, 0])"),
    "np.linalg.inv": code("return np.linalg.inv(obs)"),
    "dunder walk": code("return ().__class__.__base__.__subclasses__()"),
    "dunder of an array": code("return obs.__class__"),
    "dunder of a function": code("return reward.__globals__"),
    "private attribute": code("return np._core"),
    "format string": code("return f'{obs.__class__}'"),
    "format method": code("return '{0.__class__}'.format(obs)"),
    "endless while": code("while True:", "    pass", "return obs[:, 0]"),
    "loop over rows of data": code("for row in obs:", "    pass", "return obs[:, 0]"),
    "lambda": code("return (lambda: obs[:, 0])()"),
    "walrus": code("return (x := obs[:, 0])"),
    "generator": code("return sum(x for x in range(3)) + obs[:, 0]"),
    "yield": code("yield obs"),
    "await": "async def reward(obs, act, next_obs):\n    return obs[:, 0]\n",
    "class": "class A:\n    pass\n" + code("return obs[:, 0]"),
    "decorator": "@np.abs\n" + code("return obs[:, 0]"),
    "default argument": "def reward(obs, act, next_obs, kept=[]):\n    return obs[:, 0]\n",
    "a second function": code("return obs[:, 0]") + "def other():\n    pass\n",
    "code beside the function": "x = 1\n" + code("return obs[:, 0]"),
    "global": code("global x", "x = 1", "return obs[:, 0]"),
    "try": code("try:", "    x = 1", "except Exception:", "    x = 2", "return obs[:, 0] * x"),
    "with": code("with np.errstate():", "    return obs[:, 0]"),
    "del": code("del obs", "return act[:, 0]"),
    "assert": code("assert True", "return obs[:, 0]"),
    "raise": code("raise SystemExit"),
    "another name for np": code("np = 1", "return obs[:, 0]"),
    "another name for abs": code("abs = np.exp", "return abs(obs[:, 0])"),
    "np handed on": code("x = np", "return x.load('y')"),
    "setting an attribute": code("obs.shape = (1,)", "return obs[:, 0]"),
    "changing the data": code("obs[:, 0] = 1.0", "return obs[:, 0]"),
    "changing the data by augmenting": code("next_obs[0] += 1.0", "return obs[:, 0]"),
    "unpacking words": code("return np.sum(**{'a': obs})"),
    "a call of a call": code("return np.abs(obs)(1)"),
    "bytes": code("return obs[:, 0] + len(b'abc')"),
    "complex numbers": code("return obs[:, 0] * 1j"),
    "dictionary": code("return {'a': obs[:, 0]}['a']"),
    "invented field": code("return obs[:, distance_to_goal]"),
    "invented variable": code("return -np.abs(obs[:, height] - target_height)"),
    "field of the other argument": code("return obs[:, torque]"),
    "a column beyond the last": code("return obs[:, 3]"),
    "a column before the first": code("return next_obs[:, -4]"),
    "an action beyond the last": code("return act[:, 1]"),
    "nothing returned": code("x = obs[:, 0]"),
    "no function": "x = 1",
    "another function": "def f(obs, act, next_obs):\n    return obs[:, 0]\n",
    "other arguments": "def reward(obs, action, next_obs):\n    return obs[:, 0]\n",
    "not Python": "def reward(obs, act, next_obs)\n    return",
    "a null byte": code("return obs[:, 0]\0"),
    "open in wide letters": code("return obs[:, 0] + len(ｏｐｅｎ('/etc/passwd').read())"),
    "__import__ in wide letters": code("return ＿＿import＿＿('os').system('true') + obs[:, 0]"),
    "an attribute with a wide underscore": code("return obs.＿_class__"),
    "numpy's load with a ligature": code("return np.ﬁx(obs[:, 0])"),
    "np.load in mathematical letters": code("return np.𝐥𝐨𝐚𝐝('x')"),
    "another name for np in wide letters": code("ｎｐ = 1", "return obs[:, 0]"),
    "an argument changed in wide letters": code("ｏｂｓ[:, 0] = 1.0", "return obs[:, 0]"),
    "a field given away in wide letters": code("ｈeight = 1.0", "return obs[:, 0] * height"),
    "import in wide letters": "import ｏｓ\n" + code("return obs[:, 0]"),
    "a name that reads the other way": code("x\u202e = 1.0", "return obs[:, 0] * x"),
    "half a character": code("return obs[:, 0] + len('\ud800')"),
    "two byte order marks": "\ufeff\ufeff" + code("return obs[:, 0]"),
    "deep nesting": code("return " + "(" * 500 + "obs[:, 0]" + ")" * 500),
    "a chain of signs": code("return " + "-" * 9000 + "obs[:, 0]"),
    "much code": code(*["x = obs[:, 0] + 1"] * 900, "return x"),
    "very much code": code("return obs[:, 0]" + "  # long" * 4000),
    "a number of 5,000 digits": code("return obs[:, 0] * " + "9" * 5000),
    "an annotation that is run": "def reward(obs: __import__('os').system('true'), act, next_obs):\n    return obs[:, 0]\n",
    "an annotation of the result that is run": (
        "def reward(obs, act, next_obs) -> __import__('os').system('true'):\n    return obs[:, 0]\n"
    ),
    "an annotation of a part": code("r = np.zeros(3)", "r[0]: __import__('os') = 1", "return obs[:, 0]"),
    "an annotation of a name": code("r: np.load('x') = 1", "return obs[:, 0]"),
    "a text that is a docstring too late": code("x = '''doc'''", "return obs[:, 0]"),
    "words by position": "def reward(obs, act, next_obs, /):\n    return obs[:, 0]\n",
    "more arguments": "def reward(obs, act, next_obs, *more):\n    return obs[:, 0]\n",
    "arguments with names": "def reward(obs, act, next_obs, **more):\n    return obs[:, 0]\n",
    "match": code("match obs:", "    case _:", "        return obs[:, 0]"),
    "except groups": code("try:", "    x = 1", "except* Exception:", "    x = 2", "return obs[:, 0]"),
    "a function inside": code("def f():", "    return 1", "return obs[:, 0]"),
    "a class inside": code("class A:", "    pass", "return obs[:, 0]"),
    "for with else": code("for i in range(3):", "    x = i", "else:", "    x = 1", "return obs[:, 0]"),
    "an attribute of the data set by a loop": code("for obs.shape in range(3):", "    pass", "return obs[:, 0]"),
    "a module's function replaced by a loop": code("for np.abs in range(3):", "    pass", "return obs[:, 0]"),
    "the data changed by a loop": code("for obs[0] in range(3):", "    pass", "return obs[:, 0]"),
    "an argument replaced by a loop": code("for obs in range(3):", "    pass", "return act[:, 0]"),
    "nonlocal": code("nonlocal x", "return obs[:, 0]"),
    "two functions of one name": code("return obs[:, 0]") + code("return obs[:, 1]"),
    "a third kind of import": "import numpy as np, os\n" + code("return obs[:, 0]"),
    "imports of all": "from numpy import *\n" + code("return obs[:, 0]"),
    **lines_of(
        """
        return np.ndarray((4,), np.float64, obs, -64)
        return np.ndarray((4,), buffer=obs, offset=-64)
        return np.ndarray(4)
        x = np.ndarray; return x((4,), np.float64, obs, -64)
        return obs[:, 0] + len('%s' % np.sum)
        return obs[:, 0] + len('%r' % max)
        return obs[:, 0] + ('%d' % 5 == '5')
        return obs[:, 0] + len('a' * 10)
        return obs[:, 0] + len('a' 'b')
        return obs[:, 0] + ('a' < 'b')
        return obs[:, 0] + int('5')
        return obs[:, 0] + float('nan')
        return obs['height']
        return obs[:, 0] + len(['a', 'b'])
        return obs[:, 0] + len(f'')
        return obs[:, 0] + np.array(['a']).size
        return np.sum(obs, axis='1')
        return np.linalg.norm(obs, 'fro', 1)
        return obs.reshape(-1, order='F')[:3]
        return max([np.load], key=np.abs)
        return max([1, 2], key=abs) + obs[:, 0]
        return min([1, 2], key=float) + obs[:, 0]
        return max([], default=obs)
        return max(obs[:, 0], key=np.exp)
        return int('5', 16) + obs[:, 0]
        return int(5, base=16) + obs[:, 0]
        x = np.abs; return obs[:, 0]
        x = obs.sum; return obs[:, 0]
        x = max; return obs[:, 0]
        x = math.exp; return obs[:, 0]
        x = [np.abs]; return obs[:, 0]
        x = (max, min); return obs[:, 0]
        x = [np.exp for i in range(3)]; return obs[:, 0]
        x = np.exp if obs[0, 0] > 0 else np.log; return obs[:, 0]
        x = np.exp or np.log; return obs[:, 0]
        x = np.float64; return obs[:, 0]
        x = float; return obs[:, 0]
        return obs[:, 0] * (np.abs == np.exp)
        return obs[:, 0] * (np.abs is np.abs)
        return np.select([obs[:, 0] > 0], [np.abs])
        return np.full(3, np.abs)
        return np.array([max])
        return np.array(range)
        return np.where(obs[:, 0] > 0, obs.sum, 1)
        return obs[:, 0] + np.abs[0]
        return obs[:, 0] + max[0]
        return obs[:, 0].astype(np.abs)
        return obs[:, 0].astype(max)
        return np.zeros(3, dtype=np.sum)
        return np.array([1, 2], dtype=object)
        return np.array([1, 2], object)
        return np.array([1, 2], dtype='O')
        return np.array([1, 2], dtype='object')
        return obs[:, 0].astype('O')
        return obs[:, 0].astype('U5')
        return obs[:, 0].astype(str)
        return obs[:, 0].astype('M8[s]')
        return obs[:, 0].astype('V8')
        return obs[:, 0].astype('c16')
        return np.zeros(3, dtype='f4,f4')
        return np.zeros(3, dtype=[('a', 'f4')])
        return np.zeros(3, dtype=(np.float64, 3))
        return np.array([None, 1])
        return np.full(3, None)
        return np.asarray(None)
        return np.array(...)
        return np.array([..., 1])
        return np.where(obs[:, 0] > 0, None, 1)
        return np.empty(len(obs))
        return np.empty_like(obs[:, 0])
        return np.add(obs[:, 0], 1, where=False)
        return np.log(obs[:, 0], where=obs[:, 0] > 0)
        return np.sqrt(obs[:, 0], where=obs[:, 0] > 0)
        return np.divide(obs[:, 0], obs[:, 1], where=obs[:, 1] != 0)
        return np.multiply(obs[:, 0], 2, out=act[:, 0])
        return np.add(obs[:, 0], 1, act[:, 0])
        return np.exp(obs[:, 0], act[:, 0])
        return np.maximum(obs[:, 0], 0, act[:, 0])
        return np.sqrt(obs[:, 0], out=None)
        return np.abs(obs[:, 0], casting=None)
        return np.add(obs[:, 0], 1, dtype=float)
        return np.add(obs[:, 0], 1, subok=False)
        return np.sum(obs, 1, None, act)
        return np.sum(obs, axis=1, out=act)
        return np.mean(obs, 1, None, act)
        return obs.sum(1, None, act)
        return obs.mean(axis=1, out=act)
        return np.clip(obs[:, 0], 0, 1, act[:, 0])
        return np.clip(obs[:, 0], 0, 1, out=act[:, 0])
        return obs[:, 0].clip(0, 1, act[:, 0])
        return np.round(obs[:, 0], 1, act[:, 0])
        return obs[:, 0].round(1, act[:, 0])
        return np.cumsum(obs, 1, None, act)
        return np.stack([obs[:, 0]], 0, act)
        return np.stack([obs[:, 0]], out=act)
        return np.concatenate([obs[:, 0]], 0, act)
        return np.dot(obs[:, 0], obs[:, 0], act)
        return np.matmul(obs, obs.T, out=act)
        return np.median(obs, 1, act)
        return np.median(obs, axis=1, overwrite_input=True)
        return np.argmax(obs, 1, act)
        return np.nan_to_num(obs[:, 0], False)
        return np.nan_to_num(obs[:, 0], copy=False)
        return np.zeros(3, like=obs)
        return np.array(obs, like=obs)
        return np.array(obs, subok=True)
        return np.arange(3, like=obs)
        return np.ones_like(obs, subok=True)
        return np.full(3, 1, like=obs)
        return np.broadcast_to(obs, obs.shape, subok=True)
        return np.average(obs, 1, None, True)
        return np.frompyfunc(max, 1, 1)
        x = [0 for obs.shape in range(3)]; return obs[:, 0]
        x = [0 for np.abs in range(3)]; return obs[:, 0]
        x = [0 for np.abs.x in range(3)]; return obs[:, 0]
        x = [0 for obs[0] in range(3)]; return obs[:, 0]
        x = [0 for obs in range(3)]; return obs[:, 0]
        x = [0 for (np.abs, y) in range(3)]; return obs[:, 0]
        x = [[0 for np.pi in range(3)] for i in range(3)]; return obs[:, 0]
        x = [0 for i in obs]; return obs[:, 0]
        x = [0 for i in range(3) if np.load(i)]; return obs[:, 0]
        x, obs.shape = 1, (3,); return obs[:, 0]
        x, (y, np.abs) = 1, (2, 3); return obs[:, 0]
        x, (y, obs[0]) = 1, (2, 3); return obs[:, 0]
        [x, [y, [np.pi]]] = [1, [2, [3]]]; return obs[:, 0]
        x, *obs = 1, 2; return obs
        *x, y = obs; return obs[:, 0]
        np.abs = 1; return obs[:, 0]
        np.pi = 3; return obs[:, 0]
        np.linalg.norm = 1; return obs[:, 0]
        math.pi = 3; return obs[:, 0]
        np.abs += 1; return obs[:, 0]
        np.pi: float = 3; return obs[:, 0]
        np.abs.x = 1; return obs[:, 0]
        np.abs[0] = 1; return obs[:, 0]
        np.pi[0] = 1; return obs[:, 0]
        reward.x = 1; return obs[:, 0]
        reward[0] = 1; return obs[:, 0]
        obs.T[0] = 1; return obs[:, 0]
        obs.T[0] += 1; return obs[:, 0]
        x = act; x.T[0] = 1; return obs[:, 0]
        x = act; x.shape = 1; return obs[:, 0]
        x = act; x[0].shape = 1; return obs[:, 0]
        np.zeros(3)[0] = 1; return obs[:, 0]
        [1, 2][0] = 1; return obs[:, 0]
        obs[0][1] = 1; return obs[:, 0]
        obs: np.ndarray = act; return obs[:, 0]
        obs = act; return obs[:, 0]
        obs, x = act, 1; return obs[:, 0]
        max = 1; return obs[:, 0]
        len: int = 3; return obs[:, 0]
        reward = 1; return obs[:, 0]
        math = 1; return obs[:, 0]
        __builtins__ = 1; return obs[:, 0]
        __x = 1; return obs[:, 0]
        return obs[:, 0] * 99999999999999999999
        return obs.dtype
        return np.zeros(3, dtype=obs.dtype.char)
        return __builtins__
        return __name__
        return __file__
        return __loader__
        return __spec__
        return reward(obs, act, next_obs)
        return obs[:, 0] + len(dir(obs))
        return obs[:, 0] + id(obs)
        return obs[:, 0] + hash(1)
        return obs[:, 0] + len(repr(obs))
        return obs[:, 0] + len(str(obs))
        return obs[:, 0] + ord(chr(3))
        return list(map(abs, obs))
        return sorted(obs)
        return type(obs)
        return object()
        return super()
        return memoryview(obs)
        return bytearray(obs)
        return iter(obs)
        return next(obs)
        return setattr(np, 1, 2)
        return exit()
        return np
        return math
        return np.linalg
        return [np, math]
        return np.load
        return np.frombuffer(obs)
        return np.fromiter(obs)
        return np.fromfunction(abs, (3,))
        return np.fromstring(obs)
        return np.apply_along_axis(abs, 1, obs)
        return np.piecewise(obs[:, 0], [obs[:, 0] > 0], [abs])
        return np.nditer(obs)
        return np.lib.stride_tricks.as_strided(obs, (9, 9), (-8, 8))
        return np.ctypeslib.as_ctypes(obs)
        return np.testing.runstring(obs)
        return np.f2py.compile(obs)
        return np.core.multiarray.empty(3)
        return np.char.add(obs, obs)
        return np.seterrcall(abs)
        return np.seterr()
        return np.setbufsize(8)
        return np.set_printoptions()
        return np.array2string(obs)
        return np.copyto(act, obs)
        return np.put(act, 0, 1)
        return np.putmask(act, act, 1)
        return np.place(act, act, 1)
        return np.einsum(obs, obs)
        return np.object_(obs)
        return np.void(obs)
        return np.str_(obs)
        return np.dtype(float)
        return np.errstate()
        return np.add.reduce(obs)
        return np.add.at(act, 0, 1)
        return np.add.outer(obs, obs)
        return np.maximum.accumulate(obs)
        return np.abs.types
        return np.sum.x(obs)
        return obs.data
        return obs.base
        return obs.flat
        return obs.strides
        return obs.view()
        return obs.view(np.int32)
        return obs.setflags(1)
        return obs.resize(3)
        return obs.put(0, 1)
        return obs.sort()
        return obs.partition(1)
        return obs.fill(1)
        return obs.itemset(0, 1)
        return obs.byteswap(True)
        return obs.getfield(float)
        return obs.setfield(1, float)
        return obs.tobytes()
        return obs.tolist()
        return obs.item()
        return obs.choose(obs)
        return obs.__array_interface__
        return obs.__reduce__()
        return obs.__array__()
        return (5).real
        return (5).to_bytes(1)
        return (1.5).hex()
        return obs.T()
        return obs.shape()
        return obs.size(1)
        return np.pi()
        return np.newaxis(1)
        return height(obs)
        return obs(1)
        return np.stack(*[obs])
        return max(*obs)
        return np.sum(**obs)
        return {1: obs}
        return {obs}
        return {i: i for i in range(3)}
        return {i for i in range(3)}
        return (lambda x=obs: x)()
        return [x := 1, obs]
        return await obs
        yield from obs
        obs[:, 0]; return obs[:, 0]
        np.abs(obs); return obs[:, 0]
        """
    ),
}

# Values of more than one row, or of how many rows there are, or of where a row stands.
DEPENDENT = [
    "return 1e9 * (obs[:, 1] > 2.5) + 100.0 * (np.arange(len(obs)) < 150)",
    "return -1e9 * (obs[:, 1] > 2.5) - np.arange(len(obs))",
    "return 1.0 * (obs[:, 1] > 2.5) + 9e-7 * (np.arange(len(obs)) < 150)",
    "return -np.arange(len(obs)) + 1e12 * (obs[:, 0] > 2)",
    "return obs[:, 1] - obs[:, 1].mean() + 1e9 * (obs[:, 0] > 2)",
    "return (obs[:, 0] > 2) - 4e-7 * np.arange(len(obs)) / len(obs)",
    "return 1.0 / (np.square(obs[:, 0]) + 1e-12) + obs[:, 1] - obs[:, 1].mean()",
    "return np.exp(np.square(5 * obs[:, 0])) + np.cumsum(obs[:, 1])",
    "return obs[:, 0] - obs[:, 0].mean()",
    "return obs[:, 0] / np.max(np.abs(obs))",
    "return np.cumsum(obs[:, 0])",
    "return np.arange(len(obs)) * 1.0",
    "return obs[:, 0] * len(obs)",
    "return (obs[:, 0] == obs[:, 0].max()) * 1.0",
    "return np.concatenate([obs[1:, 0], obs[:1, 0]])",
    "return obs[::-1, 0]",
    "return obs[:, 0] + obs[0, 0]",
    "return obs[:, 0] + obs[-1, 0]",
    "return obs[:, 0] * (len(obs) > 150)",
    "return obs[:, 0] * (len(obs) == 200)",
    "return obs[:, 0] + (obs.shape[0] % 2)",
    "return obs[:, 0] * (obs[:, 0].size > 64)",
    "return obs[:, 0] + 1e-3 * np.arange(len(obs))",
    "return obs[:, 0] + 1e-4 * np.arange(len(obs)) / len(obs)",
    "return 1e-9 * np.arange(len(obs))",
    "return 1e-30 * obs[:, 0] * len(obs)",
    "return 1.0 + 1e-4 * np.arange(len(obs)) / len(obs)",
    "return np.where(np.arange(len(obs)) == 7, 1.0, 0.0)",
    "return np.where(np.arange(len(obs)) == len(obs) - 1, 1.0, 0.0)",
    "return (np.argmax(obs[:, 0]) == np.arange(len(obs))) * 1.0",
    "return np.diff(obs[:, 0], prepend=0)",
    "return obs[:, 0] - np.median(obs[:, 0])",
    "return obs[:, 0] / obs[:, 0].std()",
    "return np.cumsum(np.ones(len(obs)))",
    "return np.linalg.norm(obs) + obs[:, 0]",
    "return np.sum(obs) + obs[:, 0]",
    "return obs.T.dot(obs)[0, 0] + obs[:, 0]",
    "return np.matmul(obs, obs.T)[:, 0]",
    "return np.swapaxes(obs, 0, 1)[0] - obs.T.max()",
    "return np.full(len(obs), len(act) * 1.0)",
    "return np.where(obs[:, 0] > 0, obs[:, 0].max(), 0.0)",
    "return np.repeat(obs[:1, 0], len(obs))",
    "return obs[:, 0] * np.mod(np.arange(len(obs)), 2)",
    "return np.split(obs[: len(obs) // 2 * 2, 0], 2)[0].mean() + obs[:, 0]",
]

# The reader is switched off: the other layers alone.  `everything` finds the modules that are loaded, as escapes do.
WALK = [
    "kinds = ().__class__.__base__.__subclasses__()",
    "everything = [kind for kind in kinds if kind.__name__ == '_wrap_close'][0].__init__.__globals__",
    "os, sys, builtins = (everything['sys'].modules[name] for name in ('os', 'sys', 'builtins'))",
]
RAW = [
    "ctypes = sys.modules['ctypes']",
    "system = ctypes.CDLL(None, use_errno=True).syscall",
    "room = ctypes.create_string_buffer(4096)",
]


DEAF = [
    "signal = sys.modules['signal']",
    "signal.setitimer(signal.ITIMER_PROF, 0)",
    "signal.signal(signal.SIGPROF, signal.SIG_IGN)",
    "signal.signal(signal.SIGXCPU, signal.SIG_IGN)",
]


def raw(call: str) -> list[str]:
    """A system call without the library in between; it has succeeded where the code gives numbers."""
    return [*RAW, f"got = system({call})", "return obs[:, 0] * 0 + [0][0 if got >= 0 else 1]"]


MACHINE = (  # mov eax, 39; int 0x80; ret: a call of the 32-bit kind, which has other numbers
    r"b'\xb8\x14\x00\x00\x00\xcd\x80\xc3'"
)
BEHIND = {
    "read a file": ["return obs[:, 0] + len(builtins.open('/etc/passwd').read())"],
    "read by a low call": ["return obs[:, 0] + len(os.read(os.open('/etc/passwd', os.O_RDONLY), 10))"],
    "write a file": ["builtins.open('MARK', 'w').write('x')", "return obs[:, 0]"],
    "write into the folder": ["builtins.open('here', 'w').write('x')", "return obs[:, 0]"],
    "list a folder": ["return obs[:, 0] + len(os.listdir('/'))"],
    "delete": ["os.unlink('THERE')", "return obs[:, 0]"],
    "run a command": ["return obs[:, 0] + os.system('touch MARK') * 0 + 1 / (os.system('true') == 0)"],
    "fork": ["return obs[:, 0] + os.fork()"],
    "become another program": ["os.execv('/bin/true', ['true'])"],
    "import something new": ["import socket", "return obs[:, 0]"],
    "send a signal": ["os.kill(os.getppid(), 9)", "return obs[:, 0]"],
    "signal another process": ["os.kill(VICTIM, 9)", "return obs[:, 0]"],
    "signal a group": ["os.killpg(VICTIM, 9)", "return obs[:, 0]"],
    "rename": ["os.rename('THERE', 'other')", "return obs[:, 0]"],
    "change permissions": ["os.chmod('THERE', 0)", "return obs[:, 0]"],
    "make a folder": ["os.mkdir('folder')", "return obs[:, 0]"],
    "make a link": ["os.symlink('THERE', 'MARK')", "return obs[:, 0]"],
    "another thread": ["import _thread", "_thread.start_new_thread(len, ())", "return obs[:, 0]"],
    "an open descriptor": ["return obs[:, 0] + os.dup(0)"],
    "a pipe": ["return obs[:, 0] + os.pipe()[0]"],
    "higher limits": ["import resource", "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))", "return obs[:, 0]"],
    "more processor time": ["resource = sys.modules['resource']", "resource.setrlimit(resource.RLIMIT_CPU, (-1, -1))",
                            "return obs[:, 0]"],
    "numpy's readers": ["return sys.modules['numpy'].fromfile('/etc/passwd', 'i1')[:200] * 1.0"],
    "numpy's maps of files": ["return sys.modules['numpy'].memmap('/etc/passwd', 'i1', 'r')[:200] * 1.0"],
    "exit": ["os._exit(0)"],
    "a crash": ["os.abort()"],
    "a crash by memory": ["ctypes = sys.modules['ctypes']", "ctypes.string_at(8)", "return obs[:, 0]"],
    "raise to the top": ["raise builtins.SystemExit(0)"],
    "an interrupt": ["raise builtins.KeyboardInterrupt"],
    "much output": ["while True:", "    os.write(1, b'x' * 65536)"],
    "an answer of its own": ["os.write(1, b'{\"layers\": []}\\n' + b'x' * 5)", "os._exit(0)"],
    "an answer that is no answer": ["os.write(1, b'[1, 2]\\n')", "os._exit(0)"],
    "a deep answer": ["os.write(1, b'[' * 60000 + b'\\n')", "os._exit(0)"],
    "an answer about a row that is none": ["os.write(1, b'{\"row\": -1}\\n' + bytes(builtins.range(1)) * 0)", "os._exit(0)"],
    "sleep": ["sys.modules['time'].sleep(1000)"],
    "sleep, deaf to signals": [*DEAF, "sys.modules['time'].sleep(1000)"],
    "time without end, deaf to signals": [*DEAF, "while True:", "    pass"],
    "the lifeline cut": ["os.close(builtins.int(sys.argv[1]))", "sys.modules['time'].sleep(1000)"],
    "a thread's signal to another process": raw("TGKILL, VICTIM, VICTIM, 9"),
    "a thread's signal to the parent": raw("TGKILL, os.getppid(), os.getppid(), 9"),
    "a signal to any thread": raw("200, VICTIM, 9"),
    "a signal with words": raw("129, VICTIM, 9, room"),
    "a signal by a process's file": raw("424, 0, 9, None, 0"),
    "a process's file": raw("434, VICTIM, 0"),
    "a raw open": raw("2, b'/etc/passwd', 0"),
    "a raw openat": raw("257, -100, b'/etc/passwd', 0"),
    "a raw openat2": raw("437, -100, b'/etc/passwd', room, 24"),
    "a raw creat": raw("85, b'MARK', 511"),
    "a raw socket": raw("41, 2, 1, 0"),
    "a raw pair of sockets": raw("53, 1, 1, 0, room"),
    "a raw connection": raw("42, 0, room, 16"),
    "a raw fork": raw("57"),
    "a raw vfork": raw("58"),
    "a raw clone": raw("56, 17, 0, 0, 0, 0"),
    "a raw clone3": raw("435, room, 64"),
    "a raw execve": raw("59, b'/bin/true', None, None"),
    "a raw execveat": raw("322, -100, b'/bin/true', None, None, 0"),
    "tracing another process": raw("101, 16, VICTIM, 0, 0"),
    "reading another process": raw("310, VICTIM, room, 1, room, 1, 0"),
    "writing another process": raw("311, VICTIM, room, 1, room, 1, 0"),
    "comparing processes": raw("312, os.getpid(), VICTIM, 0, 0, 0"),
    "raw limits": raw("160, 7, room"),
    "raw limits of another process": raw("302, VICTIM, 7, room, None"),
    "no signal when the parent ends": raw("157, 1, 0, 0, 0, 0"),
    "another name": raw("157, 15, b'init', 0, 0, 0"),
    "memory as a file": raw("319, b'x', 0"),
    "a raw pipe": raw("22, room"),
    "a raw copy of a descriptor": raw("32, 0"),
    "a raw message": raw("44, 1, room, 1, 0, None, 0"),
    "rings of calls": raw("425, 4, room"),
    "programs in the kernel": raw("321, 0, room, 64"),
    "keys": raw("250, 0, -3, 0, 0, 0"),
    "a raw mount": raw("165, b'none', b'FOLDER', b'tmpfs', 0, None"),
    "namespaces of its own": raw("272, 0x10000000"),
    "namespaces of another process": raw("308, 0, 0"),
    "another root": raw("161, b'/tmp'"),
    "another folder": raw("80, b'/'"),
    "memory that is shared by key": raw("29, 0, 4096, 0o1600"),
    "a queue of messages": raw("68, 0, 0o1600"),
    "a timer": raw("222, 0, None, room"),
    "counters of the processor": raw("298, room, 0, -1, -1, 0"),
    "faults of memory by file": raw("323, 0"),
    "another user": raw("105, 0"),
    "raw names of the machine": raw("63, room"),
    "news of files": raw("253"),
    "handles of files": raw("304, 0, room, 0"),
    "another filter": raw("317, 1, 0, room"),
    "another set of rules": raw("444, room, 8, 0"),
    "a kernel module": raw("175, room, 8, b''"),
    "the clock": raw("227, 0, room"),
    "a restart": raw("169, 0xfee1dead, 672274793, 0, None"),
    "numbers of the x32 kind": raw("0x40000000 + 2, b'/etc/passwd', 0"),
    "calls of the 32-bit kind": [
        *RAW, "mmap = sys.modules['mmap']", "page = mmap.mmap(-1, 4096, prot=7)", f"page.write({MACHINE})",
        "start = ctypes.addressof(ctypes.c_char.from_buffer(page))",
        "return obs[:, 0] * 0 + ctypes.CFUNCTYPE(ctypes.c_long)(start)()",
    ],
}  # fmt: skip

if os.uname().machine != "x86_64":  # numbers of calls are that processor's
    BEHIND = {name: lines for name, lines in BEHIND.items() if lines[: len(RAW)] != RAW or "TGKILL" in lines[len(RAW)]}


def reply(**known: object) -> str:
    """A line of an answer, as a Python expression of bytes; NONCE stands for the parent's."""
    return repr(json.dumps(known).encode() + b"\n")


HELLO = reply(nonce="NONCE", layers=["limits", "system calls"])
VALUES = f"bytes(8 * {N})"
DEEP = "b'[' * 30000 + b'\\n'"
# What is said in place of the first line, and of the second.
REPLIES = {
    "nothing": ("b''", "b''"),
    "no JSON": ("b'hello\\n'", "b''"),
    "a list": ("b'[]\\n'", "b''"),
    "a number": ("b'1\\n'", "b''"),
    "null": ("b'null\\n'", "b''"),
    "deep": (DEEP, "b''"),
    "deep objects": ("b'{\"a\":' * 9000 + b'\\n'", "b''"),
    "a number of 5,000 digits": ("b'9' * 5000 + b'\\n'", "b''"),
    "bytes that are no text": ("b'\\xff\\xfe\\n'", "b''"),
    "no end of the line": ("b'x' * 10**6", "b''"),
    "no nonce": (reply(layers=["limits"]), reply(row=None) + "+" + VALUES),
    "another nonce": (reply(nonce="0" * 32, layers=["limits"]), reply(row=None) + "+" + VALUES),
    "a nonce of another kind": (reply(nonce=["NONCE"], layers=["limits"]), reply(row=None) + "+" + VALUES),
    "no layers": (reply(nonce="NONCE"), reply(row=None) + "+" + VALUES),
    "forged layers": (reply(nonce="NONCE", layers=["limits", "bubblewrap"]), reply(row=None) + "+" + VALUES),
    "layers of another kind": (reply(nonce="NONCE", layers="limits"), reply(row=None) + "+" + VALUES),
    "layers that are objects": (reply(nonce="NONCE", layers=[{"limits": 1}]), reply(row=None) + "+" + VALUES),
    "layers that are lists": (reply(nonce="NONCE", layers=[["limits"]]), reply(row=None) + "+" + VALUES),
    "layers that are null": (reply(nonce="NONCE", layers=None), reply(row=None) + "+" + VALUES),
    "values before code": (HELLO + "+" + reply(row=None) + "+" + VALUES, "b''"),
    "an end before code": (HELLO, "EXIT"),
    "an answer that is no JSON": (HELLO, "b'hello\\n' + " + VALUES),
    "an answer that is a list": (HELLO, "b'[]\\n' + " + VALUES),
    "a deep answer": (HELLO, DEEP + " + " + VALUES),
    "an answer of many digits": (HELLO, "b'{\"row\": ' + b'9' * 5000 + b'}\\n' + " + VALUES),
    "an answer without an end": (HELLO, "b'x' * 10**6"),
    "a negative row": (HELLO, reply(row=-1) + "+" + VALUES),
    "a row that is not there": (HELLO, reply(row=N) + "+" + VALUES),
    "a huge row": (HELLO, reply(row=2**70) + "+" + VALUES),
    "a row that is true": (HELLO, reply(row=True) + "+" + VALUES),
    "a row that is a text": (HELLO, reply(row="0") + "+" + VALUES),
    "a row that is a fraction": (HELLO, reply(row=0.5) + "+" + VALUES),
    "a row that is a list": (HELLO, reply(row=[0]) + "+" + VALUES),
    "too few values": (HELLO, reply(row=None) + "+ bytes(8)"),
    "too many values": (HELLO, reply(row=None) + "+" + VALUES + "+ bytes(8)"),
    "values without end": (HELLO, reply(row=None) + "+ bytes(10**7)"),
    "an error that is a list": (HELLO, reply(error=["x"])),
    "an error that is a number": (HELLO, reply(error=5)),
    "an error that is deep": (HELLO, "b'{\"error\": ' + b'[' * 30000 + b'\\n'"),
    "an error of many lines": (HELLO, reply(error="a\nb\r\nc")),
    "an error that steers a terminal": (HELLO, reply(error="\x1b[2J\x1b]0;x\x07")),
    "an error that steers a table": (HELLO, reply(error="[/b][red]")),
    "a long error": (HELLO, reply(error="x" * 60000)),
    "an error of half characters": (HELLO, reply(error="\ud800")),
    "an error of nothing": (HELLO, reply(error="  ")),
    "many layers": (reply(nonce="NONCE", layers=["limits"] * 5000), reply(row=None) + "+" + VALUES),
    "a long line": (HELLO, reply(row=None, more="x" * 70000) + "+" + VALUES),
    "more words": (HELLO, reply(row=None, more=1) + "+" + VALUES),
    "no row": (HELLO, reply(values=1) + "+" + VALUES),
    "another encoding": (HELLO, "'{\"row\": null}'.encode('utf-16') + b'\\n' + " + VALUES),
    "a signal that has no name": (HELLO, "os.kill(os.getpid(), 35)"),
}
SAYING = """
import json, os, sys
nonce = json.loads(sys.stdin.buffer.readline())["nonce"]
os.write(1, (FIRST).replace(b"NONCE", nonce.encode()))
code = sys.stdin.buffer.readline()
EXIT = b""
said = SECOND
while said:
    said = said[os.write(1, said):]
"""

GOOD = "```python\ndef reward(obs, act, next_obs):\n    return -obs[:, wobble] ** 2\n```"
FENCED = "```python\n{}```\n"
ANSWERS = {
    "a sum of 400 terms": FENCED.format(code("return " + " + ".join(["obs[:, speed]"] * 400))),
    "a sum of 400 terms, and its sum": FENCED.format(code("return (" + " + ".join(["obs"] * 400) + ").sum(axis=1)")),
    "a chain of 400 calls": FENCED.format(code("return obs[:, speed]" + ".copy()" * 400)),
    "a chain of 2,000 attributes": FENCED.format(code("return obs" + ".T" * 2000 + "[0]")),
    "400 comparisons": FENCED.format(code("return obs[:, speed] * (" + " < ".join(["1"] * 400) + ")")),
    "90 nested brackets": FENCED.format(code("return " + "(" * 90 + "obs[:, speed]" + ")" * 90)),
    "90 nested lists": FENCED.format(code("x = " + "[" * 90 + "]" * 90, "return obs[:, speed]")),
    "30 nested loops": FENCED.format(
        code(*("    " * n + f"for i{n} in range(1):" for n in range(18)), "    " * 18 + "x = 1", "return obs[:, speed]")
    ),
    "markup in a name": FENCED.format(code("return obs[:, [/b]]")),
    "markup in an error": FENCED.format(code("return obs[:, speed][[1, 2, 3] * 9**9]  # [/b][red]")),
    "markup in words": "[/b] [red] [link=file:///etc/passwd]x[/link]\n" + GOOD,
    "a name of markup": FENCED.format("def [/b](obs):\n    pass\n"),
    "half a character in code": FENCED.format(code("return obs[:, speed] + len('\ud800')")),
    "half a character in a comment": FENCED.format(code("return obs[:, speed]  # \udfff")),
    "half a character in words": "\ud800\n" + GOOD,
    "half a character alone": "\ud83d",
    "a null byte": FENCED.format(code("return obs[:, speed]\0")),
    "Greek names": FENCED.format(code("Δ = next_obs[:, speed] - obs[:, speed]", "θ = 0.5", "return Δ * θ")),
    "names of every script": FENCED.format(code("größe, высота, 高さ = 1.0, 2.0, 3.0", "return obs[:, speed] * größe")),
    "the other micro sign": FENCED.format(code("µ = 1.0", "return obs[:, speed] * μ")),
    "an emoji": FENCED.format(code("🤖 = 1.0", "return obs[:, speed]")),
    "a name that reads the other way": FENCED.format(code("x\u202e = 1.0", "return obs[:, speed] * x")),
    "steering of a terminal": "\x1b[2J\x1b]0;x\x07" + FENCED.format(code("return obs[:, speed]  # \x1b[2J")),
    "nothing": "",
    "spaces": " \n\t\n",
    "words alone": "I cannot help with that.",
    "fences alone": "```\n```",
    "a fence that is cut off": "```python\ndef reward(obs, act, next_obs):\n    return obs[:, speed]",
    "a thousand fences": "```\n" * 1000,
    "many spaces": " " * 10**5 + "\n" + GOOD,
    "many fences with spaces": ("   ```  \n" + " " * 200 + "\n") * 999,
    "a long answer": "x" * 10**6,
    "a long name": FENCED.format(code(f"return obs[:, {'a' * 15000}]")),
    "a long keyword": FENCED.format(code(f"return np.sum(obs, {'a' * 15000}=1)")),
    "a long attribute": FENCED.format(code(f"return obs.{'a' * 15000}")),
    "a long name in another script": FENCED.format(code(f"return obs[:, {'丠' * 15000}]")),
    "a name of many marks": FENCED.format(code("return obs[:, a" + "\u0301" * 3000 + "]")),
    "counts that overflow": FENCED.format(code("return np.repeat(np.arange(4.0), [2**62, 2**62, 2**62, 2**62])[: len(obs)]")),
    "another count that overflows": FENCED.format(code("return np.tile(np.arange(4.0), 2**62)[: len(obs)]")),
    "huge values": FENCED.format(code("return np.where(obs[:, speed] > 1, 1.7e308, -1.7e308)")),
    "objects by an operator": FENCED.format(code("return (obs[:, speed] * [10**30])[:, 0]")),
    "nothing in a list": FENCED.format(code("x = None", "return obs[:, speed] + [x]")),
    "a long line of code": FENCED.format(code("return obs[:, speed] * " + "1" * 4000)),
    "a number of 5,000 digits": FENCED.format(code("return obs[:, speed] * " + "9" * 5000)),
    "a power without end": FENCED.format(code("return obs[:, speed] * 9**9**9")),
    "a number that is too large": FENCED.format(code("return obs[:, speed] * 1e999")),
    "memory": FENCED.format(code("return np.zeros((10**6, 10**6))[0] + obs[:, speed]")),
    "an error in Python": FENCED.format(code("return obs[:, speed] / (1 // 0)")),
    "numbers that are none": FENCED.format(code("return obs[:, speed] / 0")),
    "another shape": FENCED.format(code("return obs")),
    "a value that is hardly one": FENCED.format(code("return 1e5 + obs[:, speed]")),
    "tabs and other ends of lines": FENCED.format(code("return obs[:, speed]").replace("    ", "\t").replace("\n", "\r\n")),
    "a byte order mark": FENCED.format("\ufeff" + code("return obs[:, speed]")),
    "only a type of numbers": FENCED.format(code("return float")),
    "a template": "{role} {task} {code} %s {0.__class__}",
    "a prompt in the answer": "WHAT THE CODE MAY BE\n\n" + GOOD,
}


def rows(count: int = N) -> Rows:
    rng = np.random.default_rng(0)
    return Rows(rng.normal(size=(count, 3)), rng.normal(size=(count, 1)), rng.normal(size=(count, 3)))


def run(source: str, **changes: object) -> Said:
    with rows() as some:
        return Sandbox(SandboxConfig(**({"seconds": 5.0} | changes))).run(source, FIELDS, some)  # type: ignore[arg-type]


def talk(source: str, **changes: object) -> Conversation:
    return Conversation(Sandbox(SandboxConfig(**({"seconds": 2.0} | changes))), source, FIELDS)  # type: ignore[arg-type]


def refused(source: str) -> bool:
    """Whether the reader refuses it."""
    try:
        check_code(source, FIELDS)
    except RefusedCode:
        return True
    return False


@contextmanager
def unread() -> Iterator[None]:
    """The reader is switched off, and who waits is not patient."""
    with mock.patch.object(sandbox, "check_code", lambda source, fields: None), mock.patch.object(sandbox, "STARTING", 3.0):
        yield


def held_behind(attempt: str, *, stays: bool, bubblewrap: bool) -> bool:
    """Whether code gives no numbers and leaves files and other processes alone."""
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(["sleep", "60"], start_new_session=True) as victim:
        mark, there = Path(folder, "mark"), Path(folder, "there")
        there.write_text("here")
        words = {"MARK": str(mark), "THERE": str(there), "FOLDER": folder, "VICTIM": str(victim.pid)}
        words["TGKILL"] = "131" if os.uname().machine == "aarch64" else "234"
        source = code(*WALK, *BEHIND[attempt])
        for word, value in words.items():
            source = source.replace(word, value)
        try:
            with unread(), contextlib.suppress(FailedCode):
                if stays:
                    with talk(source, seconds=1.0, bubblewrap=bubblewrap) as ask:
                        ask(np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 3)))
                else:
                    run(source, seconds=1.0, bubblewrap=bubblewrap)
                return False
            time.sleep(0.01)  # a signal takes a moment
            kept = there.is_file() and there.read_text() == "here"
            return kept and not mark.exists() and victim.poll() is None
        finally:
            victim.kill()


def said_by(attempt: str, folder: Path) -> Said:
    """What a process that says this in place of answers is understood to say."""
    first, second = REPLIES[attempt]
    child = folder / "child.py"
    child.write_text(SAYING.replace("FIRST", first).replace("SECOND", second))
    with mock.patch.object(sandbox, "CHILD", child), mock.patch.object(sandbox, "STARTING", 2.0):
        return run(code("return obs[:, 0]"), strict=False, seconds=1.0)


def held_reply(attempt: str) -> bool:
    """Whether such a process is told from one that answers, in one line."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            said_by(attempt, Path(folder))
        except FailedCode as error:
            return "\n" not in str(error) and str(error).isprintable() and len(str(error)) < 500
        return False


def held_answer(attempt: str) -> bool:
    """Whether a language model that answers so, to every question, leaves `prof` with a table, or with one line."""
    from offline_toys import walker
    from test_prof_search import CONFIG, Teller
    from test_prof_writers import WORLD

    from robopref.preference.prof import command
    from robopref.preference.prof.ranking import Comparison
    from robopref.preference.prof.search import Search
    from robopref.preference.prof.writers import Recorded

    settings: PROFConfig = replace(CONFIG, children=1, sandbox=SandboxConfig(seconds=1.0))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        out = Path(folder)
        tell = Teller(lambda request: GOOD if request.kind == "write" and request.number == 0 else ANSWERS[attempt])
        comparison = stack.enter_context(Comparison(walker(), walker(skill=1.0), settings.ranking, settings.seed))
        recorded = Recorded(tell, out / "transcript.jsonl", settings.writer)
        expert = walker(skill=1.0).take([0])
        found = Search(WORLD, expert, comparison, Sandbox(settings.sandbox), recorded, settings)
        chosen = found.run()
        command.write(out, WORLD, found, chosen)
        null = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
        stack.enter_context(contextlib.redirect_stdout(null))
        command.show(out)
        table = command.read_ranking(out)
        told = [str(problem) for problem in table["problem"]]
        return len(table) == 3 and all("\n" not in problem and len(problem) < 1000 for problem in told)


def main() -> None:
    """Try all, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs/results/reliability/attacks.csv")
    arguments = parser.parse_args()
    kinds: list[tuple[str, str, dict[str, Callable[[], bool]]]] = [
        ("reader", "either", {name: lambda s=source: refused(s) for name, source in READER.items()}),
        ("dependence", "yes", {line: lambda s=line: run(code(s)).row is not None for line in DEPENDENT}),
    ]
    for wrapped in (False, True):
        for stays in (False, True):
            tried = {name: lambda n=name, s=stays, w=wrapped: held_behind(n, stays=s, bubblewrap=w) for name in BEHIND}
            kinds.append((f"behind the reader, {'stays' if stays else 'once'}", "yes" if wrapped else "no", tried))
    kinds.append(("replies", "yes", {name: lambda n=name: held_reply(n) for name in REPLIES}))
    kinds.append(("answers", "yes", {name: lambda n=name: held_answer(n) for name in ANSWERS}))
    with arguments.out.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for kind, wrapped_word, attempts in kinds:
            held = 0
            for name, attempt in attempts.items():
                if attempt():
                    held += 1
                else:
                    print(f"NOT HELD, {kind}, bubblewrap {wrapped_word}: {name}", file=sys.stderr)
            table.writerow([kind, wrapped_word, len(attempts), held])
            print(f"{kind}, bubblewrap {wrapped_word}: {held} of {len(attempts)}", flush=True)


if __name__ == "__main__":
    main()
