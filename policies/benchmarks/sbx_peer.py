"""Stable-Baselines3's SAC in JAX (sbx), for `robopref bench cir`: run by the Python of an environment that has sbx-rl.

JAX is no dependency of this package, so this file imports nothing of it.  Arguments: decisions before learning, threads.  After
"ready", each line read is a number of environment steps to act and learn for; a line is written when they are done.
"""

import os
import sys

warmup, threads = int(sys.argv[1]), int(sys.argv[2])
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])  # XLA makes as many threads as it may use processors

import gymnasium as gym  # noqa: E402  after the affinity, which XLA reads once
from sbx import SAC  # noqa: E402

model = SAC("MlpPolicy", gym.make("HalfCheetah-v5"), learning_starts=warmup, buffer_size=100_000, seed=0)
model.learn(warmup)
print("ready", flush=True)
for line in sys.stdin:
    model.learn(int(line), reset_num_timesteps=False)
    print("done", flush=True)
