"""Contrastive preference learning (Hejna et al. 2023): preferences teach the policy directly, without reward or value.

A segment is scored by alpha sum_t log pi(a_t|s_t).  With the cloned policy as reference (CPL-KL) and
bias 1 the loss is DPO (Rafailov et al. 2023) on trajectories.

Axes: S members, B pairs, K steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from robopref.configs.errors import RoboprefError, nearest
from robopref.configs.policy import CPLConfig
from robopref.policies.bc import cloning_loss
from robopref.policies.networks import Actor
from robopref.policies.replay import PairBatch, Pairs, Transitions, sample_numbers
from robopref.preference.members import adam, descend, member_rngs
from robopref.preference.reward import choice_accuracy

CLONE_FROM = ("segments", "transitions")


def contrastive_loss(score_a: Tensor, score_b: Tensor, label: Tensor, bias: float) -> tuple[Tensor, dict[str, Tensor]]:
    """y softplus(-(B - lambda A)) + (1 - y) softplus(-(A - lambda B)), mean over pairs  (CPL repository).

    score_a, score_b: (..., P) alpha-scaled sums of log pi, or of log-ratios; label: (..., P) y = P(b preferred).
    A bias lambda < 1 also asks for high scores as such, which keeps the policy near the data.
    """
    prefer_b = F.softplus(bias * score_a - score_b)
    prefer_a = F.softplus(bias * score_b - score_a)
    loss = (label * prefer_b + (1 - label) * prefer_a).mean(-1)
    return loss, {"cpl": loss.detach(), "accuracy": choice_accuracy((score_b - score_a).detach(), label)}


class CPL:
    """Cloning for `clone_steps`, then the contrastive loss with a fresh optimiser."""

    def __init__(self, config: CPLConfig, data: Transitions, pairs: Pairs, seeds: Sequence[int]) -> None:
        if config.clone_from not in CLONE_FROM:
            hint = nearest(config.clone_from, CLONE_FROM)
            raise RoboprefError(f"unknown policy.clone_from {config.clone_from!r}: one of {', '.join(CLONE_FROM)}.{hint}")
        if not 0 < config.bias <= 1:
            raise RoboprefError(f"policy.bias is {config.bias}: give a number above 0 and at most 1 (1: DPO)")
        self.config, self.data, self.pairs = config, data, pairs
        self.steps = config.clone_steps + config.steps
        device = data.obs.device
        everything = torch.arange(len(data), device=device)
        self.shown = pairs.transitions() if config.clone_from == "segments" else everything

        def new_actor() -> Actor:
            return Actor(member_rngs(seeds, "weights"), *data.dims, config.hidden, config.actor, config.dropout).to(device)

        self.actor = new_actor()
        self.reference = new_actor().requires_grad_(False)
        self.modules = {"actor": self.actor, "reference": self.reference}
        self.optimizers = {
            "clone": adam(self.actor, config.clone_learning_rate),
            "prefer": adam(self.actor, config.learning_rate),
        }

    def update(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One cloning step, and after `clone_steps` one preference step; metrics (S,) by name."""
        if step < self.config.clone_steps:
            return self.clone(rngs)
        if step == self.config.clone_steps:
            self.reference.load_state_dict(self.actor.state_dict())
        return self.prefer(step - self.config.clone_steps, rngs)

    def clone(self, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of behaviour cloning."""
        numbers = self.shown[sample_numbers(rngs, len(self.shown), self.config.batch, self.shown.device)]
        loss, metrics = cloning_loss(self.actor.log_prob(*self.data.state_action(numbers), rngs))
        descend(self.optimizers["clone"], loss)
        return metrics

    def prefer(self, step: int, rngs: Sequence[np.random.Generator]) -> dict[str, Tensor]:
        """One step of the contrastive loss."""
        config = self.config
        batch = self.pairs.sample(rngs, config.pairs, config.segment_steps)
        obs, actions = self.data.state_action(torch.cat([batch.a, batch.b], 1))
        members, segments, steps = obs.shape[:3]
        log_prob = self.actor.log_prob(obs.flatten(1, 2), actions.flatten(1, 2), rngs)
        ratio = log_prob
        if config.reference:
            with torch.no_grad():
                cloned = self.reference.log_prob(obs.flatten(1, 2), actions.flatten(1, 2))
            ratio = log_prob - cloned
        score_a, score_b = segment_scores(ratio.view(members, segments, steps), batch, config.alpha)
        loss, metrics = contrastive_loss(score_a, score_b, batch.label, config.bias)
        if config.clone_weight > 0:
            clone, clone_metrics = cloning_loss(log_prob)
            loss, metrics = loss + config.clone_weight * clone, metrics | clone_metrics
        warmup = max(1, round(config.warmup * config.steps))
        self.optimizers["prefer"].param_groups[0]["lr"] = config.learning_rate * min(1.0, (step + 1) / warmup)
        descend(self.optimizers["prefer"], loss)
        return metrics


def segment_scores(log_prob: Tensor, batch: PairBatch, alpha: float) -> tuple[Tensor, Tensor]:
    """alpha-scaled sums over steps of log_prob (S, 2 B, K), whose first half belongs to a: (S, B) of a and of b."""
    a, b = (log_prob * torch.cat([batch.weight_a, batch.weight_b], 1)).sum(-1).chunk(2, 1)
    return alpha * a, alpha * b
