"""Every attack of attacks.py is held, and what rewards are made of is not taken for one."""

from __future__ import annotations

import json
from pathlib import Path
from unittest import mock

import attacks
import numpy as np
import pytest
from attacks import ANSWERS, BEHIND, DEPENDENT, FIELDS, READER, REPLIES, VALUES, WALK, code, run, talk
from test_prof_sandbox import NEEDS_BUBBLEWRAP

from robopref.configs.prof import SandboxConfig
from robopref.embodied.fields import described
from robopref.preference.prof import sandbox
from robopref.preference.prof.code import RefusedCode, check_code
from robopref.preference.prof.prompts import code_of
from robopref.preference.prof.sandbox import FailedCode, Sandbox
from robopref.preference.prof.search import fields_of

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "docs/results/prof").glob("*/transcript.jsonl"))
REFUSED: dict[tuple[str, str], str] = {}
"""Candidates of the committed transcripts that the rules refuse, (folder, ROUND-KIND-NUMBER) -> the reason: none."""


@pytest.mark.parametrize("attempt", READER)
def test_an_attack_is_refused_before_it_is_run(attempt, monkeypatch):
    monkeypatch.setattr(Sandbox, "started", lambda *args: pytest.fail("it was run"))
    with pytest.raises(RefusedCode):
        run(READER[attempt])


@pytest.mark.parametrize("line", DEPENDENT)
def test_a_reward_that_looks_at_other_rows_is_found_out(line):
    assert run(code(line)).row is not None


def test_rows_that_code_expects_are_not_all_that_is_looked_at():
    """The first look draws 64 rows by a fixed seed; code that knows them is found out by the others."""
    drawn = "".join(f"(len(obs) == {count}) + " for count in (1, 64, attacks.N)) + "0"
    assert run(code(f"return obs[:, 0] + 1 - ({drawn})")).row is not None


def test_the_expert_s_noisy_copies_are_looked_at():
    rng = np.random.default_rng(0)
    parts = (rng.normal(size=(60_300, 3)), np.zeros((60_300, 1)), rng.normal(size=(60_300, 3)))
    with sandbox.Rows(*parts, always=(60_000, 60)) as rows:
        source = code("return obs[:, 0] - 100.0 * (np.arange(len(obs)) >= 60060)")
        assert Sandbox(SandboxConfig()).run(source, FIELDS, rows).row is not None


@pytest.mark.parametrize("count", [1, 2, 5, 60])
@pytest.mark.parametrize(
    "line",
    [
        "return obs[:, 0] + np.all(obs == obs[0]) * 1.0",
        "return obs[:, 0] + obs[0, 1]",
        "return obs[:, 0] + obs[-1, 1]",
        "return obs[:, 0] * len(obs)",
        "return obs[:, 0] - obs[:, 0].mean()",
        "return obs[:, 0] + np.arange(len(obs))",
    ],
)
def test_a_process_that_stays_looks_at_few_rows_in_company(line, count):
    rng = np.random.default_rng(1)
    found = 0
    with talk(code(line)) as ask:
        for _ in range(10):
            parts = (rng.normal(size=(count, width)) for width in (3, 1, 3))
            found += ask(*parts).row is not None
    assert found >= (10 if "all" not in line or count == 1 else 0)


def test_an_answer_that_comes_late_is_not_taken_for_the_next():
    lines = ["if np.all(obs == 1):", "    t = 0", "    for i in range(30000000):", "        t = t + 1", "return obs[:, 0] * 1.0"]
    with talk(code(*lines), seconds=0.3) as ask:
        for value in (5.0, 1.0, 2.0, 3.0):
            asked = np.full((4, 3), value), np.ones((4, 1)), np.ones((4, 3))
            if value == 1:
                with pytest.raises(FailedCode, match="ran out of time"):
                    ask(*asked)
            else:
                assert ask(*asked).values.tolist() == [value] * 4


def test_no_folder_is_left_by_a_process_that_is_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.tempfile, "tempdir", str(tmp_path))
    with talk(code("return obs[:, 0]")):
        assert not list(tmp_path.iterdir())


def test_the_expert_s_rows_are_all_looked_at():
    rng = np.random.default_rng(0)
    obs = rng.normal(size=(50_000, 3))
    parts = obs, np.zeros((50_000, 1)), obs
    line = "return obs[:, 0] * 0 + (np.abs(obs[:, 1] - {:.9g}) < 1e-6) * np.arange(len(obs))"  # one row alone is dependent
    with sandbox.Rows(*parts, always=(40_000, 100)) as rows:
        source = code(line.format(np.float32(obs[40_050, 1])))
        assert Sandbox(SandboxConfig()).run(source, FIELDS, rows).row == 40_050


