"""`robopref prof` as its user meets it: tables, files, edited rewards, transcripts, and what goes wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fuzz_models
import numpy as np
import pandas as pd
import pytest
from chat_stub import KEY, serving
from offline_toys import walker
from test_prof_writers import ANSWER

from robopref.configs import cli
from robopref.configs.errors import RoboprefError
from robopref.configs.files import write_json
from robopref.datasets.d4rl import load_offline, write_d4rl
from robopref.preference.prof import command
from robopref.preference.prof.written import WrittenReward

QUICK = ["candidates=3", "children=2", "ranking.horizon=10", "ranking.draws=1", "env=toy/walker"]
FIELDS = """
toy/walker:
  task: Walk fast.
  step: 0.05
  observations: [[speed, how fast it walks, m/s], [wobble, how far it leans, rad]]
  actions: [[push, how hard it pushes, 1], [lean, where it leans, 1]]
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    write_d4rl("data.hdf5", walker())
    write_d4rl("expert.hdf5", walker(skill=1.0))
    Path("fields.yaml").write_text(FIELDS)
    yield tmp_path


def prof(*words: str) -> int:
    return cli.main(["prof", *QUICK, "data=data.hdf5", "expert_data=expert.hdf5", "fields=fields.yaml", *words])


def test_the_grammar_s_rewards_are_ranked_shown_and_written(files, capsys):
    assert prof("out=run") == 0
    shown = capsys.readouterr().out
    ranking = pd.read_csv("run/ranking.csv")
    assert len(ranking) == 5 and ranking["chosen"].sum() == 1
    chosen = ranking[ranking["chosen"]].iloc[0]
    assert chosen["dominance"] == ranking["dominance"].max()
    code = Path("run/reward.py").read_text()
    assert code == Path(f"run/candidates/{chosen['candidate']}.py").read_text()
    assert (
        "copy it to mine.py and rank both" in shown
        and "files=[mine.py,run/reward.py] candidates=0 rounds=0 out=run-edited" in shown
    )
    assert "no language model" in shown and "def reward" in shown and f"{chosen['candidate']} *" in shown
    data = load_offline("data.hdf5")
    values = WrittenReward("run/reward.py")(data.obs, data.actions, data.next_obs)
    assert values.shape == (len(data),) and np.isfinite(values).all()
    assert {"manifest.json", "summary.json", "transcript.jsonl", "columns.json"} <= {path.name for path in Path("run").iterdir()}
    before = Path("run/manifest.json").stat().st_mtime_ns
    assert prof("out=run") == 0 and Path("run/manifest.json").stat().st_mtime_ns == before  # kept
    assert ", already done; " in capsys.readouterr().out.splitlines()[-1] and "already" not in shown
    then = "next: robopref train policy=iql_d4rl data=data.hdf5 reward=run/reward.py"
    assert shown.splitlines()[-1] == f"run: the candidate marked * in reward.py; {then}" and "more in" not in shown


def test_candidates_that_are_not_shown_are_counted(files, capsys, monkeypatch):
    monkeypatch.setattr(command, "SHOWN", 3)
    assert prof("out=run") == 0
    assert "\n2 more in run/ranking.csv\n" in capsys.readouterr().out


def test_an_edited_reward_is_ranked_again(files, capsys):
    assert prof("out=run") == 0
    Path("mine.py").write_text("def reward(obs, act, next_obs):\n    return -np.abs(obs[:, wobble])\n")
    hint = capsys.readouterr().out.splitlines()[-2].split(": ")[-1].split()
    assert prof(*hint) == 0
    Path("run-edited").rename("again")
    ranking = pd.read_csv("again/ranking.csv")
    assert set(ranking["candidate"]) == {"mine", "reward"}
    assert Path("again/reward.py").read_text() in (Path("mine.py").read_text(), Path("run/reward.py").read_text())


