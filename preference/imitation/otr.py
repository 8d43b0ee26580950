"""OTR: an episode is good where it can be moved onto an expert's at little cost (Luo et al. 2023, arXiv 2303.13971).

Comes after experts.py; its rewards go through scale_rewards ("return_range"; "otr_antmaze" for AntMaze) to offline learners.

Theirs, read from the authors' code (ethanluoyc/optimal_transport_reward), not from the paper: observations alone, as they are
(its preprocessors are not used on D4RL); cosine cost; entropic transport between steps of equal weight, 100 iterations, the
steps' marginals last; squashed; of several experts the one with the highest sum of rewards over the episode.  That code gives a
step the weight 1/1000 however long the episode is and multiplies its cost by 1000 before squashing, which comes to what is
written here: c_t, the mean cost of what step t is moved to (a test compares both).  Its data lack the last step of an episode
that time cut; ours have it.  Its early stop, at an error of 1e-9 in the marginals, is left out.  Ours: how the plan is computed
(`sinkhorn`).

Axes: T steps of an episode, N of an expert's, do numbers in an observation, M transitions of the data.
"""

from __future__ import annotations

import numpy as np

from robopref.configs.errors import RoboprefError
from robopref.configs.imitation import OTRConfig
from robopref.datasets.offline import OfflineData
from robopref.preference.imitation.experts import check_alike
from robopref.preference.imitation.threads import in_threads

DROPPED = 1e-30  # entries of the plan below it are 0: in single precision their products would have no digits left
ABSORBED = float(np.exp(8.0))  # scalings beyond it go into the potentials


def otr_rewards(data: OfflineData, experts: OfflineData, config: OTRConfig | None = None) -> np.ndarray:
    """(M,) float32 in (0, squash_scale]: squash_scale exp(-squash_rate c_t / do), without / do unless `per_observation`.

    c_t (step_costs) is of the expert episode whose rewards have the highest sum over the episode, of equals the first.
    """
    config = config or OTRConfig()
    check_alike(data, experts)
    if not (config.epsilon > 0 and config.iterations > 0 and config.squash_scale > 0 and config.squash_rate > 0):
        raise RoboprefError(f"{config}: epsilon, iterations, squash_scale and squash_rate must be above 0")
    rate = config.squash_rate / (data.dims[0] if config.per_observation else 1)
    known = [_directions(experts, episode) for episode in range(experts.episodes)]

    def rewards(episode: int) -> np.ndarray:
        own = _directions(data, episode)
        each = [config.squash_scale * np.exp(-rate * step_costs(own, other, config)) for other in known]
        return max(each, key=np.sum)  # the first of equals

    return np.concatenate(list(in_threads(rewards, range(data.episodes), config.workers)), dtype=np.float32)


def step_costs(own: np.ndarray, other: np.ndarray, config: OTRConfig) -> np.ndarray:
    """c (T,) float64 = sum_j P_tj C_tj / sum_j P_tj, for unit vectors own (T, do) and other (N, do); C_tj = 1 - their product."""
    cost = np.clip(1.0 - own @ other.T, 0.0, 2.0).astype(np.float32)
    plan = sinkhorn(cost, config.epsilon, config.iterations)
    return np.einsum("tn,tn->t", plan, cost) / plan.sum(1, dtype=np.float64)


def sinkhorn(cost: np.ndarray, epsilon: float, iterations: int) -> np.ndarray:
    """Plan P (T, N), of cost's type, that nearly minimises sum P C + epsilon sum P log P; rows sum to 1/T, columns about to 1/N.

    Sinkhorn's alternation from zero potentials (Cuturi 2013).  The first iteration is done with logarithms, as exp(-C / epsilon)
    may have no number in single precision.  From there the plan itself is scaled, u P v, and the scalings are moved into the
    potentials before they grow large (Schmitzer 2019): after a row step no column sums to less than 1/TN, so a step changes a
    scaling by at most a factor of T or N, and what is dropped from P never matters.
    """
    steps, others = cost.shape
    row, column = 1.0 / steps, 1.0 / others
    scaled = cost / cost.dtype.type(epsilon)
    g = np.log(column) - _log_sum(-scaled, axis=0)  # potentials over epsilon, float64
    f = np.log(row) - _log_sum(g.astype(cost.dtype) - scaled, axis=1)
    plan = _plan(f, g, scaled)
    u, v = np.ones(steps, cost.dtype), np.ones(others, cost.dtype)
    for _ in range(iterations - 1):
        v = cost.dtype.type(column) / (u @ plan)
        u = cost.dtype.type(row) / (plan @ v)
        if max(u.max(), v.max(), 1 / u.min(), 1 / v.min()) > ABSORBED:
            f, g = f + np.log(u, dtype=np.float64), g + np.log(v, dtype=np.float64)
            plan = _plan(f, g, scaled)
            u, v = np.ones_like(u), np.ones_like(v)
    return u[:, None] * plan * v


def _plan(f: np.ndarray, g: np.ndarray, scaled: np.ndarray) -> np.ndarray:
    plan = f.astype(scaled.dtype)[:, None] - scaled
    plan += g.astype(scaled.dtype)
    np.exp(plan, out=plan)
    plan[plan < DROPPED] = 0.0
    return plan


def _log_sum(x: np.ndarray, axis: int) -> np.ndarray:
    """log sum exp along an axis, float64."""
    top = x.max(axis, keepdims=True)
    return np.log(np.exp(x - top).sum(axis, dtype=np.float64)) + top.squeeze(axis)


def _directions(data: OfflineData, episode: int) -> np.ndarray:
    """(T, do) float64, the observations that an episode acted on, each over its length; zeros stay zeros and cost 1 to move."""
    obs = data.observations[data.rows[data.first[episode] : data.first[episode + 1]]].astype(np.float64)
    return obs / np.maximum(np.linalg.norm(obs, axis=1, keepdims=True), np.finfo(np.float64).tiny)
