"""Reward code that a language model wrote: what is refused, what is run, and that nothing gets out."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.configs.prof import SandboxConfig
from robopref.preference.prof import sandbox
from robopref.preference.prof.child import FUNCTIONS, MATH
from robopref.preference.prof.code import Fields, RefusedCode, check_code
from robopref.preference.prof.sandbox import Conversation, FailedCode, Rows, Said, Sandbox

FIELDS = Fields(obs=("height", "speed", "angle"), act=("torque",))
N = 200
NEEDS_BUBBLEWRAP = pytest.mark.skipif(
    Sandbox(SandboxConfig()).bubblewrap is None, reason="bubblewrap is not installed or may not make namespaces here"
)


def code(*lines: str) -> str:
    return "def reward(obs, act, next_obs):\n" + "".join(f"    {line}\n" for line in lines)


def rows(count: int = N) -> Rows:
    rng = np.random.default_rng(0)
    return Rows(rng.normal(size=(count, 3)), rng.normal(size=(count, 1)), rng.normal(size=(count, 3)))


def run(source: str, **changes: object) -> Said:
    with rows() as some:
        return Sandbox(SandboxConfig(**({"seconds": 5.0} | changes))).run(source, FIELDS, some)  # type: ignore[arg-type]


def test_good_code_says_of_every_row_what_it_should():
    source = code('"""Fast and upright."""', "upright = np.exp(-obs[:, angle] ** 2)", "cost = 0.1 * np.square(act).sum(axis=1)",
                  "return next_obs[:, speed] * upright - cost")  # fmt: skip
    said = run("import numpy as np\n\n" + source)
    rng = np.random.default_rng(0)
    obs, act, next_obs = (rng.normal(size=(N, k)).astype(np.float32) for k in (3, 1, 3))
    expected = next_obs[:, 1] * np.exp(-(obs[:, 2] ** 2)) - 0.1 * act[:, 0] ** 2
    np.testing.assert_allclose(said.values, expected, rtol=1e-5)
    assert said.row is None
    assert {"syntax", "process", "limits"} <= set(said.layers)


@pytest.mark.parametrize(
    "lines",
    [
        ["total = np.zeros(len(obs))", "for i in range(3):", "    total = total + obs[:, i]", "return total"],
        ["total = np.zeros(obs.shape[0])", "total[obs[:, 0] > 0] += 1.0", "return total"],
        ["if obs.shape[1] == 3:", "    bonus = 1.0", "else:", "    bonus = 0.0", "return bonus - np.abs(obs[:, 0])"],
        ["return np.stack([obs[:, i] for i in range(3)]).min(axis=0)"],
        ["return -math.pi * np.linalg.norm(obs[:, :2] - next_obs[:, :2], axis=-1)"],
        ["return np.where(obs[:, height] > 0.7, 1, 0)"],
        ["return (obs[:, 0:1] * act).astype(np.float64)"],
        ["a, b = obs[:, 0], obs[:, 1]", "return np.clip(a * b, -1, 1).mean() * 0 + a"],
    ],
)
def test_what_rewards_are_made_of_works(lines):
    assert np.isfinite(run("import math\n" + code(*lines)).values).all()


@pytest.mark.parametrize("bubblewrap", [False, pytest.param(True, marks=NEEDS_BUBBLEWRAP)])
@pytest.mark.parametrize(
    "source",
    [
        code("Δ = next_obs[:, 0] - obs[:, 0]", "θ, größe = 1.0, 2.0", "return obs[:, 0] + 0 * (Δ + θ + größe)"),
        code('"""Höhe, 高さ, высота 🤖, \\alpha."""', "# größer ist besser: ≥ 0", "return obs[:, 0]"),
        code("ﬁne, ｘ = 1.0, 0.0", "return obs[:, 0] * fine + x"),  # Python reads both spellings as one name
        code("return obs[:, ｈeight]"),
        code("return ｎp.abs(obs[:, 0]) * np.ｓign(obs[:, 0])"),
        code("return obs[:, 0] * len('\\N{GREEK SMALL LETTER DELTA}')"),
        code("return obs[:, 0] + 0 * (obs[:, 0] is 1)"),  # Python warns
        "\ufeff" + code("return obs[:, 0]"),
        code("x = 1.0", "return obs[:, 0] * x").replace("\n", "\r\n"),
    ],
)  # fmt: skip
def test_code_may_be_written_in_any_script(source, bubblewrap):
    expected = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)[:, 0]
    np.testing.assert_allclose(run(source, bubblewrap=bubblewrap).values, expected)
    with talk(source, bubblewrap=bubblewrap) as ask:
        assert ask(np.full((2, 3), 4.0), np.ones((2, 1)), np.ones((2, 3))).values.tolist() == [4.0, 4.0]


def test_fields_are_found_by_any_spelling_of_their_names():
    fields = Fields(obs=("ﬁnger", "Å", "ｎｐ"), act=("torque",))
    assert fields.columns == {"finger": 0, "\u00c5": 1, "torque": 0}
    for name in ("finger", "ﬁnger", "\u212b", "A\u030a"):
        check_code(code(f"return obs[:, {name}]"), fields)
    with pytest.raises(RefusedCode, match="np alone cannot be used"):
        check_code(code("return obs[:, ｎｐ]"), fields)
    with pytest.raises(RoboprefError, match="two fields are called finger"):
        Fields(obs=("finger", "ﬁnger"), act=())


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_on_the_list_exists(name):
    check_code(code(f"x = np.{name}", "return obs[:, 0]"), FIELDS)
    target = np
    for part in name.split("."):
        assert hasattr(target, part)
        target = getattr(target, part)


# Refused before anything is run.  Each is one attempt.
ATTEMPTS = {
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
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_attempt_is_refused_before_it_is_run(attempt, monkeypatch):
    monkeypatch.setattr(Sandbox, "started", lambda *args: pytest.fail("it was run"))
    with pytest.raises(RefusedCode):
        run(ATTEMPTS[attempt])


def test_a_refusal_names_line_and_the_nearest_field():
    with pytest.raises(RefusedCode, match=r"line 2: heigth is not defined.*Did you mean 'height'"):
        check_code(code("return obs[:, heigth]"), FIELDS)
    with pytest.raises(RefusedCode, match=r"Did you mean 'angle'"):  # Python's range is as near
        check_code(code("return obs[:, angel]"), FIELDS)
    with pytest.raises(RefusedCode, match=r"line 3: obs has columns 0 to 2, not 7"):
        check_code(code("x = 1", "return x * obs[:, 7]"), FIELDS)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="obs act[:,0]+-*/()npreturn\n =.13", max_size=60))
def test_no_text_breaks_the_reader(text):
    try:
        check_code(code(text), FIELDS)
    except RefusedCode as refused:
        assert "line" in str(refused)
    else:
        assert compile(code(text), "reward.py", "exec")


# What passes the reader is run, and must do no harm: message -> bodies.
SPIN = ["x = 0", "for i in range(10**12):", "    x = x + i", "return obs[:, 0] * x"]
RUN = {
    "memory": [["return np.zeros((10**6, 10**6))[0] + obs[:, 0]"], ["return np.tile(obs, (10**7, 1))[:, 0]"]],
    "time": [SPIN, ["return obs[:, 0] * 10**10**9"]],
    "shape": [["return obs"], ["return 1.0"], ["return obs[:5, 0]"], ["return np.float64(1)"]],
    "returns a": [["return 'a'"], ["return [obs[:, 0]]"], ["return None"], ["return np.sum"]],
    "not of numbers": [["return obs[:, 0].astype('c16')"], ["return np.array(['a' for i in range(len(obs))])"]],
    "Error": [["return obs[:, 0] + np.ones(3)"], ["return 1 / 0 * obs[:, 0]"], ["return obs[0, 0, 0]"]],
    "read-only": [["x = obs", "x[:, 0] = 1.0", "return x[:, 0]"], ["x = obs.T", "x += 1", "return x[0]"]],
}


@pytest.mark.parametrize(("lines", "says"), [(lines, says) for says, many in RUN.items() for lines in many])
def test_what_is_run_can_fail_alone(lines, says):
    started = time.monotonic()
    with pytest.raises(FailedCode, match=says):
        run(code(*lines), seconds=2.0, memory_mb=256)
    assert time.monotonic() - started < 20


def test_nesting_without_end_is_given_up():
    said = run(code("x = [1]", "for i in range(10**5):", "    x = [x]", "return obs[:, 0]"))
    assert len(said.values) == N


@pytest.mark.parametrize(
    "line",
    [
        "return obs[:, 0] - obs[:, 0].mean()",
        "return obs[:, 0] / np.max(np.abs(obs))",
        "return np.cumsum(obs[:, 0])",
        "return np.arange(len(obs)) * 1.0",
        "return obs[:, 0] * len(obs)",
        "return (obs[:, 0] == obs[:, 0].max()) * 1.0",
        "return np.concatenate([obs[1:, 0], obs[:1, 0]])",
    ],
)
def test_a_reward_that_looks_at_other_rows_is_found_out(line):
    assert run(code(line)).row is not None


def test_numbers_that_are_none_come_through():
    said = run(code("return np.where(obs[:, 0] > 0, np.nan, np.log(obs[:, 0] * 0))"))
    assert np.isnan(said.values).any() and np.isneginf(said.values).any()
    assert said.row is None


def test_the_data_cannot_be_changed_by_anybody():
    with rows() as some, pytest.raises(OSError), open(f"/proc/self/fd/{some.fd}", "r+b") as file:
        file.write(b"x" * 100)
        file.flush()


# The reader is switched off: the other layers alone.  `everything` finds the modules that are loaded, as escapes do.
WALK = [
    "kinds = ().__class__.__base__.__subclasses__()",
    "everything = [kind for kind in kinds if kind.__name__ == '_wrap_close'][0].__init__.__globals__",
    "os, sys, builtins = (everything['sys'].modules[name] for name in ('os', 'sys', 'builtins'))",
]
BEHIND = {
    "read a file": ["return obs[:, 0] + len(builtins.open('/etc/passwd').read())"],
    "read by a low call": ["return obs[:, 0] + len(os.read(os.open('/etc/passwd', os.O_RDONLY), 10))"],
    "write a file": ["builtins.open('MARK', 'w').write('x')", "return obs[:, 0]"],
    "write into the folder": ["builtins.open('here', 'w').write('x')", "return obs[:, 0]"],
    "list a folder": ["return obs[:, 0] + len(os.listdir('/'))"],
    "delete": ["os.unlink('MARK')", "return obs[:, 0]"],
    "run a command": ["return obs[:, 0] + os.system('touch MARK') * 0 + 1 / (os.system('true') == 0)"],
    "fork": ["return obs[:, 0] + os.fork()"],
    "become another program": ["os.execv('/bin/true', ['true'])"],
    "import something new": ["import socket", "return obs[:, 0]"],
    "send a signal": ["os.kill(os.getppid(), 9)", "return obs[:, 0]"],
    "rename": ["os.rename('MARK', 'other')", "return obs[:, 0]"],
    "make a folder": ["os.mkdir('folder')", "return obs[:, 0]"],
    "another thread": ["import _thread", "_thread.start_new_thread(len, ())", "return obs[:, 0]"],
    "an open descriptor": ["return obs[:, 0] + os.dup(0)"],
    "a pipe": ["return obs[:, 0] + os.pipe()[0]"],
    "higher limits": ["import resource", "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))", "return obs[:, 0]"],
    "numpy's readers": ["return sys.modules['numpy'].fromfile('/etc/passwd', 'i1')[:200] * 1.0"],
    "exit": ["os._exit(0)"],
    "a crash": ["os.abort()"],
    "raise to the top": ["raise builtins.SystemExit(0)"],
    "much output": ["while True:", "    os.write(1, b'x' * 65536)"],
    "an answer of its own": ["os.write(1, b'{\"layers\": []}\\n' + b'x' * 5)", "os._exit(0)"],
    "an answer that is no answer": ["os.write(1, b'[1, 2]\\n')", "os._exit(0)"],
    "sleep": ["sys.modules['time'].sleep(1000)"],
}  # fmt: skip


@pytest.mark.parametrize("bubblewrap", [False, pytest.param(True, marks=NEEDS_BUBBLEWRAP)])
@pytest.mark.parametrize("attempt", BEHIND)
def test_behind_the_reader_nothing_gets_out(attempt, bubblewrap, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "check_code", lambda source, fields: None)
    monkeypatch.setattr(sandbox, "STARTING", 3.0)
    mark = tmp_path / "mark"
    if attempt in ("delete", "rename"):
        mark.write_text("here")
    source = code(*WALK, *BEHIND[attempt]).replace("MARK", str(mark))
    with pytest.raises(FailedCode):
        run(source, seconds=2.0, bubblewrap=bubblewrap)
    assert mark.exists() == (attempt in ("delete", "rename"))


def test_behind_the_reader_there_is_no_environment(monkeypatch):
    monkeypatch.setattr(sandbox, "check_code", lambda source, fields: None)
    monkeypatch.setenv("SECRET_KEY", "x" * 77)
    said = run(code(*WALK, "return obs[:, 0] * 0 + sum([len(v) for v in os.environ.values() if len(v) == 77])"))
    assert (said.values == 0).all()


def test_behind_the_reader_there_is_no_network(monkeypatch):
    monkeypatch.setattr(sandbox, "check_code", lambda source, fields: None)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        call = f"_socket.socket().connect(('127.0.0.1', {port}))"
        with pytest.raises(FailedCode):
            run(code(*WALK, "import _socket", call, "return obs[:, 0]"))
        server.settimeout(0.2)
        with pytest.raises(TimeoutError):
            server.accept()


def test_no_process_is_left(tmp_path, monkeypatch):
    own = tmp_path / "child.py"  # other tests run beside this one and have processes too
    own.write_bytes(sandbox.CHILD.read_bytes())
    monkeypatch.setattr(sandbox, "CHILD", own)

    def running() -> int:
        found = 0
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found += str(own).encode() in path.read_bytes()
        return found

    with talk(code("return obs[:, 0]")) as ask:
        ask(*(np.zeros((1, count)) for count in (len(FIELDS.obs), len(FIELDS.act), len(FIELDS.obs))))
        assert running() > 0
    assert running() == 0
    with pytest.raises(FailedCode):
        run(code(*SPIN), seconds=1.0)
    assert running() == 0


@NEEDS_BUBBLEWRAP
def test_strict_code_runs_where_every_layer_holds():
    assert run(code("return obs[:, 0]"), strict=True).layers == sandbox.ALL_LAYERS


def test_strict_fails_closed(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(RoboprefError, match="bubblewrap is not installed"):
        Sandbox(SandboxConfig(strict=True))


def talk(source: str, **changes: object) -> Conversation:
    return Conversation(Sandbox(SandboxConfig(**({"seconds": 2.0} | changes))), source, FIELDS)  # type: ignore[arg-type]


def test_a_process_that_stays_says_the_same_of_few_rows_and_of_many():
    rng = np.random.default_rng(0)
    source = code("return next_obs[:, height] - obs[:, height] + np.abs(act[:, torque])")
    with talk(source) as ask:
        for count in (1, 3, 1, 20_000, 2):  # more than a pipe holds, too
            obs, act, next_obs = (rng.normal(size=(count, width)).astype(np.float32) for width in (3, 1, 3))
            said = ask(obs, act, next_obs)
            np.testing.assert_allclose(said.values, next_obs[:, 0] - obs[:, 0] + np.abs(act[:, 0]), rtol=1e-6)
            assert said.row is None and said.layers[:3] == ("syntax", "process", "limits")
    assert ask.process.poll() is not None
    with talk(code("return obs[:, 0] - obs[:, 0].mean()")) as ask:
        assert ask(np.eye(3), np.zeros((3, 1)), np.eye(3)).row is not None


@pytest.mark.parametrize(
    ("lines", "says"), [(lines, says) for says, many in RUN.items() for lines in many if lines != ["return obs[:5, 0]"]]
)
def test_a_process_that_stays_can_fail_alone(lines, says):
    one = np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 3))
    with talk(code(*lines), memory_mb=64) as ask, pytest.raises(FailedCode, match=says):
        ask(*one)
    assert ask.process.poll() is not None


@pytest.mark.parametrize("attempt", BEHIND)
def test_behind_the_reader_nothing_gets_out_of_a_process_that_stays(attempt, tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox, "check_code", lambda source, fields: None)
    mark = tmp_path / "mark"
    if attempt in ("delete", "rename"):
        mark.write_text("here")
    with talk(code(*WALK, *BEHIND[attempt]).replace("MARK", str(mark))) as ask, pytest.raises(FailedCode):
        ask(np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 3)))
    assert mark.exists() == (attempt in ("delete", "rename"))


def test_a_process_does_not_stay_for_code_that_fails_at_once(monkeypatch):
    monkeypatch.setattr(sandbox, "check_code", lambda source, fields: None)
    with pytest.raises(FailedCode, match="ZeroDivisionError"):
        talk("1 / 0\n")


def test_the_list_of_math_exists():
    import math

    assert all(hasattr(math, name) for name in MATH)


def test_code_is_read_in_many_threads_at_once():
    """Python 3.11 counts the depth of syntax trees for all threads together, and garbage collection within a parse may switch."""
    source = code(*["total = np.where((obs[:, speed] > 1.89) & (obs[:, speed] < 2.08), 1.0, 0.0)"] * 5, "return total")
    thresholds, switch = gc.get_threshold(), lambda phase, info: time.sleep(0)
    gc.callbacks.append(switch)
    gc.set_threshold(5)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert list(pool.map(lambda _: check_code(source, FIELDS), range(200))) == [None] * 200
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(switch)