@pytest.mark.parametrize(
    "lines",
    [
        ["return np.zeros(len(obs))"],
        ["return np.full(obs.shape[0], 2.0)"],
        ["r = np.zeros(len(obs))", "r[obs[:, 0] > 0] = 1", "return r"],
        ["r = np.zeros((len(obs), 2))", "r[:, 0][obs[:, 0] > 0] += 1", "return r.sum(axis=1)"],
        ["r: np.ndarray = obs[:, 0] * 2", "x: float = 0.5", "return r * x"],
        ["angle_now = (obs[:, angle] + np.pi) % (2 * np.pi) - np.pi", "return -np.abs(angle_now)"],
        ["return obs[:, 0].astype(float)"],
        ["return obs[:, 0].astype(np.float64) + np.zeros(len(obs), dtype=np.float32)"],
        ["return obs[:, 0].astype('float32') + np.zeros(len(obs), dtype='float64') + np.ones(len(obs), float)"],
        ["return np.sum(obs, axis=1, where=obs > 0) + np.max(obs, axis=1, where=obs > 0, initial=-1.0)"],
        ["return np.clip(obs[:, 0], None, 1.0) + np.clip(obs[:, 0], a_min=-1, a_max=1) + obs[:, 1].clip(min=0)"],
        ["return np.sum(obs[:, None, :], axis=(1, 2)) + obs[..., 0]"],
        ["return max(1, 2, 3) * obs[:, 0] + min([1, 2]) + sum([1, 2]) + round(1.234, 2) + abs(-1) + int(True)"],
        ["total = sum([obs[:, i] for i in range(3)])", "return total / 3"],
        ["best = None", "if best is None:", "    best = obs[:, 0]", "return best"],
        ["(a, (b, c)), d = (obs[:, 0], (obs[:, 1], obs[:, 2])), 1", "return a + b + c + d"],
        ["return np.select([obs[:, 0] > 1, obs[:, 0] > 0], [2.0, 1.0], default=0.0)"],
        ["return np.linalg.norm(obs, ord=2, axis=1) + np.linalg.norm(obs, axis=-1, keepdims=True)[:, 0]"],
        ["return np.log(np.maximum(obs[:, 0], 1e-6)) + math.log(2.0) + np.hypot(obs[:, 0], obs[:, 1])"],
        [
            "weights = np.array([1.0, 2.0, 3.0], dtype=np.float32)",
            "return obs @ weights + np.dot(obs, weights) + obs.dot(weights)",
        ],
        ["return np.where(np.isnan(obs[:, 0]), 0.0, np.nan_to_num(obs[:, 0], nan=0.0))"],
        ["return obs[:, 0].reshape(-1, 1).squeeze(1).round(3) + obs.std(axis=1, ddof=1) + np.median(obs, axis=1)"],
        ["'''A second text that nobody reads.'''", "return 1e-3 * obs[:, 0]"],
        ["return 1e-7 * obs[:, 0]"],
        ["return 100.0 + obs[:, 0]"],
        [
            "_, n = obs.shape",
            "for i in range(n):",
            "    if i == 1:",
            "        continue",
            "    if i == 2:",
            "        break",
            "return obs[:, 0] * n",
        ],
        ["r = np.zeros(len(obs), dtype=obs.dtype)", "return r + np.repeat(obs[:, :1], 3, axis=1).sum(axis=1)"],
        ["r: 'np.ndarray' = obs[:, 0]", "parts: list[float] = [1.0, 2.0]", "return r * parts[0] + np.tile(obs, (1, 2))[:, 1]"],
    ],
)
def test_what_rewards_are_made_of_is_no_attack(lines):
    said = run("import math\nimport numpy as np\n" + code('"""Good."""', *lines))
    assert np.isfinite(said.values).all() and said.row is None


def test_arguments_and_result_may_be_annotated():
    source = "def reward(obs: np.ndarray, act: np.ndarray, next_obs: np.ndarray) -> np.ndarray:\n    return obs[:, 0]\n"
    assert run(source).row is None
    assert run("import numpy as np\n" + source).row is None
    assert run("from __future__ import annotations\nimport numpy as np\n" + source).row is None


def test_candidates_of_all_committed_transcripts_still_pass():
    refused, count = {}, 0
    for path in TRANSCRIPTS:
        folder = path.parent.name
        fields = fields_of(described("adroit/door" if folder == "door" else f"mujoco/{folder.partition('-')[0]}", None))
        for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
            if line["kind"] == "criticise":
                continue
            count += 1
            try:
                check_code(code_of(line["text"]), fields)
            except RefusedCode as problem:
                refused[folder, f"{line['round']}-{line['kind']}-{line['number']}"] = str(problem)
    assert count == 100
    assert refused == REFUSED


@pytest.mark.parametrize("attempt", [name for name in BEHIND if BEHIND[name][: len(attacks.RAW)] == attacks.RAW])
def test_behind_the_reader_no_system_call_gets_out(attempt):
    assert attacks.held_behind(attempt, stays=True, bubblewrap=False)


@pytest.mark.parametrize(("stays", "bubblewrap"), [(True, False), pytest.param(False, True, marks=NEEDS_BUBBLEWRAP)])
@pytest.mark.parametrize("attempt", [name for name in BEHIND if BEHIND[name][: len(attacks.RAW)] != attacks.RAW])
def test_behind_the_reader_nothing_gets_out(attempt, stays, bubblewrap):
    assert attacks.held_behind(attempt, stays=stays, bubblewrap=bubblewrap)


