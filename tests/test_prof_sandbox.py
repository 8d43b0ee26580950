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
from attacks import FIELDS, WALK, N, code, rows, run, talk
from hypothesis import given, settings
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.configs.prof import SandboxConfig
from robopref.preference.prof import sandbox
from robopref.preference.prof.code import Fields, RefusedCode, check_code
from robopref.preference.prof.contract import CONSTANTS, MATH, NUMPY
from robopref.preference.prof.sandbox import FailedCode, Sandbox

NEEDS_BUBBLEWRAP = pytest.mark.skipif(
    Sandbox(SandboxConfig()).bubblewrap is None, reason="bubblewrap is not installed or may not make namespaces here"
)


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


@pytest.mark.parametrize("name", sorted([*NUMPY, *CONSTANTS["np"]]))
def test_every_function_on_the_list_exists(name):
    target = np
    for part in name.split("."):
        assert hasattr(target, part)
        target = getattr(target, part)


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
    "returns a": [["return [obs[:, 0]]"], ["return None"], ["return obs.shape"]],
    "objects, not of numbers": [["return np.array(10**30) + obs[:, 0]"], ["x = None", "return np.array(x) + obs[:, 0]"]],
    "a list may hold": [["x = None", "return np.array([x, 1])[0] + obs[:, 0]"], ["return (obs[:, :1] * [10**30])[:, 0]"]],
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


def test_numbers_that_are_none_come_through():
    said = run(code("return np.where(obs[:, 0] > 0, np.nan, np.log(obs[:, 0] * 0))"))
    assert np.isnan(said.values).any() and np.isneginf(said.values).any()
    assert said.row is None


def test_the_data_cannot_be_changed_by_anybody():
    with rows() as some, pytest.raises(OSError), open(f"/proc/self/fd/{some.fd}", "r+b") as file:
        file.write(b"x" * 100)
        file.flush()


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
    assert set(sandbox.ALL_LAYERS) <= set(run(code("return obs[:, 0]"), strict=True).layers)


def test_strict_fails_closed(monkeypatch):
    monkeypatch.setenv("PATH", os.devnull)
    with pytest.raises(RoboprefError, match="bubblewrap is not installed"):
        Sandbox(SandboxConfig(strict=True))


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


def test_a_process_does_not_stay_for_code_that_fails_at_once(monkeypatch):
    monkeypatch.setattr(sandbox, "check_code", lambda source, fields: None)
    with pytest.raises(FailedCode, match="ZeroDivisionError"):
        talk("1 / 0\n")


def test_the_list_of_math_exists():
    import math

    assert all(hasattr(math, name) for name in [*MATH, *CONSTANTS["math"]])


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
