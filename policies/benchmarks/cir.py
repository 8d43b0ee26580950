"""Acting while learning: environment steps a second, each with its updates, against named peers on HalfCheetah.

Soft actor-critic (CIR with every switch off; width 256, batch 256, an update a step) stands against stable-baselines3's, CIR
(width 512, two updates a step) against the same networks as one writes them down: eager float32, one critic after the other,
torch's default Adam, `backward()` through everything (a test compares one update).  All act, remember, sample and learn by turns,
each in a process of its own as a user would start it, and either side has the number of threads that suits it better.  The
rows between the plain side and ours say what each trick is worth.  Three comparisons, and every row names its precision:

* "ratio": ours in float32 or, where the processor has instructions for bfloat16, with bfloat16 products of hidden layers,
  whichever is faster, over the plain peer in float32; "precision" says which it was;
* "float32": ours in float32 over that peer;
* "fair": ours in float32 over the fastest of the peer's rows, that is with what its author gets for a flag or a line (one kernel
  for Adam; of CIR written plainly also no gradients of critics while the actor learns, and torch.compile of the critics) or
  offers in another framework (JAX, where it is measured); "fastest" names the row.  torch.compile of stable-baselines3's
  networks was not tried.

Hidden layers in bfloat16 altogether seemed to cost return (one seed, docs/results/online), so they are shown and do not count.
Where the processor has no instructions for bfloat16 there are float32 rows alone: a step with such layers takes seconds, and
products that are asked for in bfloat16 are computed in float32.  What float32 can reach at most: cir_limits.py.

Where there is a GPU, both are timed there too, kernel by kernel and as CUDA graphs; these rows have no peer.

With ROBOPREF_SBX=PYTHON, the Python of an environment that has sbx-rl, stable-baselines3's SAC in JAX is measured too
("ratio_sbx" in the precision of "ratio_256", "float32_sbx").
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from robopref.configs.errors import RoboprefError
from robopref.configs.hydra import compose, to_dataclass
from robopref.configs.policy import CIRConfig, OnlineConfig
from robopref.policies.benchmarks.downstream import plain_mlp, plain_step
from robopref.policies.benchmarks.turns import Steps, measure
from robopref.policies.cir import LOG_STD_RANGE
from robopref.policies.experience import Experience
from robopref.policies.mixed import has_bfloat16
from robopref.policies.online import Run, prepare_processor

ENV = "mujoco/HalfCheetah-v5"
THREADS = (1, 2)
SBX = "ROBOPREF_SBX"
JAX = "stable-baselines3 SAC in JAX"
ROUNDS = 5
TURN_S = 1.5
CAPACITY = 100_000
WARMUP = 300  # decisions before anything is learnt or measured


class PlainCritic(nn.Module):
    """CIR's critic, from its equations."""

    def __init__(self, norm: nn.LayerNorm, inputs: int, width: int) -> None:
        super().__init__()
        self.norm = norm
        self.d0 = nn.Linear(inputs, width)
        self.d1, self.d2, self.u1, self.m1, self.u2, self.m2 = (nn.Linear(width, width) for _ in range(6))
        self.q = nn.Linear(width, 1)

    def forward(self, obs: Tensor, actions: Tensor) -> Tensor:
        """Q (B,)."""
        x = self.norm(self.d0(torch.cat([obs, actions], -1)))
        x0 = F.elu(torch.tanh(0.1 * x / x.abs().mean(-1, keepdim=True).clamp(min=1e-8)))
        x1 = F.elu(self.norm(self.d1(x0)))
        x2 = F.elu(self.norm(self.d2(x1)))
        x3 = self.norm(self.m1(F.elu(self.norm(self.u1(x2)))) + x2)
        x4 = self.norm(self.m2(F.elu(self.norm(self.u2(x3)))) + x1)
        return self.q(x4).squeeze(-1)


