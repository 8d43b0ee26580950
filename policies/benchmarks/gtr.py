"""GTR's training against stable-baselines3's PPO: environment steps a second of everything, acting and learning.

The same environments, eight copies, 2,048 decisions an iteration, ten passes over them in minibatches of 64, two layers of 64:
the peer's own defaults but for the copies.  Each side acts by turns in a process of its own, with the number of threads that
suits it better.  GTR has its penalty (the peer has none), and simulates in one process or two; the faster counts.

"fair" lets the peer use both cores, too: it simulates each of its copies in a process of its own (SubprocVecEnv), or two agents
learn at once in two processes with one thread each, as one does who has several seeds to train, and their rates are added; GTR
may do the latter, too.  The fastest of either side counts.
"""

from __future__ import annotations

from functools import partial

from rich.console import Console
from rich.table import Table

from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import OnPolicyConfig
from robopref.embodied.control import make_control
from robopref.policies.benchmarks.turns import Steps, measure
from robopref.policies.online import prepare_processor
from robopref.policies.onpolicy import Run

ENVS = {"halfcheetah": "mujoco/HalfCheetah-v5", "button-press": "metaworld/button-press"}
THREADS = (1, 2)
ROUNDS = 3
TURN_S = 3.0


def run() -> dict[str, dict[str, float]]:
    """Measure; print a table; return {"ratio", "fair"}, each {environment: GTR's rate over the peer's}."""
    table = Table(title="Environment steps a second")
    table.add_column()
    for name in (*(f"{threads} thread{'s' * (threads > 1)}" for threads in THREADS), "best of either"):
        table.add_column(name, justify="right")
    ratios, fair = {}, {}
    for name, env in ENVS.items():
        settings = to_dataclass(OnPolicyConfig, compose("train_onpolicy", [f"env={env}", "seeds=[0]"]))
        sides = {f"{name}: stable-baselines3 PPO": partial(peer, settings)}
        for policy in ("ppo", "gtr"):
            for processes in (1, 2):
                words = [f"env={env}", "seeds=[0]", f"policy={policy}", f"processes={processes}"]
                sides[f"{name}: {policy}, simulated in {processes}"] = partial(
                    ours, to_dataclass(OnPolicyConfig, compose("train_onpolicy", words))
                )
        gtr = to_dataclass(OnPolicyConfig, compose("train_onpolicy", [f"env={env}", "seeds=[0]", "policy=gtr"]))
        two = {
            f"{name}: two of stable-baselines3 PPO": partial(peer, settings),
            f"{name}: two of gtr": partial(ours, gtr),
        }
        sides |= two | {f"{name}: stable-baselines3 PPO, simulated in eight": partial(peer, settings, processes=True)}
        rates = measure(sides, THREADS, ROUNDS, TURN_S, twice=list(two))
        each = settings.policy.envs * settings.policy.steps
        best = {side: max(by_threads.values()) * each for side, by_threads in rates.items()}
        first, *_ = best.values()
        for side, by_threads in rates.items():
            cells = (f"{by_threads[threads] * each:,.0f}" if threads in by_threads else "-" for threads in THREADS)
            table.add_row(side, *cells, f"{best[side] / first:.2f}")
        table.add_section()
        ratios[name] = round(max(rate for side, rate in best.items() if ": gtr" in side) / first, 2)
        theirs = max(rate for side, rate in best.items() if "stable-baselines3" in side)
        fair[name] = round(max(rate for side, rate in best.items() if "gtr" in side) / theirs, 2)
    Console().print(table)
    return {"ratio": ratios, "fair": fair}


def peer(settings: OnPolicyConfig, processes: bool = False) -> Steps:
    """Iterations of stable-baselines3's PPO.  processes: each copy of the environment in one of its own."""
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

    policy = settings.policy
    model = PPO(
        "MlpPolicy",
        (SubprocVecEnv if processes else DummyVecEnv)([partial(make_control, settings.env)] * policy.envs),
        n_steps=policy.steps,
        batch_size=policy.minibatch,
        n_epochs=policy.epochs,
        policy_kwargs={"net_arch": list(policy.hidden)},
        seed=0,
        device="cpu",
    )
    each = policy.steps * policy.envs
    model.learn(each)
    return lambda count: model.learn(count * each, reset_num_timesteps=False)


def ours(settings: OnPolicyConfig) -> Steps:
    """Iterations of this package's agents, the first ones, without anchors, left out."""
    prepare_processor(1)
    state = Run(settings)
    for _ in range(2):
        state.iterate()
    return lambda count: [state.iterate() for _ in range(count)]
