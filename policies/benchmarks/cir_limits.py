"""What an update of soft actor-critic and of CIR takes at least in float32, beside what it takes: how far `bench cir` can get.

No update does without its matrix products, nor without one pass over its parameters, their gradients, moments and targets.  Both
are timed alone: the products on the very arrays of an update, the pass as one over as much memory.  What an update takes beyond
that is elementwise work, calls and Python; with none of it left, ours would be "at most" times as fast as its peer.  No
environment here, no acting and no replay: the peers are updates of stable-baselines3's SAC and of CIR written plainly.

    python -m robopref.policies.benchmarks.cir_limits [CSV]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import gymnasium as gym
import numpy as np
import pandas as pd
import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from robopref.configs.cli import guarded
from robopref.configs.files import atomic_file
from robopref.configs.flags import from_flags
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import CIRConfig
from robopref.policies.bench import code, machine
from robopref.policies.benchmarks import cir
from robopref.policies.cir import CIR
from robopref.policies.experience import Experience
from robopref.policies.online import prepare_processor

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm")
SIZES = (17, 6)  # HalfCheetah's numbers in an observation and an action
TURNS = 9
TURN_S = 0.3
PASSED = {"critic": 9, "actor": 7}  # weights, moments and targets are read and written, gradients read


class Recorder(TorchDispatchMode):
    """Counts torch's operations, views apart, and keeps matrix products so that they can be done again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.products: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """See TorchDispatchMode."""
        self.calls += not func.is_view
        if func.overloadpacket.__name__ in PRODUCTS:
            self.products.append((func, args, kwargs or {}))
        return func(*args, **(kwargs or {}))

    @property
    def flops(self) -> int:
        """Of all products: two for each number of the first factor and each column of the second."""
        return sum(2 * args[-2].numel() * args[-1].shape[-1] for _, args, _ in self.products)

    @torch.no_grad()
    def again(self) -> None:
        """Every product once more, on the same arrays."""
        for func, args, kwargs in self.products:
            func(*args, **kwargs)


def record(update: Callable[[], object]) -> Recorder:
    """What one update does, after another that makes what is made once."""
    update()
    with Recorder() as recorder:
        update()
    return recorder


def milliseconds(sides: Mapping[str, Callable[[], object]], turns: int, seconds: float) -> dict[str, float]:
    """What a call takes, by side: medians of turns of so many seconds."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(1 + turns):
        for name, side in sides.items():
            started, done = time.perf_counter(), 0
            while done == 0 or time.perf_counter() - started < seconds:
                side()
                done += 1
            found[name].append(1000 * (time.perf_counter() - started) / done)
    return {name: float(np.median(values[1:])) for name, values in found.items()}


def ours(config: CIRConfig) -> tuple[CIR, Callable[[], object]]:
    """Our agent, and an update of it on a minibatch of noise."""
    agent = CIR(config, *SIZES, seed=0)
    return agent, lambda: agent.update(noise(config.batch))


def plain_cir(config: CIRConfig) -> Callable[[], object]:
    """The same of CIR written plainly."""
    agent = cir.PlainCIR(config, *SIZES, seed=0)
    return lambda: agent.update(noise(config.batch))


def stable_baselines(config: CIRConfig) -> Callable[[], object]:
    """The same of stable-baselines3's SAC, on what it has met in its first steps."""
    from stable_baselines3 import SAC

    settings = {"net_arch": [config.width] * 2}
    model = SAC("MlpPolicy", gym.make("HalfCheetah-v5"), learning_starts=300, buffer_size=1000, seed=0, policy_kwargs=settings)
    model.learn(300)
    return lambda: model.train(1, config.batch)


def noise(count: int) -> Experience:
    """A minibatch."""
    obs, next_obs = torch.randn(2, count, SIZES[0])
    actions = torch.rand(count, SIZES[1]) * 2 - 1
    return Experience(obs, actions, torch.randn(count), torch.zeros(count), next_obs)


def run(threads: Sequence[int] = cir.THREADS) -> list[dict[str, float | str]]:
    """Measure; print a table; return its rows."""
    prepare_processor(1)
    rows: list[dict[str, float | str]] = []
    for name, peer in (("sac", stable_baselines), ("cir", plain_cir)):
        config = to_dataclass(CIRConfig, compose("train_online", [f"policy={name}"])["policy"])
        agent, update = ours(config)
        other = peer(config)
        recorder, theirs = record(update), record(other)
        numbers = {part: sum(values.numel() for values in agent.modules[part].parameters()) for part in PASSED}
        passed = 4 * sum(count * numbers[part] for part, count in PASSED.items())
        arrays = torch.zeros(3, passed // 12)  # of which one is written and two are read
        for count in threads:
            torch.set_num_threads(count)
            sides = {"ours": update, "peer": other, "products": recorder.again, "theirs": theirs.again}
            taken = milliseconds(
                sides | {"pass": lambda arrays=arrays: torch.add(arrays[0], arrays[1], out=arrays[2])}, TURNS, TURN_S
            )
            least = taken["products"] + taken["pass"]
            rows.append(
                {
                    "update": f"{name.upper()}, width {config.width}, {count} thread{'s' * (count > 1)}",
                    "GFLOP": recorder.flops / 1e9,
                    "GFLOP/s": recorder.flops / taken["products"] / 1e6,
                    "products": taken["products"],
                    "MB": passed / 1e6,
                    "GB/s": passed / taken["pass"] / 1e6,
                    "pass": taken["pass"],
                    "calls": recorder.calls,
                    "ours": taken["ours"],
                    "peer's products": taken["theirs"],
                    "peer's calls": theirs.calls,
                    "peer": taken["peer"],
                    "ratio": taken["peer"] / taken["ours"],
                    "at most": taken["peer"] / least,
                }
            )
    table = Table(title="An update in float32: milliseconds where nothing else is said")
    table.add_column("")
    for row in rows:
        table.add_column(str(row["update"]), justify="right")
    for key in [key for key in rows[0] if key != "update"]:
        digits = 0 if "calls" in key else 2 if key in ("GFLOP", "ratio", "at most") else 1
        table.add_row(key, *(f"{row[key]:.{digits}f}" for row in rows))
    Console().print(table)
    return rows


@dataclass(frozen=True)
class CIRLimitsConfig:
    """Where the rows go."""

    csv: Annotated[Path | None, tyro.conf.Positional] = None
    """The table to write; without it they are only printed."""


def main(argv: list[str]) -> None:
    """Command line."""
    config = from_flags(CIRLimitsConfig, argv, "python -m robopref.policies.benchmarks.cir_limits", __doc__)
    rows = pd.DataFrame(run()).assign(machine=machine(), code=code())
    if config.csv is None:
        return
    with atomic_file(config.csv) as temp:
        rows.to_csv(temp, index=False, float_format="%.4g", lineterminator="\n")
    print(f"{config.csv}: {len(rows)} rows")


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