@pytest.mark.parametrize("attempt", REPLIES)
def test_a_process_that_says_anything_is_one_line(attempt):
    assert attacks.held_reply(attempt)


def test_the_reply_that_the_others_are_made_from_is_an_answer(tmp_path, monkeypatch):
    monkeypatch.setitem(REPLIES, "right", (attacks.HELLO, attacks.reply(row=None) + "+" + VALUES))
    said = attacks.said_by("right", tmp_path)
    assert (said.values == 0).all() and said.layers[:4] == ("syntax", "process", "limits", "system calls")


def test_code_cannot_say_which_layers_hold():
    forged = ['os.write(1, b\'{"layers": ["limits"]}\\n\')', "return obs[:, 0]"]
    with attacks.unread(), talk(code(*WALK, *forged)) as ask:
        layers = ask.layers
        with pytest.raises(FailedCode):
            ask(np.ones((2, 3)), np.ones((2, 1)), np.ones((2, 3)))
    assert layers == run(code("return obs[:, 0]")).layers


@pytest.mark.parametrize("attempt", ANSWERS)
def test_no_answer_of_a_language_model_ends_the_run(attempt):
    assert attacks.held_answer(attempt)


@pytest.mark.parametrize("attempt", ["read a file", "write a file", "a raw open", "a thread's signal to another process"])
def test_landlock_alone_holds_files_and_signals(attempt, tmp_path, monkeypatch):
    child = tmp_path / "child.py"
    child.write_text(sandbox.CHILD.read_text().replace("if forbid_calls()", "if False"))
    monkeypatch.setattr(sandbox, "CHILD", child)
    with talk(code("return obs[:, 0]"), strict=False, bubblewrap=False) as ask:
        if "landlock" not in ask.layers:
            pytest.skip("this kernel has no Landlock")
    try:
        held = attacks.held_behind(attempt, stays=True, bubblewrap=False)
    except FailedCode:
        held = True
    if "signal" in attempt and not held:
        pytest.skip("Landlock of this kernel does not look at signals (6.12)")
    assert held


def test_modules_cannot_be_written_to_and_nothing_is_kept():
    for line in ("np.abs = 1", "np.pi = 3", "np.linalg.norm = 1", "math.pi = 3", "np.new = 1"):
        with attacks.unread(), pytest.raises(FailedCode, match="AttributeError"):
            run(code(line, "return obs[:, 0]"))


def test_memory_that_nobody_has_written_is_not_handed_out():
    """Values of the same code are the same in every run and process."""
    lines = [
        "a = np.sum(obs, axis=1, where=obs > 9)",
        "b = np.mean(obs, axis=1, where=obs > 0)",
        "c = np.select([obs[:, 0] > 9], [1.0])",
        "return np.nan_to_num(a + b + c)",
    ]
    assert run(code(*lines)).values.tobytes() == run(code(*lines)).values.tobytes()


def test_a_process_that_stays_gives_way_to_a_new_one_before_its_time_is_up(monkeypatch):
    monkeypatch.setattr(sandbox, "LASTING", 0.0)
    monkeypatch.setattr(sandbox, "STARTING", 1.0)
    one = np.ones((1, 3)), np.ones((1, 1)), np.ones((1, 3))
    with talk(code("return obs[:, 0] * 3"), seconds=1.0) as ask:
        first = ask.process.pid
        assert ask(*one).values == 3
        assert ask.process.pid == first
        ask.waited += 0.5
        assert ask(*one).values == 3
        assert ask.process.pid != first


def test_a_line_says_which_layer_is_missing(monkeypatch, capsys):
    sandbox.warn_once.cache_clear()
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    for _ in range(2):
        found = Sandbox(SandboxConfig())
        assert not found.strict
    assert capsys.readouterr().err.splitlines() == [
        "warning: reward code runs without one layer of its sandbox: bubblewrap is not installed "
        "(Debian: apt-get install bubblewrap)"
    ]
    Sandbox(SandboxConfig(bubblewrap=False))
    assert capsys.readouterr().err == ""


def test_bubblewrap_that_may_not_make_namespaces_is_told(tmp_path, monkeypatch, capsys):
    sandbox.warn_once.cache_clear()
    wrapper = tmp_path / "bwrap"
    wrapper.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert not Sandbox(SandboxConfig()).strict
    assert "may not make namespaces here (bwrap: No permissions" in capsys.readouterr().err


@NEEDS_BUBBLEWRAP
def test_strict_is_the_default_where_bubblewrap_starts(monkeypatch, tmp_path):
    assert Sandbox(SandboxConfig()).strict
    child = tmp_path / "child.py"
    child.write_text(sandbox.CHILD.read_text().replace("if forbid_calls()", "if False"))
    with mock.patch.object(sandbox, "CHILD", child):
        with pytest.raises(sandbox.RoboprefError, match="only these layers hold here: syntax, process, limits"):
            run(code("return obs[:, 0]"))
        assert "system calls" not in run(code("return obs[:, 0]"), strict=False).layers
