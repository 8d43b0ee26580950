"""What a language model is told and asked: to write a reward, to criticise one, to write a better one.  The wording is ours.

It learns the task in words, the columns with their units, one expert trajectory in numbers, and what code may use; nothing of the
environment's source and nothing of its reward.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence

import numpy as np

from robopref.configs.prof import RankingConfig
from robopref.datasets.offline import OfflineData
from robopref.embodied.fields import Described, Field
from robopref.preference.prof.code import RefusedCode
from robopref.preference.prof.contract import ATTRIBUTES, CONSTANTS, MATH, METHODS, NUMPY
from robopref.preference.prof.ranking import Score

MOMENTS = 8  # of the expert's trajectory that are printed

ROLE = "You write reward functions for robots that learn from recorded data, without a simulator."
WRITE = """{role}

TASK
{task}

OBSERVATIONS, (N, {do}): a row is one moment, {step:g} s after the one before
{observations}

ACTIONS, (N, {da})
{actions}

ONE TRAJECTORY OF AN EXPERT, {steps} steps: over all steps
{statistics}
and at {moments} moments of it
{trajectory}

{contract}

{then} for what brings the task about and low for what does not, at every single step: it
will be compared on the expert and on disturbed copies of its trajectory, and then a policy will be trained on it
with data of mixed quality. Scale it to about [-1, 1] a step. Do not reward likeness to the trajectory number by
number: a better expert must be worth more.
{variety}Answer with your reasoning in a few sentences, then the code in one block."""
THEN = "Write a reward that is high"  # what comes after the rules
RULES = "WHAT THE CODE MAY BE"
CONTRACT = """{rules}
One function in a block that begins with ```python and ends with ```:

def reward(obs, act, next_obs):
    ...
    return r

obs (N, {do}), act (N, {da}) and next_obs (N, {do}) are numpy arrays of N transitions, in no order; r has N numbers.
A column is written with its name from the tables, which stands for its number: obs[:, {example}]. There are no other
quantities: a name that is in no table does not exist. What a row is worth must depend on this row alone: no mean or
extreme over rows, no memory.
Only np and math may be used, imported or not: of np {numpy}; of math {math}; of arrays the methods {methods}.
Functions are called and are no values; no out= and where= of element-wise functions, no texts, no arrays of objects.
No other functions, no classes, no lambda, no while, no try; loops only over range(...). The arguments must not be
changed."""
CRITICISE = """{role}

TASK
{task}

This reward was tried on one trajectory of an expert, and on copies of it that were disturbed by noise of several strengths:

```python
{code}
```

{report}

In at most ten sentences: where does this reward fail to tell the expert from what is worse, and why? What in the code should be
changed, and how? Write no code."""
REWRITE = """{write}

A REWARD THAT EXISTS
```python
{code}
```
{report}

WHAT IS WRONG WITH IT
{critique}

Write a better one."""
REPAIR = """{write}

A REWARD THAT WAS REFUSED
```python
{code}
```
It was refused: {problem}

