"""PROF's loop: write K rewards, rank them, criticise and rewrite the best, keep the better of parent and child.

Reconstruction of the abstract's "reward code preference optimisation"; the repair of code that does not run and the number of
rewrites a round are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from robopref.configs.errors import RoboprefError
from robopref.configs.prof import PROFConfig
from robopref.datasets.offline import OfflineData
from robopref.embodied.fields import Described
from robopref.preference.prof import prompts
from robopref.preference.prof.code import Fields, RefusedCode
from robopref.preference.prof.ranking import Comparison, Score, best, judge_all, rank
from robopref.preference.prof.sandbox import Sandbox
from robopref.preference.prof.writers import Recorded, Request

WRITTEN, REWRITTEN = "write-{}", "rewrite-{}-{}"  # names by number, and by round and number


@dataclass(frozen=True)
class Candidate:
    """A reward, where it comes from, and how good it is said to be."""

    name: str
    round: int
    parent: str  # name, "" where it has none
    score: Score


@dataclass
class Search:
    """All that a run has: the world, what candidates are compared on, who writes; and in the end the candidates."""

    world: Described
    expert: OfflineData  # one trajectory, which the prompts show
    comparison: Comparison
    sandbox: Sandbox
    writer: Recorded
    config: PROFConfig
    candidates: list[Candidate] = field(default_factory=list)

    @property
    def fields(self) -> Fields:
        """What code may call the columns."""
        return fields_of(self.world)

    def own_names(self) -> set[str]:
        """What candidates that are yet to be written will be called."""
        first = {WRITTEN.format(n) for n in range(self.config.candidates)}
        return first | {REWRITTEN.format(r + 1, n) for r in range(self.config.rounds) for n in range(self.config.children)}

    def run(self, given: Sequence[tuple[str, str]] = ()) -> Candidate:
        """The best candidate, after all rounds.  given: names and code of rewards that are there already."""
        config = self.config
        sources = [source for _, source in given]
        scores = judge_all(self.comparison, self.sandbox, sources, self.fields, config.processes)
        self.add([Candidate(name, 0, "", score) for (name, _), score in zip(given, scores, strict=True)])
        request = [Request("write", 0, n, prompts.write_prompt(self.world, self.expert, n)) for n in range(config.candidates)]
        self.add([Candidate(WRITTEN.format(n), 0, "", score) for n, score in enumerate(self.written(request))])
        if not self.candidates:
            raise RoboprefError("there is nothing to rank: ask for candidates, or give files=[FILE.py]")
        first = self.candidates[0]
        if all(candidate.score.evidence is None for candidate in self.candidates):
            where = config.files[0] if given else first.name
            raise RoboprefError(f"no candidate could be run; the first, {where}: {first.score.problem}")
        place = best([candidate.score for candidate in self.candidates])
        for number in range(1, config.rounds + 1):
            place = self.round(number, place)
        return self.candidates[place]

    def round(self, number: int, place: int) -> int:
        """Criticise and rewrite candidate `place`; which of it and its children is best."""
        parent = self.candidates[place]
        source, found = parent.score.source, prompts.report(parent.score, self.config.ranking)
        asked = Request("criticise", number, 0, prompts.criticise_prompt(self.world, source, found), source)
        (critique,) = self.writer.answers([asked])
        rewritten = partial(prompts.rewrite_prompt, self.world, self.expert, source, found, whole(critique))
        requests = [Request("rewrite", number, n, rewritten(n), source) for n in range(self.config.children)]
        new = enumerate(self.written(requests))
        children = [Candidate(REWRITTEN.format(number, n), number, parent.name, score) for n, score in new]
        family = [place, *range(len(self.candidates), len(self.candidates) + len(children))]
        self.add(children)
        return family[best([self.candidates[member].score for member in family])]

    def written(self, requests: Sequence[Request]) -> list[Score]:
        """What the answers to `requests` are worth; those that do not run are handed back `repairs` times."""
        scores = self.judged(self.writer.answers(requests))
        for attempt in range(1, self.config.repairs + 1):
            broken = [n for n, score in enumerate(scores) if score.evidence is None]
            again = [
                Request("repair", requests[n].round, attempt * len(requests) + n,
                        prompts.repair_prompt(self.world, self.expert, scores[n].source, scores[n].problem), scores[n].source)
                for n in broken
            ]  # fmt: skip
            for n, score in zip(broken, self.judged(self.writer.answers(again)), strict=True):
                scores[n] = score
        return scores

    def judged(self, answers: Sequence[str]) -> list[Score]:
        """Scores of the code in answers; of an answer without whole code, why."""
        scores: list[Score | None] = []
        sources = []
        for answer in answers:
            try:
                if whole(answer) != answer:
                    raise RefusedCode("the answer holds half a character, a surrogate: no file can hold it")
                sources.append(prompts.code_of(answer))
                scores.append(None)
            except RefusedCode as problem:
                scores.append(Score(whole(answer), None, str(problem)))
        judged = iter(judge_all(self.comparison, self.sandbox, sources, self.fields, self.config.processes))
        return [next(judged) if score is None else score for score in scores]

    def add(self, new: Sequence[Candidate]) -> None:
        """Take them in; dominance is among all."""
        together = [*self.candidates, *new]
        ranked = rank([candidate.score for candidate in together], self.config.ranking)
        self.candidates = [replace(candidate, score=score) for candidate, score in zip(together, ranked, strict=True)]


def whole(answer: str) -> str:
    """An answer with escapes in place of halves of characters, which JSON can hold and files cannot."""
    return answer.encode("utf-8", "backslashreplace").decode("utf-8")


def fields_of(world: Described) -> Fields:
    """What code may call the columns of `world`."""
    return Fields(tuple(f.name for f in world.observations), tuple(f.name for f in world.actions))