class PlainCIR:
    """CIR as one writes it down; what `online.Run` asks of an agent."""

    def __init__(
        self, config: CIRConfig, obs_dim: int, action_dim: int, seed: int, fused: bool = False, frozen: bool = False
    ) -> None:
        """fused: one kernel an Adam step; frozen: no gradients of the critics while the actor learns."""
        torch.manual_seed(seed)
        self.config, self.action_dim, self.frozen = config, action_dim, frozen
        self.actor = plain_mlp([obs_dim, config.width, config.width, 2 * action_dim])
        norm = nn.LayerNorm(config.width)
        self.critics = nn.ModuleList(PlainCritic(norm, obs_dim + action_dim, config.width) for _ in range(2))
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = torch.zeros(1, requires_grad=True)
        self.noise = torch.Generator().manual_seed(seed)
        kernel = True if fused else None  # None: as torch chooses, on a processor tensor by tensor
        self.actor_optimizer = torch.optim.Adam(self.actor.parameters(), lr=config.learning_rate, fused=kernel)
        self.critic_optimizer = torch.optim.Adam(self.critics.parameters(), lr=config.learning_rate, fused=kernel)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=config.learning_rate)

    @torch.no_grad()
    def act(self, obs: np.ndarray) -> np.ndarray:
        """A drawn action (da,) for one observation (do,)."""
        return self.sample(torch.as_tensor(obs, dtype=torch.float32)[None])[0][0].numpy()

    def sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """Actions (B, da) and log pi (B,)."""
        mean, log_std = self.actor(obs).chunk(2, -1)
        std = log_std.clamp(*LOG_STD_RANGE).exp()
        before = mean + std * torch.randn(mean.shape, generator=self.noise)
        actions = torch.tanh(before)
        log_prob = torch.distributions.Normal(mean, std).log_prob(before) - torch.log(1 - actions.square() + 1e-6)
        return actions, log_prob.sum(-1)

    def update(self, batch: Experience) -> dict[str, Tensor]:
        """One step of everything; the losses."""
        config = self.config
        alpha = self.log_alpha.exp().detach()
        with torch.no_grad():
            next_actions, next_log_prob = self.sample(batch.next_obs)
            q1, q2 = (target(batch.next_obs, next_actions) for target in self.targets)
            value = config.low_share * torch.min(q1, q2) + (1 - config.low_share) * torch.max(q1, q2)
            target = batch.rewards + config.discount * (1 - batch.terminated) * (value - alpha * next_log_prob)
        losses = [F.mse_loss(critic(batch.obs, batch.actions), target) for critic in self.critics]
        critic_loss = plain_step(self.critic_optimizer, losses[0] + losses[1])
        with torch.no_grad():
            for slow, fast in zip(self.targets.parameters(), self.critics.parameters(), strict=True):
                slow.copy_(config.polyak * fast + (1 - config.polyak) * slow)

        self.critics.requires_grad_(not self.frozen)
        actions, log_prob = self.sample(batch.obs)
        q1, q2 = (critic(batch.obs, actions) for critic in self.critics)
        actor_loss = plain_step(self.actor_optimizer, (alpha * log_prob - (q1 + q2) / 2).mean())
        self.critics.requires_grad_(True)
        plain_step(self.alpha_optimizer, -(self.log_alpha.exp() * (log_prob.detach() - self.action_dim)).mean())
        return {"critic": critic_loss, "actor": actor_loss}


Measured = dict[str, float | dict[str, float] | dict[str, str]]