Write it again so that it is right."""
VARIETY = "This is attempt {number} of several; take another way than the most obvious one.\n"


def write_prompt(world: Described, expert: OfflineData, number: int = 0) -> str:
    """The request for a reward; number: of the attempt, from 0 on."""
    do, da = len(world.observations), len(world.actions)
    columns = [*zip(world.observations, expert.obs.T, strict=True), *zip(world.actions, expert.actions.T, strict=True)]
    moments = np.unique(np.linspace(0, len(expert) - 1, MOMENTS).round().astype(int))
    first = np.concatenate([expert.obs, expert.actions], 1)[moments]
    names = [field.name for field in (*world.observations, *world.actions)]
    return WRITE.format(
        role=ROLE,
        task=textwrap.fill(world.task, 130),
        do=do,
        da=da,
        step=world.step,
        observations=table(world.observations),
        actions=table(world.actions),
        steps=len(expert),
        statistics="\n".join(statistics(field.name, values) for field, values in columns),
        moments=len(moments),
        trajectory="\n".join(
            [
                "step " + " ".join(str(step) for step in moments),
                *(f"{name} " + " ".join(f"{value:.3g}" for value in column) for name, column in zip(names, first.T, strict=True)),
            ]
        ),
        contract=CONTRACT.format(
            rules=RULES,
            do=do,
            da=da,
            example=names[0],
            numpy=" ".join(sorted([*NUMPY, *CONSTANTS["np"]])),
            math=" ".join(sorted([*MATH, *CONSTANTS["math"]])),
            methods=" ".join(sorted([*METHODS, *ATTRIBUTES])),
        ),
        then=THEN,
        variety=VARIETY.format(number=number + 1) if number else "",
    )


def without_rules(prompt: str) -> str:
    """A prompt without what code may be, which is not the question and changes from version to version."""
    before, rules, rest = prompt.partition(RULES)
    after = rest.partition(THEN)
    return f"{before}{THEN}{after[2]}" if rules and after[1] else prompt


def table(fields: Sequence[Field]) -> str:
    """A line a column: its number, name, unit and meaning."""
    return "\n".join(f"{n} {field.name} [{field.unit}] {field.meaning}" for n, field in enumerate(fields))


def statistics(name: str, values: np.ndarray) -> str:
    """A line about a column of the expert's."""
    low, mid, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{name} mean {values.mean():.3g} deviation {values.std():.3g} 5 % {low:.3g} median {mid:.3g} 95 % {high:.3g}"


def criticise_prompt(world: Described, code: str, report: str) -> str:
    """The request for what is wrong with `code`."""
    return CRITICISE.format(role=ROLE, task=textwrap.fill(world.task, 130), code=code.strip(), report=report)


def rewrite_prompt(world: Described, expert: OfflineData, code: str, report: str, critique: str, number: int) -> str:
    """The request for something better than `code`."""
    return REWRITE.format(write=write_prompt(world, expert, number), code=code.strip(), report=report, critique=critique.strip())


def repair_prompt(world: Described, expert: OfflineData, code: str, problem: str) -> str:
    """The request for something that runs in place of `code`."""
    return REPAIR.format(write=write_prompt(world, expert), code=code.strip(), problem=problem)


def report(score: Score, config: RankingConfig) -> str:
    """What the ranking found out about a candidate that ran, in words."""
    evidence = score.evidence
    if evidence is None:
        return f"It did not run: {score.problem}"
    shares, means = (evidence.margins > config.delta).mean((1, 2)), evidence.margins.mean((1, 2))
    wins = f"It wins {shares.mean():.0%} of all pairs of an expert segment and a disturbed copy."
    lines = [wins] + [
        f"Noise of {level * config.alpha_o:.2g} deviations on observations and {level * config.alpha_a:.2g} on actions: the "
        f"expert is better by {mean:.2f} deviations of the reward on average, by more than {config.delta:g} in {share:.0%} of "
        "the pairs."
        for level, share, mean in zip(config.levels, shares, means, strict=True)
    ]
    worst = np.unravel_index(evidence.margins.argmin(), evidence.margins.shape)
    lines += [
        f"The worst pair: segment {worst[2] + 1} of the expert at noise level {config.levels[worst[0]]:g}, "
        f"where the expert is better by {evidence.margins.min():.2f}.",
        f"Rank correlation of reward and noise: {evidence.order:.2f} (-1 is right).",
        f"The expert is better than random segments of the data by {evidence.gap:.2f} deviations.",
        f"{evidence.constant:.0%} of the data's transitions are worth the same.",
    ]
    return "\n".join(lines)


def code_of(answer: str) -> str:
    """The last whole block of code in an answer, or all of it if it has no blocks; RefusedCode for a block that is cut off."""
    fences = re.findall(r"^[ \t]*```", answer, flags=re.MULTILINE)
    if not fences:
        return answer.strip() + "\n"
    if len(fences) % 2:
        raise RefusedCode("the answer's block of code is cut off: it does not end with ```")
    blocks = re.findall(r"^[ \t]*```[^\n]*\n(.*?)^[ \t]*```", answer, flags=re.MULTILINE | re.DOTALL)
    with_function = [block for block in blocks if "def reward" in block]
    return textwrap.dedent((with_function or blocks)[-1]).strip() + "\n"
