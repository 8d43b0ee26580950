"""RL-VLM-F: a vision-language model is shown where two clips end and says which is nearer to the goal.

Wang et al., "RL-VLM-F: Reinforcement Learning from Vision Language Foundation Model Feedback", ICML 2024.  As in the paper, the
model first describes two single pictures and what tells them apart, then answers 0, 1 or -1 from its own description alone.
The wording of both questions is ours.  The paper leaves out pairs answered -1; here they are ties, as an answer that cannot be
read is.

It labels pairs, not clips, so it is no Scorer.  Axes: N pairs, T frames after the opening.
"""

from __future__ import annotations

import re

import numpy as np

from robopref.configs.progress import tracked
from robopref.embodied.render import DEFAULT_CAMERA
from robopref.preference.chat import Chat
from robopref.preference.scoring import Draw

LOOK = (
    "These are two pictures of a robot at work.",
    "The goal is: {goal}. Say what the first picture shows, then what the second shows, and then whether and how they differ "
    "in how far the goal is achieved.",
)
JUDGE = (
    "Somebody compared two pictures of a robot whose goal is: {goal}. This is what was seen:\n\n{seen}\n\n"
    "In which picture is the goal better achieved? Answer with one number alone: 0 for the first, 1 for the second, "
    "-1 if there is no difference or the text does not tell."
)
LABELS = {"0": 0.0, "1": 1.0, "-1": 0.5}  # answer -> P(the second is preferred)


class LastFrames:
    """The view that pairs are judged in: a clip is the opening, the first and the last frame of its segment."""

    camera, frame_size, frames = DEFAULT_CAMERA, 256, 2


def label_pairs(chat: Chat, pairs: np.ndarray, draw: Draw, instruction: str) -> np.ndarray:
    """P(b preferred), (N,), in {0, 0.5, 1}, for pairs (N, 2) of clip numbers.  draw: clips of `LastFrames`."""
    labels = []
    for pair in tracked(pairs, "asking, pair", len(pairs)):
        first, second = draw(pair.tolist())[:, -1]
        labels.append(compare(chat, first, second, instruction))
    return np.array(labels)


def compare(chat: Chat, first: np.ndarray, second: np.ndarray, goal: str) -> float:
    """P(second preferred) of two pictures (H, W, 3) uint8: 0, 0.5 or 1."""
    opening, question = LOOK
    seen = chat.ask([opening, "First:", first, "Second:", second, question.format(goal=goal)])
    return read_answer(chat.ask([JUDGE.format(goal=goal, seen=seen)]))


def read_answer(answer: str) -> float:
    """The label that a 0, 1 or -1 on a line of its own means; a tie where no line, or lines that disagree, say one."""
    plain = answer.replace("\N{MINUS SIGN}", "-")
    # Line by line: over all of them the time would grow with the square of the empty ones.
    found = {line[1] for line in (re.fullmatch(r"[^\w-]*(-?\d+)\W*", line) for line in plain.split("\n")) if line}
    return LABELS.get(found.pop(), 0.5) if len(found) == 1 else 0.5