def run() -> Measured:
    """Measure; print a table; return ours over the peer's rate, soft actor-critic (256) and CIR (512).

    {"ratio_256", "float32_256", "ratio_512", "float32_512", "precision", "fair", "fastest"}, the last three by width: see above.
    """
    sac, cir = (to_dataclass(CIRConfig, compose("train_online", [f"policy={name}"])["policy"]) for name in ("sac", "cir"))
    table = Table(title=f"Environment steps a second with their updates, {ENV.removeprefix('mujoco/')}")
    table.add_column()
    table.add_column("hidden layers")
    for name in (*(f"{threads} thread{'s' * (threads > 1)}" for threads in THREADS), "best of either"):
        table.add_column(name, justify="right")
    measured: Measured = {}
    fair: dict[str, float] = {}
    precision: dict[str, str] = {}
    fastest: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        for width, group in (("256", small(Path(folder), sac)), ("512", large(Path(folder), cir))):
            rates = rates_of(group)
            best = {name: max(by_threads.values()) for name, by_threads in rates.items()}
            peer = next(iter(best.values()))
            for name, by_threads in rates.items():
                cells = (f"{by_threads[threads]:.1f}" for threads in THREADS)
                table.add_row(name, group[name].precision, *cells, f"{best[name] / peer:.2f}")
            table.add_section()
            mine, float32, rival = compare(group, best)
            precision[width], fastest[width] = group[mine].precision, rival.strip()
            fair[width] = round(best[float32] / best[rival], 2)
            for name, rate in ({width: peer} | ({"sbx": best[JAX]} if JAX in best else {})).items():
                measured |= {f"ratio_{name}": round(best[mine] / rate, 2), f"float32_{name}": round(best[float32] / rate, 2)}
        if torch.cuda.is_available():
            on_gpu = on_a_gpu(Path(folder), sac, cir)
            for name, by_threads in rates_of(on_gpu).items():
                table.add_row(name, on_gpu[name].precision, *(f"{by_threads[threads]:.1f}" for threads in THREADS), "")
    Console().print(table)
    return measured | {"precision": precision, "fair": fair, "fastest": fastest}


Warm = Callable[[int], Steps]
"""From the length of the warm-up, which is over when the steps are returned."""


class Side(NamedTuple):
    """A row of the table."""

    make: Warm
    role: str = "shown"
    """peer: as its author may run it; ours: as `robopref train` runs it; shown: for what a trick is worth."""
    precision: str = "float32"


def compare(group: Mapping[str, Side], best: Mapping[str, float]) -> tuple[str, str, str]:
    """Names of our fastest side, of our fastest in float32, and of the fastest peer; best: rates by side."""
    ours = [name for name in best if group[name].role == "ours"]
    float32 = [name for name in ours if group[name].precision == "float32"]
    peers = [name for name in best if group[name].role == "peer"]
    fastest, of_float32, rival = (max(names, key=best.__getitem__) for names in (ours, float32, peers))
    return fastest, of_float32, rival


def rates_of(group: Mapping[str, Side]) -> dict[str, dict[int, float]]:
    """{side: {threads: steps a second}}."""
    return measure({name: partial(side.make, WARMUP) for name, side in group.items()}, THREADS, ROUNDS, TURN_S)


def small(folder: Path, config: CIRConfig) -> dict[str, Side]:
    """Soft actor-critic, the peer first."""
    sides = {
        "stable-baselines3 SAC": Side(stable_baselines, "peer"),
        "  one kernel for Adam": Side(partial(stable_baselines, fused=True), "peer"),
    }
    if SBX in os.environ:
        sides[JAX] = Side(partial(in_jax, os.environ[SBX]), "peer")
    return sides | {
        "SAC, gradients by hand": Side(partial(ours, folder / "hand", config, keep=False)),
        "  + freed memory is kept": Side(partial(ours, folder / "sac", config), "ours"),
        **lower(folder, config),
    }


def large(folder: Path, config: CIRConfig) -> dict[str, Side]:
    """CIR, written plainly first; each further row has one more trick than the row above it, compiling apart."""
    sides = {"CIR, written plainly": Side(partial(plain, folder / "plain", config), "peer")}
    if shutil.which("g++") is not None:  # torch.compile needs one
        compiled = partial(plain, folder / "compiled", config, compiled=True)
        sides["  torch.compile of the critics, alone"] = Side(compiled, "peer")
    frozen = partial(plain, folder / "frozen", config, fused=True, frozen=True)
    return sides | {
        "  one kernel for Adam": Side(partial(plain, folder / "fused", config, fused=True), "peer"),
        "  + no gradients of critics for the actor": Side(frozen, "peer"),
        "  + critics at once, gradients by hand": Side(partial(ours, folder / "hand", config, keep=False)),
        "  + freed memory is kept": Side(partial(ours, folder / "cir", config), "ours"),
        **lower(folder, config),
    }