def test_a_reward_that_was_edited_where_it_lies_is_not_lost(files, capsys):
    assert prof("out=run") == 0
    mine = Path("run/reward.py").read_text() + "# mine\n"
    Path("run/reward.py").write_text(mine)
    own = ["out=run", "candidates=0", "rounds=0", "files=[run/reward.py]"]
    for words, said in (
        (["out=run"], "run/reward.py has been edited since it was chosen: move it elsewhere"),
        (own, "run/reward.py has been edited since it was chosen: move it elsewhere"),
        (
            [*own, "overwrite=true"],
            "run: overwrite=true would delete run/reward.py, which this command reads",
        ),
    ):
        capsys.readouterr()
        assert prof(*words) == 1
        (told,) = capsys.readouterr().err.splitlines()
        assert said in told and "or replace it" not in told
        assert Path("run/reward.py").read_text() == mine


@pytest.mark.parametrize("name", ["fields.yaml", "said.jsonl"])
def test_other_words_and_another_transcript_are_noticed(files, capsys, name):
    assert prof("out=said") == 0
    Path("said/transcript.jsonl").rename("said.jsonl")
    words = ["out=run", "writer.kind=replay", "writer.transcript=said.jsonl"]
    assert prof(*words) == 0
    made = Path("run/reward.py").read_bytes()
    text = Path(name).read_text()
    for change, said in ((text.replace("walks", "crawls"), "on other inputs"), (None, f"{name} does not exist")):
        Path(name).unlink() if change is None else Path(name).write_text(change)
        capsys.readouterr()
        assert prof(*words) == 1
        assert said in capsys.readouterr().err and Path("run/reward.py").read_bytes() == made
    assert prof(*words, "overwrite=true") == 1 and Path("run/reward.py").read_bytes() == made, "nothing is lost for a lost file"


def test_files_of_the_same_name_keep_their_own_rows_and_files(files, capsys):
    texts = {}
    for n, folder in enumerate(["a", "b", "c"]):
        Path(folder).mkdir()
        texts[f"{folder}-reward"] = f"def reward(obs, act, next_obs):\n    return obs[:, speed] * {n - 1}\n"
        Path(folder, "reward.py").write_text(texts[f"{folder}-reward"])
    Path("write-0.py").write_text(texts["c-reward"])
    given = "files=[a/reward.py,b/reward.py,c/reward.py,write-0.py]"
    assert prof("out=run", "candidates=1", "rounds=0", given) == 0
    ranking = pd.read_csv("run/ranking.csv")
    names = [*texts, "write-0-2", "write-0"]
    assert sorted(ranking["candidate"]) == sorted(names) and ranking["chosen"].sum() == 1
    assert sorted(path.stem for path in Path("run/candidates").glob("*.py")) == sorted(names)
    for name, text in texts.items():
        assert Path(f"run/candidates/{name}.py").read_text() == text
    chosen = ranking[ranking["chosen"]].iloc[0]["candidate"]
    assert Path("run/reward.py").read_text() == Path(f"run/candidates/{chosen}.py").read_text()
    shown = capsys.readouterr().out
    assert f"{chosen} *" in shown and not any(f"{name} *" in shown for name in names if name != chosen)


def test_a_reward_may_be_saved_as_windows_does_but_is_utf_8(files, capsys):
    text = "def reward(obs, act, next_obs):\n    Δ = next_obs[:, speed] - obs[:, speed]  # größer ist besser\n    return Δ\n"
    Path("bom.py").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert prof("out=run", "candidates=0", "rounds=0", "files=[bom.py]") == 0
    assert Path("run/reward.py").read_bytes() == text.encode()
    data = load_offline("data.hdf5")
    Path("run/reward.py").write_bytes(Path("bom.py").read_bytes())
    values = WrittenReward("run/reward.py")(data.obs, data.actions, data.next_obs)
    np.testing.assert_allclose(values, data.next_obs[:, 0] - data.obs[:, 0], atol=1e-6)
    for number, encoding in enumerate(["latin-1", "utf-16"]):
        Path("other.py").write_bytes(text.replace("Δ", "d").encode(encoding))
        capsys.readouterr()
        assert prof(f"out=other{number}", "candidates=0", "rounds=0", "files=[other.py]") == 1
        told = capsys.readouterr().err.splitlines()[-1]
        assert told.startswith("error: other.py is no text in UTF-8 (byte ") and told.endswith("): save it as UTF-8")
        assert not Path(f"other{number}").exists()


