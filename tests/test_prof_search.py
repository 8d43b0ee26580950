"""PROF's loop with writers whose every word is known: repairs, parent and child, killed runs, and rewards that people edit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from offline_toys import FIELDS, walker
from test_prof_writers import WORLD

from robopref.configs.errors import RoboprefError
from robopref.configs.prof import PROFConfig, RankingConfig, SandboxConfig
from robopref.preference.chat import Completion
from robopref.preference.prof.grammar import Grammar
from robopref.preference.prof.ranking import Comparison
from robopref.preference.prof.sandbox import Sandbox
from robopref.preference.prof.search import Search
from robopref.preference.prof.writers import Recorded, Request, read_transcript

RANKING = RankingConfig(horizon=10, draws=1, levels=(1.0, 4.0), alpha_o=0.3, alpha_a=0.3)
CONFIG = PROFConfig(Path("out"), "toy/walker", "toy", candidates=2, children=2, ranking=RANKING)
GOOD, BAD = "-obs[:, wobble]**2", "obs[:, wobble]**2"


class Teller:
    """Says what a function makes of a question."""

    name = "teller"

    def __init__(self, tell: Callable[[Request], str]) -> None:
        self.tell, self.asked = tell, []

    def answer(self, request: Request) -> Completion:
        self.asked.append(request)
        return Completion(self.tell(request))


def code(expression: str) -> str:
    return f"```python\ndef reward(obs, act, next_obs):\n    return {expression}\n```"


def search(tmp_path: Path, tell, config: PROFConfig = CONFIG):
    writer = tell if hasattr(tell, "answer") else Teller(tell)
    comparison = Comparison(walker(), walker(skill=1.0), config.ranking, config.seed)
    recorded = Recorded(writer, tmp_path / "transcript.jsonl", config.writer)
    return Search(WORLD, walker(skill=1.0).take([0]), comparison, Sandbox(SandboxConfig()), recorded, config), writer


def test_a_better_child_takes_its_parent_s_place_and_a_worse_one_does_not(tmp_path):
    for name, children, chosen in (("better", (BAD, GOOD), "rewrite-1-1"), ("worse", (BAD, BAD), "write-0")):
        first = "np.zeros(len(obs))" if name == "better" else GOOD
        answers = {"write": (first, BAD), "rewrite": children}
        run, _ = search(
            tmp_path / name, lambda r, answers=answers: code(answers[r.kind][r.number]) if r.kind in answers else "too flat"
        )
        assert run.run().name == chosen
        assert [c.name for c in run.candidates] == ["write-0", "write-1", "rewrite-1-0", "rewrite-1-1"]
        assert [c.parent for c in run.candidates[2:]] == ["write-0"] * 2


def test_a_rewrite_is_told_the_code_what_was_found_and_the_critique(tmp_path):
    run, teller = search(tmp_path, lambda r: "LOOK AT THE WOBBLE" if r.kind == "criticise" else code(GOOD))
    run.run()
    critic = next(r for r in teller.asked if r.kind == "criticise")
    assert GOOD in critic.prompt and "It wins" in critic.prompt and "Write no code" in critic.prompt
    rewrite = next(r for r in teller.asked if r.kind == "rewrite")
    assert all(words in rewrite.prompt for words in (GOOD, "It wins", "LOOK AT THE WOBBLE", "Walk fast."))


def test_code_that_does_not_run_is_handed_back_with_the_reason_once(tmp_path):
    def tell(request: Request) -> str:
        if request.kind == "repair":
            assert "speeed is not defined" in request.prompt
            return code(GOOD)
        return code("obs[:, speeed]" if request.number == 0 else BAD)

    run, teller = search(tmp_path, tell, replace(CONFIG, rounds=0))
    assert run.run().name == "write-0"
    assert [r.kind for r in teller.asked] == ["write", "write", "repair"]


def test_without_repairs_what_does_not_run_stays_and_says_why(tmp_path):
    run, _ = search(tmp_path, lambda r: code(GOOD) if r.number else "```python\ndef rew", replace(CONFIG, rounds=0, repairs=0))
    assert run.run().name == "write-1"
    assert "cut off" in run.candidates[0].score.problem


def test_a_killed_run_goes_on_and_ends_the_same(tmp_path):
    answers = lambda r: "too flat" if r.kind == "criticise" else code(f"{GOOD} * {r.number + 1} * {r.round + 1}")  # noqa: E731
    whole, _ = search(tmp_path / "whole", answers)
    chosen = whole.run()
    calls = iter(range(3))

    def dies(request: Request) -> str:
        next(calls)  # StopIteration at the fourth question
        return answers(request)

    cut, _ = search(tmp_path / "cut", dies)
    with pytest.raises(StopIteration):
        cut.run()
    resumed, teller = search(tmp_path / "cut", answers)
    again = resumed.run()
    assert (again.name, again.score.source, again.score.dominance) == (chosen.name, chosen.score.source, chosen.score.dominance)
    assert len(teller.asked) == 2  # of five
    lines = [[{k: v for k, v in line.items() if k != "seconds"} for line in read_transcript(tmp_path / n / "transcript.jsonl")]
             for n in ("whole", "cut")]  # fmt: skip
    assert lines[0] == lines[1]


def test_rewards_that_are_there_are_ranked_beside_and_alone(tmp_path):
    source = f"def reward(obs, act, next_obs):\n    return {GOOD}\n"
    run, _ = search(tmp_path / "beside", lambda r: code(BAD), replace(CONFIG, rounds=0))
    assert run.run([("mine", source)]).name == "mine"
    alone, teller = search(tmp_path / "alone", lambda r: code(BAD), replace(CONFIG, rounds=0, candidates=0))
    assert alone.run([("mine", source)]).score.source == source and not teller.asked
    nothing, _ = search(tmp_path / "nothing", lambda r: "", replace(CONFIG, rounds=0, candidates=0))
    with pytest.raises(RoboprefError, match="there is nothing to rank"):
        nothing.run()


def test_the_grammar_s_search_is_the_same_for_a_seed_and_rounds_never_lose(tmp_path):
    config = replace(CONFIG, candidates=4, rounds=2, children=3)
    found = []
    for name in ("a", "b"):
        run, _ = search(tmp_path / name, Grammar(FIELDS, walker(skill=1.0), 3), config)
        chosen = run.run()
        first = max(c.score.key for c in run.candidates if c.round == 0)
        assert chosen.score.key >= first and len(run.candidates) == 4 + 2 * 3
        found.append([c.score.source for c in run.candidates])
    assert found[0] == found[1]