def lower(folder: Path, config: CIRConfig) -> dict[str, Side]:
    """Ours in other precisions than float32, where the processor has them."""
    if not has_bfloat16(torch.device("cpu")):
        return {}
    bfloat16, mixed = (partial(ours, folder / name, replace(config, precision=name)) for name in ("bfloat16", "mixed"))
    return {
        "  + hidden layers in bfloat16": Side(bfloat16, precision="bfloat16"),
        "  instead only their products": Side(mixed, "ours", "bfloat16 products"),
    }


def on_a_gpu(folder: Path, sac: CIRConfig, cir: CIRConfig) -> dict[str, Side]:
    """Both of them there, kernel by kernel and with an update as one CUDA graph."""
    return {
        f"{name} on a GPU{trick}": Side(
            partial(ours, folder / f"gpu-{name}-{graph}", replace(config, cuda_graph=graph), device="cuda")
        )
        for name, config in (("SAC", sac), ("CIR", cir))
        for trick, graph in (("", False), (", an update as one CUDA graph", True))
    }


def stable_baselines(warmup: int, fused: bool = False) -> Steps:
    """SAC of stable-baselines3 with its own settings, which are ours too; fused: one kernel an Adam step."""
    from stable_baselines3 import SAC

    settings = {"optimizer_kwargs": {"fused": True}} if fused else {}
    env = gym.make(ENV.removeprefix("mujoco/"))
    model = SAC("MlpPolicy", env, learning_starts=warmup, buffer_size=CAPACITY, seed=0, policy_kwargs=settings)
    model.learn(warmup)
    return lambda count: model.learn(count, reset_num_timesteps=False)


def in_jax(python: str, warmup: int) -> Steps:
    """The same in JAX, in a process of `python` for each number of threads; RoboprefError when one ends."""
    peers: dict[int, subprocess.Popen[str]] = {}

    def ask(peer: subprocess.Popen[str], line: str) -> None:
        assert peer.stdin is not None and peer.stdout is not None
        peer.stdin.write(line)
        peer.stdin.flush()
        if not peer.stdout.readline():
            raise RoboprefError(f"{SBX}={python}: the peer ended, see above; it needs sbx-rl and gymnasium[mujoco]")

    def steps(count: int) -> None:
        threads = torch.get_num_threads()
        if threads not in peers:
            command = [python, str(Path(__file__).with_name("sbx_peer.py")), str(warmup), str(threads)]
            try:
                peers[threads] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            except OSError as error:
                raise RoboprefError(f"{SBX}={python}: {error.strerror}") from error
            ask(peers[threads], "")
        ask(peers[threads], f"{count}\n")

    return steps


def plain(folder: Path, policy: CIRConfig, warmup: int, compiled: bool = False, **tricks: bool) -> Steps:
    """This package's loop with the plain agent."""

    def make(obs_dim: int, action_dim: int) -> PlainCIR:
        agent = PlainCIR(policy, obs_dim, action_dim, 0, **tricks)
        for critic in (*agent.critics, *agent.targets) if compiled else ():
            critic.compile()
        return agent

    return loop(folder, policy, warmup, make)


def ours(folder: Path, policy: CIRConfig, warmup: int, keep: bool = True, device: str = "cpu") -> Steps:
    """This package's loop with its own agent, as `robopref train` runs it; keep: with memory kept, too."""
    if keep:
        prepare_processor(1)
    else:
        torch.set_flush_denormal(True)
    return loop(folder, policy, warmup, device=device)


def loop(
    folder: Path,
    policy: CIRConfig,
    warmup: int,
    make_agent: Callable[[int, int], PlainCIR] | None = None,
    device: str = "cpu",
) -> Steps:
    """Steps of `online.Run`, with its own agent or another one, made from (do, da)."""
    config = OnlineConfig(folder, ENV, policy, action_repeat=1, warmup=warmup, capacity=CAPACITY, checkpoint_every=CAPACITY)
    state = Run(config, torch.device(device))
    if make_agent is not None:
        state.agent = make_agent(*state.env.sizes)  # type: ignore[assignment]
        state.update = state.learn
    for number in range(warmup):
        state.decide(number)
    return lambda count: [state.decide(warmup) for _ in range(count)]
