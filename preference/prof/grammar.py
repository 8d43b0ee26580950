"""A seeded search over simple rewards: sums of a few terms of single columns, scaled by an expert trajectory.  No language model.

The embedded default, and the baseline that a language model has to beat.  It reads neither the task nor what a column means, only
names and the expert's numbers; what it writes is improved by changing one of its lines.  All of it is ours.
"""

from __future__ import annotations

import zlib

import numpy as np

from robopref.datasets.offline import OfflineData
from robopref.preference.chat import Completion
from robopref.preference.prof.code import Fields
from robopref.preference.prof.writers import Request

HEAD, TAIL, TERM = "def reward(obs, act, next_obs):\n    r = np.zeros(len(obs))\n", "    return r\n", "    r = r "
WEIGHTS = (0.25, 0.5, 1.0)
MOST_TERMS = 4
KINDS = ("more", "less", "near", "inside", "steady", "effort")
SMALLEST = 1e-3  # scale of a column that hardly moves


class Grammar:
    """Writes, and rewrites, by chance; the same seed writes the same."""

    name = "grammar (no language model)"

    def __init__(self, fields: Fields, expert: OfflineData, seed: int) -> None:
        self.names = [name for name in fields.obs if name in fields.columns]  # what is no identifier cannot be written
        low, middle, high = np.quantile(expert.obs, [0.05, 0.5, 0.95], axis=0)
        self.numbers = {name: (low[n], middle[n], high[n]) for n, name in enumerate(fields.obs)}
        self.seed = seed

    def answer(self, request: Request) -> Completion:
        """A reward, one that differs from `request.code` in a line, or nothing, where it is asked for an opinion."""
        if request.kind == "criticise":
            return Completion("")
        rng = np.random.default_rng([self.seed, request.round, request.number, zlib.crc32(request.kind.encode())])
        terms = [line for line in request.code.splitlines(keepends=True) if line.startswith(TERM)]
        if request.kind == "rewrite" and terms:
            terms = self.changed(terms, rng)
        else:
            terms = [self.term(rng) for _ in range(rng.integers(1, MOST_TERMS + 1))]
        return Completion(f"```python\n{HEAD}{''.join(terms)}{TAIL}```\n")

    def changed(self, terms: list[str], rng: np.random.Generator) -> list[str]:
        """One line more, less, or another in its place."""
        place = int(rng.integers(len(terms)))
        ways = ["another", *(["more"] if len(terms) < MOST_TERMS else []), *(["less"] if len(terms) > 1 else [])]
        way = rng.choice(ways)
        return terms[:place] + ([] if way == "less" else [self.term(rng)]) + terms[place + (way != "more") :]

    def term(self, rng: np.random.Generator) -> str:
        """A line."""
        name, kind, weight = rng.choice(self.names), rng.choice(KINDS), rng.choice(WEIGHTS)
        low, middle, high = self.numbers[name]
        scale = max(abs(low), abs(high), SMALLEST)
        width = max(high - low, SMALLEST)
        sign, written = {
            "more": ("+", f"np.tanh(obs[:, {name}] / {scale:.3g})"),
            "less": ("-", f"np.tanh(obs[:, {name}] / {scale:.3g})"),
            "near": ("+", f"np.exp(-np.square((obs[:, {name}] - {middle:.3g}) / {width:.3g}))"),
            "inside": ("+", f"np.where((obs[:, {name}] > {low:.3g}) & (obs[:, {name}] < {high:.3g}), 1.0, 0.0)"),
            "steady": ("-", f"np.abs(next_obs[:, {name}] - obs[:, {name}]) / {width:.3g}"),
            "effort": ("-", "np.square(act).mean(axis=1)"),
        }[str(kind)]
        return f"{TERM}{sign} {weight:g} * {written}\n"
