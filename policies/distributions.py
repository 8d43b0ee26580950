"""What actors of policies/gtr.py draw from, and the gradients of what is asked of it, in numpy.

Axes: S members, B rows, K anchors, da numbers in an action, o outputs of an actor.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np

LOG_2PI = math.log(2 * math.pi)


class Distribution(Protocol):
    """pi(. | s) of S actors on B states, and the gradients of what is asked of it, added up in `of_outputs` and `of_log_std`."""

    of_outputs: np.ndarray  # (S, B, o)
    of_log_std: np.ndarray  # (S, 1, da)

    def __init__(self, outputs: np.ndarray, log_std: np.ndarray) -> None:
        """outputs (S, B, o) of the actors and their log_std (S, 1, da)."""

    def sample(self, noise: np.ndarray) -> np.ndarray:
        """Actions (S, B, da) from `GTR.noise` (S, B, da)."""

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """(S, B) for actions (S, B, da)."""

    def log_prob_backward(self, gradient: np.ndarray) -> None:
        """From dL/dlog pi (S, B) of the last `log_prob`."""

    def divergence(self, outputs: np.ndarray, log_std: np.ndarray) -> np.ndarray:
        """KL(pi_k || pi) / da, (S, B, K), for anchors' outputs (S, B, K, o) and log_std (S, 1 or B, K, da)."""

    def divergence_backward(self, gradient: np.ndarray) -> None:
        """From dL/dD (S, B, K) of the last `divergence`."""

    def entropy(self, weight: float) -> np.ndarray:
        """(S,), the mean over states; the gradient of -weight times it is added."""

    @staticmethod
    def blend(outputs: np.ndarray, log_std: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One distribution of this kind with the moments of the mixture w (K,) of others.

        outputs (S, B, K, o), log_std (S, 1 or B, K, da) -> (S, B, 1, o), (S, B, 1, da).
        """


class Gaussian:
    """Independent normal numbers; the outputs are their means, the deviations do not depend on the state."""

    def __init__(self, outputs: np.ndarray, log_std: np.ndarray) -> None:
        self.mean, self.log_std, self.inverse = outputs, log_std, np.exp(-log_std)
        self.of_outputs, self.of_log_std = np.zeros_like(outputs), np.zeros(log_std.shape, np.float32)

    def sample(self, noise: np.ndarray) -> np.ndarray:
        """See Distribution."""
        return self.mean + np.exp(self.log_std) * noise

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """See Distribution."""
        self.z = (actions - self.mean) * self.inverse
        self.squares = np.square(self.z)
        return (self.squares.sum(-1) + (2 * self.log_std.sum(-1) + actions.shape[-1] * LOG_2PI)) * -0.5

    def log_prob_backward(self, gradient: np.ndarray) -> None:
        """See Distribution: dlog pi/dmean = z / std, dlog pi/dlog std = z^2 - 1."""
        slope = gradient[..., None]
        self.of_outputs += slope * self.z * self.inverse
        self.of_log_std += (slope * (self.squares - 1)).sum(1, keepdims=True)

    def divergence(self, outputs: np.ndarray, log_std: np.ndarray) -> np.ndarray:
        """See Distribution: sum_j log(s_j / s_kj) + (s_kj^2 + (mu_kj - mu_j)^2) / (2 s_j^2) - 1/2."""
        shrunk = log_std - self.log_std[:, :, None]
        self.delta = (self.mean[:, :, None] - outputs) * self.inverse[:, :, None]
        self.spread = np.square(self.delta) + np.exp(2 * shrunk)
        return (self.spread * 0.5 - (shrunk + 0.5)).mean(-1)

    def divergence_backward(self, gradient: np.ndarray) -> None:
        """See Distribution: dD/dmu = (mu - mu_k) / s^2 / da, dD/dlog s = (1 - (s_k^2 + (mu_k - mu)^2) / s^2) / da."""
        pull = gradient[..., None] / self.mean.shape[-1]
        self.of_outputs += (pull * self.delta).sum(2) * self.inverse
        self.of_log_std += (pull * (1 - self.spread)).sum((1, 2))[:, None]

    def entropy(self, weight: float) -> np.ndarray:
        """See Distribution."""
        self.of_log_std -= weight
        return (self.log_std + 0.5 * (1 + LOG_2PI)).sum(-1)[:, 0]

    @staticmethod
    def blend(outputs: np.ndarray, log_std: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Distribution: mean sum w mu_k, variance sum w (s_k^2 + mu_k^2) - mean^2."""
        weights = mixture[:, None]
        mean = (outputs * weights).sum(2, keepdims=True)
        variance = ((np.exp(2 * log_std) + np.square(outputs - mean)) * weights).sum(2, keepdims=True)
        return mean, 0.5 * np.log(variance)


class Categorical:
    """Every number of an action one of `bins` values, independently of the others; the outputs are logits."""

    def __init__(self, outputs: np.ndarray, log_std: np.ndarray) -> None:
        self.log_p = log_softmax(outputs.reshape(*outputs.shape[:2], log_std.shape[-1], -1))  # (S, B, da, bins)
        self.p = np.exp(self.log_p)
        self.of_outputs, self.of_log_std = np.zeros_like(outputs), np.zeros(log_std.shape, np.float32)

    def sample(self, noise: np.ndarray) -> np.ndarray:
        """See Distribution: the number of bins whose upper end is below the noise, uniform in [0, 1)."""
        return (self.p.cumsum(-1)[..., :-1] <= noise[..., None]).sum(-1).astype(np.float32)

    def log_prob(self, actions: np.ndarray) -> np.ndarray:
        """See Distribution."""
        self.chosen = np.arange(self.p.shape[-1]) == actions[..., None]
        return (self.log_p * self.chosen).sum((-1, -2))

    def log_prob_backward(self, gradient: np.ndarray) -> None:
        """See Distribution: dlog p_c/dlogits = 1_c - p."""
        self.add(gradient[..., None, None] * (self.chosen - self.p))

    def divergence(self, outputs: np.ndarray, log_std: np.ndarray) -> np.ndarray:
        """See Distribution: sum p_k log(p_k / p)."""
        log_k = log_softmax(outputs.reshape(*outputs.shape[:3], *self.p.shape[2:]))  # (S, B, K, da, bins)
        self.p_k = np.exp(log_k)
        return (self.p_k * (log_k - self.log_p[:, :, None])).sum(-1).mean(-1)

    def divergence_backward(self, gradient: np.ndarray) -> None:
        """See Distribution: dD/dlogits = (p - p_k) / da."""
        pull = gradient[..., None, None] / self.p.shape[-2]
        self.add((pull * (self.p[:, :, None] - self.p_k)).sum(2))

    def entropy(self, weight: float) -> np.ndarray:
        """See Distribution: dH/dlogits = -p (log p + H)."""
        entropy = -(self.p * self.log_p).sum(-1, keepdims=True)
        self.add(self.p * (self.log_p + entropy) * (weight / self.p.shape[1]))
        return entropy.sum((2, 3)).mean(1)

    @staticmethod
    def blend(outputs: np.ndarray, log_std: np.ndarray, mixture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """See Distribution: log sum w p_k."""
        parts = log_softmax(outputs.reshape(*outputs.shape[:3], log_std.shape[-1], -1))
        p = (np.exp(parts) * mixture[:, None, None]).sum(2, keepdims=True)
        spread = np.broadcast_to(log_std[:, :, :1], (*outputs.shape[:2], 1, log_std.shape[-1]))
        return np.log(p).reshape(*outputs.shape[:2], 1, -1), spread

    def add(self, gradient: np.ndarray) -> None:
        """dL/dlogits (S, B, da, bins)."""
        self.of_outputs += gradient.reshape(self.of_outputs.shape)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last dimension."""
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
