"""Who writes reward code and the record of it: transcripts, limits, a real endpoint's troubles, and what a prompt says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chat_stub import KEY, serving, texts
from chat_stub import Endpoint as Server
from hypothesis import given
from hypothesis import strategies as st
from offline_toys import FIELDS, walker

from robopref.configs.chat import ChatConfig
from robopref.configs.errors import RoboprefError
from robopref.configs.prof import RankingConfig, WriterConfig
from robopref.embodied.fields import Described, Field, described
from robopref.preference.chat import Chat, Completion
from robopref.preference.prof import prompts
from robopref.preference.prof.code import RefusedCode, check_code
from robopref.preference.prof.grammar import Grammar
from robopref.preference.prof.ranking import Evidence, Score
from robopref.preference.prof.writers import Endpoint, Manual, Recorded, Replay, Request, Waiting, read_transcript

WORLD = Described(
    "toy/walker",
    "Walk fast.",
    0.05,
    (Field("speed", "how fast it walks", "m/s"), Field("wobble", "how far it leans", "rad")),
    (Field("push", "how hard it pushes", "1"), Field("lean", "where it leans", "1")),
)
ANSWER = "It is worth its speed.\n\n```python\ndef reward(obs, act, next_obs):\n    return obs[:, speed]\n```\n"
FIRST = Request("write", 0, 0, "a prompt")


class Scripted:
    """A writer that says what it is told to, and counts."""

    name = "scripted"

    def __init__(self) -> None:
        self.asked: list[Request] = []

    def answer(self, request: Request) -> Completion:
        self.asked.append(request)
        return Completion(f"{request.name}: {ANSWER}", tokens_in=100, tokens_out=20)


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        running.answer = lambda body: ANSWER
        yield running


def test_an_answer_is_asked_for_once_and_kept(tmp_path):
    writer = Scripted()
    recorded = Recorded(writer, tmp_path / "t.jsonl", WriterConfig())
    requests = [FIRST, replace(FIRST, number=1)]
    said = recorded.answers(requests)
    assert said[0] != said[1] and recorded.answers(requests) == said and len(writer.asked) == 2
    again = Recorded(Scripted(), tmp_path / "t.jsonl", WriterConfig())
    assert again.answers(requests) == said
    assert again.spent() == {"calls": 2, "tokens": 240, "dollars": 0.0}


def test_a_transcript_holds_all_that_was_said(tmp_path):
    Recorded(Scripted(), tmp_path / "t.jsonl", WriterConfig()).answer(FIRST)
    (line,) = [json.loads(text) for text in (tmp_path / "t.jsonl").read_text().splitlines()]
    assert line["prompt"] == "a prompt" and line["text"].endswith(ANSWER) and line["writer"] == "scripted"
    assert (line["kind"], line["round"], line["number"], line["key"]) == ("write", 0, 0, FIRST.key)


def test_a_line_that_was_not_finished_is_asked_again(tmp_path):
    path = tmp_path / "t.jsonl"
    Recorded(Scripted(), path, WriterConfig()).answers([FIRST, replace(FIRST, number=1)])
    path.write_text(path.read_text()[:-20])
    writer = Scripted()
    recorded = Recorded(writer, path, WriterConfig())
    recorded.answers([FIRST, replace(FIRST, number=1)])
    assert [request.number for request in writer.asked] == [1] and len(read_transcript(path)) == 2


def test_replay_knows_a_question_by_what_is_asked_and_not_by_the_rules_of_code(tmp_path):
    prompt = prompts.write_prompt(WORLD, walker(skill=1.0).take([0]))
    asked = Request("write", 0, 0, prompt)
    said = Recorded(Scripted(), tmp_path / "t.jsonl", WriterConfig()).answer(asked)
    replay = Replay(tmp_path / "t.jsonl")
    other = prompt.replace("Only np and math may be used", "Only these may be used")
    assert other != prompt and replay.answer(replace(asked, prompt=other)).text == said
    for changed in (prompt.replace("Walk fast", "Walk slowly"), prompt.replace("at every single step", "at most steps")):
        assert changed != prompt
        with pytest.raises(RoboprefError, match="has no answer to question 0-write-0"):
            replay.answer(replace(asked, prompt=changed))


def test_replay_says_the_same_and_nothing_else(tmp_path):
    path = tmp_path / "t.jsonl"
    said = Recorded(Scripted(), path, WriterConfig()).answer(FIRST)
    assert Recorded(Replay(path), tmp_path / "new.jsonl", WriterConfig()).answer(FIRST) == said
    with pytest.raises(RoboprefError, match=r"t\.jsonl has no answer to question 0-write-3: replay needs the settings"):
        Replay(path).answer(replace(FIRST, number=3))


@pytest.mark.parametrize(
    ("content", "problem"),
    [("", "holds no answer"), ("nonsense\n", "line 1"), ("[1]\n", "it needs key"), ('{"key": "x"}\n', "it needs key")],
)
def test_what_is_no_transcript_is_an_error_that_names_it(tmp_path, content, problem):
    (tmp_path / "bad.jsonl").write_text(content)
    with pytest.raises(RoboprefError, match=problem) as failure:
        Replay(tmp_path / "bad.jsonl")
    assert "bad.jsonl" in str(failure.value)


def test_a_missing_transcript_is_an_error(tmp_path):
    with pytest.raises(RoboprefError, match="is no transcript"):
        Replay(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    ("limits", "calls"), [({"calls": 2}, 2), ({"tokens": 130}, 2), ({"dollars": 1e-4, "price_in": 1.0, "price_out": 1.0}, 1)]
)
def test_limits_end_a_run_and_what_was_said_stays(tmp_path, limits, calls):
    recorded = Recorded(Scripted(), tmp_path / "t.jsonl", WriterConfig(**limits))
    with pytest.raises(RoboprefError, match=rf"writer\.{next(iter(limits))}=.* is reached"):
        recorded.answers([replace(FIRST, number=number) for number in range(5)])
    assert len(read_transcript(tmp_path / "t.jsonl")) == calls


def test_money_without_prices_is_an_error(tmp_path):
    with pytest.raises(RoboprefError, match=r"writer\.dollars needs writer\.price_in"):
        Recorded(Scripted(), tmp_path / "t.jsonl", WriterConfig(dollars=1.0))


def test_manual_writes_prompts_and_waits_for_all_answers(tmp_path):
    recorded = Recorded(Manual(tmp_path / "manual"), tmp_path / "t.jsonl", WriterConfig())
    requests = [FIRST, replace(FIRST, number=1)]
    with pytest.raises(RoboprefError, match="2 answers are waited for"):
        recorded.answers(requests)
    files = sorted((tmp_path / "manual").glob("*.prompt.md"))
    assert [file.read_text() for file in files] == ["a prompt\n"] * 2
    for number, file in enumerate(files):
        file.with_name(file.name.replace("prompt", "answer")).write_text(f"answer {number}")
    assert recorded.answers(requests) == ["answer 0", "answer 1"]
    with pytest.raises(Waiting):
        Manual(tmp_path / "manual").answer(replace(FIRST, prompt="another"))


@pytest.mark.parametrize("stream", [False, True])
def test_an_endpoint_writes_and_each_attempt_is_asked(endpoint, tmp_path, stream):
    chat = Chat(ChatConfig("coder", endpoint.url, temperature=1.0, stream=stream, longest=500), tmp_path / "answers")
    answers = [Endpoint(chat).answer(replace(FIRST, number=number)) for number in (0, 1, 0)]
    assert answers[0] == Completion(ANSWER, True, 11, 7) and len(endpoint.asked) == 2
    body = endpoint.asked[0]
    assert texts(body) == ["a prompt"] and body["temperature"] == 1.0 and body["max_tokens"] == 500
    assert body.get("stream", False) is stream


@pytest.mark.parametrize("trouble", ["cut", "half", "500", "503", "429:0.25", "html", "other", "hang", "parts"])
def test_a_stream_that_fails_is_asked_again(endpoint, tmp_path, trouble):
    waits: list[float] = []
    chat = Chat(ChatConfig("coder", endpoint.url, stream=True, timeout=0.5), tmp_path / "answers", waits.append)
    endpoint.trouble = [trouble]
    assert chat.complete(["well?"]).text == ANSWER
    assert waits == [0.25 if trouble == "429:0.25" else 1.0]


def test_an_answer_that_is_cut_off_is_known_and_refused(endpoint, tmp_path):
    endpoint.answer = lambda body: ANSWER[:-5]
    for stream in (False, True):
        endpoint.trouble = ["length"]
        chat = Chat(ChatConfig("coder", endpoint.url, stream=stream), tmp_path / str(stream))
        said = chat.complete(["well?"])
        assert not said.whole
        with pytest.raises(RefusedCode, match="cut off"):
            prompts.code_of(said.text)


def test_no_key_in_a_transcript(endpoint, tmp_path):
    endpoint.answer = lambda body: f"the key is {KEY}"
    chat = Chat(ChatConfig("coder", endpoint.url, stream=True), tmp_path / "answers")
    Recorded(Endpoint(chat), tmp_path / "t.jsonl", WriterConfig()).answer(FIRST)
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*.json*"))


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (ANSWER, "def reward(obs, act, next_obs):\n    return obs[:, speed]\n"),
        ("def reward(obs, act, next_obs):\n    return 1", "def reward(obs, act, next_obs):\n    return 1\n"),
        ("```\nx = 1\n```\nthen\n```python\ndef reward(): pass\n```\nlike\n```\ny\n```", "def reward(): pass\n"),
        ("  ```python\n  def reward():\n      pass\n  ```", "def reward():\n    pass\n"),
    ],
)
def test_the_code_in_an_answer(answer, code):
    assert prompts.code_of(answer) == code


def test_a_prompt_says_what_there_is_and_nothing_of_the_reward():
    expert = walker(lengths=(30,), skill=1.0)
    prompt = prompts.write_prompt(WORLD, expert)
    for words in ("Walk fast.", "0 speed [m/s] how fast it walks", "1 lean [1] where it leans", "30 steps", "obs[:, speed]"):
        assert words in prompt
    assert f"speed mean {expert.obs[:, 0].mean():.3g}" in prompt
    assert "attempt" not in prompt and "attempt 3 of several" in prompts.write_prompt(WORLD, expert, 2)


@pytest.mark.parametrize("env", ["mujoco/hopper", "mujoco/halfcheetah", "mujoco/walker2d", "adroit/door"])
def test_every_described_world_makes_a_prompt_without_its_reward(env):
    world = described(env)
    names = {field.name for field in (*world.observations, *world.actions)}
    assert all(name.isidentifier() for name in names)
    data = walker(lengths=(20,))
    wide = replace(
        data,
        observations=np.random.default_rng(0).normal(size=(21, len(world.observations))).astype(np.float32),
        actions=np.zeros((20, len(world.actions)), np.float32),
        rewards=np.full(20, 123.456, np.float32),
    )
    prompt = prompts.write_prompt(world, wide)
    assert all(name in prompt for name in names) and "123" not in prompt


def test_a_report_names_what_is_lost_and_by_how_much():
    margins = np.array([[[0.05, 0.3]], [[1.0, 2.0]]])
    config = RankingConfig(levels=(1.0, 4.0), draws=1, alpha_o=0.1, alpha_a=0.2, delta=0.1)
    text = prompts.report(Score("", Evidence(margins, np.array([[0.5, 0.0]]), -0.5, 0.25, 0.5, np.zeros(1))), config)
    assert "It wins 75% of all pairs" in text
    assert "Noise of 0.1 deviations on observations and 0.2 on actions" in text and "in 50% of the pairs" in text
    assert "The worst pair: segment 1 of the expert at noise level 1, where the expert is better by 0.05." in text
    assert "0.25 deviations" in text and "50% of the data's transitions" in text


@given(st.integers(0, 10_000), st.integers(0, 20))
def test_what_the_grammar_writes_is_allowed_and_the_same_for_a_seed(seed, number):
    expert = walker(skill=1.0)
    request = Request("write", 0, number, "")
    answers = {Grammar(FIELDS, expert, seed).answer(request).text for _ in range(2)}
    assert len(answers) == 1
    code = prompts.code_of(answers.pop())
    check_code(code, FIELDS)
    changed = prompts.code_of(Grammar(FIELDS, expert, seed).answer(Request("rewrite", 1, number, "", code)).text)
    check_code(changed, FIELDS)
    before, after = code.splitlines(), changed.splitlines()
    assert abs(len(before) - len(after)) <= 1


def test_the_grammar_has_no_opinion():
    assert Grammar(FIELDS, walker(), 0).answer(Request("criticise", 1, 0, "")).text == ""


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("key", 3, "key is no text"),
        ("writer", None, "writer is no text"),
        ("text", ["x"], "text is no text"),
        ("whole", 1, "whole is no true or false"),
        ("tokens_in", "3", "tokens_in is no whole number"),
        ("tokens_out", -1, "tokens_out is no whole number"),
        ("tokens_out", 1.5, "tokens_out is no whole number"),
        ("tokens_out", True, "tokens_out is no whole number"),
    ],
)
def test_a_line_with_values_of_another_kind_is_named(tmp_path: Path, name: str, value: object, said: str) -> None:
    path = tmp_path / "transcript.jsonl"
    line = {"key": "k", "writer": "w", "text": "\ud800\0", "whole": True, "tokens_in": 1, "tokens_out": 2}
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | {"key": "l"}) + "\n")
    assert [one["text"] for one in read_transcript(path)] == ["\ud800\0"] * 2, "models write anything"
    path.write_text(json.dumps(line) + "\n" + json.dumps(line | {name: value}) + "\n")
    with pytest.raises(RoboprefError, match=rf"transcript\.jsonl, line 2: {said}.*; mend or delete this line"):
        read_transcript(path)


@pytest.mark.parametrize("text", ["9" * 5000, "[" * 3000 + "]" * 3000, "{'a'}", "NaN", "[]", "3"])
def test_a_line_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "transcript.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(RoboprefError, match=r"transcript\.jsonl, line 1: .*; mend or delete this line") as caught:
        read_transcript(path)
    assert "\n" not in str(caught.value)
