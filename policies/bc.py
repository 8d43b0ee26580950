"""Behaviour cloning: imitate every transition of the data, good or bad.  The reference that uses no label.

Axes: S members, B batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from robopref.configs.policy import BCConfig
from robopref.policies.graphs import Graphed
from robopref.policies.networks import Actor
from robopref.policies.replay import Transitions, sample_numbers
from robopref.preference.members import adam, descend, member_rngs


def cloning_loss(log_prob: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean of -log pi(a|s) for log_prob (..., B)."""
    loss = -log_prob.mean(-1)
    return loss, {"clone": loss.detach()}


class BC:
    """Cloning of all transitions; see policies/train.py for what a learner is."""

    def __init__(self, config: BCConfig, data: Transitions, seeds: Sequence[int]) -> None:
        self.config, self.data, self.steps = config, data, config.steps
        rngs = member_rngs(seeds, "weights")
        self.actor = Actor(rngs, *data.dims, config.hidden, config.actor, config.dropout).to(data.obs.device)
        self.modules = {"actor": self.actor}
        self.optimizers = {"actor": adam(self.actor, config.learning_rate, data.obs.is_cuda)}
        self.graph = Graphed(self.learn) if data.obs.is_cuda and config.dropout == 0 else None  # dropout's masks come anew

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One gradient step; metrics (S,) by name."""
        numbers = sample_numbers(rngs, len(self.data), self.config.batch, self.data.obs.device)
        return self.learn(numbers, rngs) if self.graph is None else self.graph(numbers)

    def learn(self, numbers: Tensor, rngs: Sequence[np.random.Generator] = ()) -> dict[str, Tensor]:
        """`update` on the transitions of these numbers (S, B)."""
        batch = self.data.batch(numbers)
        loss, metrics = cloning_loss(self.actor.log_prob(batch.obs, batch.actions, rngs))
        descend(self.optimizers["actor"], loss)
        return metrics
