"""Settings of rewards made from expert episodes (preference/imitation); defaults are the papers' for MuJoCo locomotion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from robopref.configs.ranges import Count, Number, Positive, Workers

RewardScale = Literal["none", "return_range", "antmaze", "otr_antmaze"]


@dataclass(frozen=True)
class SEABOConfig:
    """Search in the expert's transitions: alpha exp(-beta d / |A|)."""

    alpha: Positive = 1.0
    """Reward of what an expert did."""
    beta: Positive = 0.5
    """How fast it falls with the distance; 5 for AntMaze."""
    neighbours: Count = 1
    """d is the distance to the expert transition that is the k-th nearest."""
    compare: Literal["sas", "sa", "ss"] = "sas"
    """What is near: state, action and next state; without the next state; or states alone, for experts without actions."""
    per_action: bool = True
    """Divide d by the number of action dimensions; the authors' code does not for Adroit."""
    workers: Workers = 1
    """Threads; any number gives the same rewards."""


@dataclass(frozen=True)
class OTRConfig:
    """Optimal transport from an episode to an expert's: alpha exp(-beta c / |S|), c what the transport of a step costs."""

    epsilon: Positive = 0.01
    """Weight of the plan's entropy; costs are 0 to 2."""
    iterations: Count = 100
    """Of Sinkhorn; each fits both marginals once."""
    squash_scale: Positive = 5.0
    """alpha: reward of a step that costs nothing."""
    squash_rate: Positive = 5.0
    """beta; 1 for AntMaze."""
    per_observation: bool = True
    """Divide c by the number of observation dimensions; the authors' code does not for AntMaze."""
    workers: Workers = 1
    """Threads, each with one episode at a time; any number gives the same rewards."""


@dataclass(frozen=True)
class UDSConfig:
    """Experts keep their rewards, everything else gets none."""

    minimum: Number | None = None
    """The smallest reward that the environment gives, which becomes 0; None: the smallest that the experts got."""