def test_half_a_character_in_an_answer_is_refused_and_kept(files, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    answers = iter([ANSWER.replace("return", "x = '\\ud83d'\n    return").encode().decode("unicode_escape"), ANSWER])
    with serving() as endpoint:
        endpoint.answer = lambda body: next(answers)
        words = ["writer.kind=openai", "writer.chat.model=coder", f"writer.chat.base_url={endpoint.url}"]
        assert prof("out=run", "candidates=2", "rounds=0", "repairs=0", *words) == 0
    ranking = pd.read_csv("run/ranking.csv").set_index("candidate")
    assert "a text is not allowed" in ranking.loc["write-0", "problem"] and ranking.loc["write-1", "chosen"]
    assert "'\ufffd'" in Path("run/candidates/write-0.py").read_text(encoding="utf-8")


def test_an_endpoint_s_run_is_replayed_without_it(files, capsys, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as endpoint:
        endpoint.answer = lambda body: ANSWER
        words = ["writer.kind=openai", "writer.chat.model=coder", f"writer.chat.base_url={endpoint.url}"]
        assert prof("out=asked", *words) == 0
        asked = len(endpoint.asked)
    assert asked == 3 + 1 + 2
    assert prof("out=replayed", "writer.kind=replay", "writer.transcript=asked/transcript.jsonl") == 0
    assert Path("asked/ranking.csv").read_bytes() == Path("replayed/ranking.csv").read_bytes()
    kept = [path.read_text(errors="ignore") for path in files.rglob("*") if path.is_file()]
    assert all(KEY not in text for text in kept)


def test_a_person_s_answers_come_from_files(files, capsys):
    words = ["out=manual", "writer.kind=manual", "rounds=0"]
    assert prof(*words) == 1
    told = capsys.readouterr().err
    assert "3 answers are waited for" in told
    for prompt in Path("manual/manual").glob("*.prompt.md"):
        assert "Walk fast." in prompt.read_text()
        prompt.with_name(prompt.name.replace("prompt", "answer")).write_text(ANSWER)
    assert prof(*words) == 0
    assert json.loads(Path("manual/summary.json").read_text())["writer"] == "manual"


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        (["fields=null"], 1, "fields.yaml does not say what the numbers of toy/walker mean"),
        (["fields=none.yaml"], 1, "none.yaml does not exist"),
        (["env=mujoco/hopper", "fields=null"], 1, "has 2 numbers an observation and 2 an action, but mujoco/hopper"),
        (["writer.kind=openai"], 2, "needs writer.chat.model=NAME"),
        (["writer.kind=replay"], 2, "needs writer.transcript=FILE"),
        (["writer.kind=gramar"], 2, "Did you mean 'grammar'?"),
        (["files=[none.py]"], 1, "none.py"),
        (["files=[data.hdf5]", "candidates=0"], 1, "data.hdf5 is no text in UTF-8"),
        (["files=[.]", "candidates=0"], 1, ". is no reward code (Is a directory): give a file of Python code"),
        (["files=[sub/broken.py]", "candidates=0", "rounds=0"], 1, "the first, sub/broken.py: line 2: "),
        (["files=[sub/null.py]", "candidates=0", "rounds=0"], 1, "the first, sub/null.py: it cannot be read: source code string"),
        (["experts=9"], 1, "9"),
        (["ranking.horizn=3"], 2, "horizon"),
    ],
)
def test_what_is_wrong_is_said_with_the_way_out(files, capsys, words, status, told):
    Path("sub").mkdir()
    Path("sub/broken.py").write_text("def reward(obs, act, next_obs):\n    return obs[\n")
    Path("sub/null.py").write_text("def reward(obs, act, next_obs):\n    return obs[:, speed]\0\n")
    assert prof("out=wrong", *words) == status
    assert told in capsys.readouterr().err
    assert not Path("wrong/reward.py").exists()


@pytest.mark.parametrize(
    ("text", "changed", "told"),
    [
        ("0.05", ".nan", "step is nan, not a time above 0 in seconds"),
        ("0.05", "-1", "step is -1, not a time above 0"),
        ("0.05", ".inf", "step is inf, not a time above 0"),
        ("0.05", "true", "step is True, not a time above 0"),
        ("Walk fast.", "null", "task is None, not text: put it in quotes"),
        ("[speed,", "[on,", "a name is True, not text: put it in quotes"),
        ("[speed,", "[null,", "a name is None, not text"),
        ("[speed,", "[the speed,", "code cannot call a column 'the speed'"),
        ("[speed,", "[lambda,", "code cannot call a column 'lambda'"),
        ("[speed,", "[obs,", "code cannot call a column 'obs'"),
        (", m/s]", "]", "is not name, meaning and unit"),
        ("step: 0.05", "", "it has no step"),
    ],
)
def test_fields_that_no_code_could_use_are_named(files, capsys, text, changed, told):
    Path("fields.yaml").write_text(FIELDS.replace(text, changed, 1))
    assert prof("out=wrong") == 1
    said = capsys.readouterr().err
    assert "fields.yaml" in said and told in said and len(said.splitlines()) == 1
    assert not Path("wrong/reward.py").exists()


def test_help_explains_the_settings(capsys):
    assert cli.main(["prof", "-h"]) == 0
    shown = capsys.readouterr().out
    assert "alpha_o" in shown and "usage: robopref prof" in shown


def test_code_is_never_executed_in_this_process(files, capsys):
    Path("evil.py").write_text("open('mark', 'w').write('x')\ndef reward(obs, act, next_obs):\n    return obs[:, speed]\n")
    assert prof("out=safe", "candidates=0", "rounds=0", "files=[evil.py]") == 1
    assert "nothing but one function" in capsys.readouterr().err and not Path("mark").exists()


HOSTILE = ("<script>alert(1)</script>", "[/b][red]x", "\x1b[2Jx", "![x](http://evil)", "a|b", "`x`")


def test_what_is_shown_of_a_run_steers_no_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fuzz_models.written(tmp_path)
    table = pd.read_csv(tmp_path / "ranking.csv", keep_default_na=False)
    table.loc[1, "problem"] = " ".join(HOSTILE)
    table.loc[1, "candidate"] = "[red]\x1b[31mb"
    table.to_csv(tmp_path / "ranking.csv", index=False)
    write_json(tmp_path / "summary.json", {"env": "[/b]\x1b[2J", "writer": "[red]w", "layers": ["\x07"]})
    (tmp_path / "reward.py").write_text("# \x1b[2J[/b]\n")
    command.show(tmp_path)
    said = capsys.readouterr().out
    assert not {"\x1b", "\x07"} & set(said)
    for part in ("[/b]\\x1b[2J", "[red]w", "\\x07", "# \\x1b[2J[/b]"):
        assert part in said, part


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("summary.json", "[]"),
        ("summary.json", '{"env": "x", "writer": "w", "layers": 3}'),
        ("summary.json", "9" * 5000),
        ("ranking.csv", ""),
        ("ranking.csv", "candidate,chosen\na,True\n"),
        ("ranking.csv", "candidate,chosen,dominance,margin,order,gap,constant,problem\na,True,x,1,1,1,1,\n"),
        ("ranking.csv", "candidate,chosen,dominance,margin,order,gap,constant,problem\n../a,True,1,1,1,1,1,\n"),
        ("reward.py", "\udcff"),
    ],
)
def test_files_of_a_finished_run_that_are_damaged_are_named(tmp_path: Path, name: str, text: str) -> None:
    fuzz_models.written(tmp_path)
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(RoboprefError) as caught:
        command.show(tmp_path)
    assert str(caught.value).startswith(str(tmp_path / name)) and "\n" not in str(caught.value)
