"""Every command of the README, as a newcomer would type it, with a few steps instead of many."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from robopref.configs import cli
from robopref.embodied.video import write_video

# What costs minutes -> what costs seconds.  A number that no longer stands in the README makes the test fail.
FEWER = {
    "--episodes 8": "--episodes 1 --processes 1",
    "--episodes 20": "--episodes 1 --processes 1",
    "steps=500 out=runs/backbone": "steps=2 batch=8 threads=1 out=runs/backbone",
    "steps=150 out=runs/vlp": "steps=2 batch=4 threads=1 out=runs/vlp",
    "--pairs 100": "--pairs 6 --threads 1",
    "policy.steps=3000 policy.reward_steps=500": "policy.steps=3 policy.reward_steps=3",
    "policy.clone_steps=500 policy.steps=500": "policy.clone_steps=2 policy.steps=2",
    "frames=20000": "frames=60 warmup=40 eval_episodes=1 policy.width=8",
    "frames=25000": "policy.width=8 frames=140 warmup=120 eval_episodes=1 feedback.questions=8 feedback.steps=2",
    "out=runs/gtr-vlp": "seeds=[0] policy.envs=2 policy.steps=80 policy.minibatch=40 policy.epochs=1 frames=320 warmup=150 "
    "feedback.questions=8 feedback.steps=2 out=runs/gtr-vlp",
    "frames=1000000": "frames=64 seeds=[0] policy.envs=2 policy.steps=16 policy.minibatch=16 policy.epochs=2",
    "protocol=d4rl env=mujoco/hopper": "protocol=d4rl env=mujoco/hopper frames=300 warmup=100 eval_every=100 steps=40 "
    "eval_episodes=1 reference_episodes=2 policy.width=8",
    "out=runs/prof": "candidates=2 children=1 ranking.horizon=5 out=runs/prof",
    "policy.steps=100000": "policy.steps=3",
    "--goals 10": "--goals 1 --max-steps 20",
    "--phases 4 5 --goals 1": "--phases 4 5 --goals 1 --max-steps 20",
    "--goals 20 --max-steps 200": "--goals 1 --max-steps 40",
    "--goals 4": "--goals 1 --max-steps 40",
}
ELSEWHERE = ("pipeline", "report", "bench", "unseen")  # test_pipeline.py, test_bench.py and test_unseen.py run these


def commands(readme: Path) -> list[str]:
    return re.findall(r"^ {4}robopref (.+)$", readme.read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_the_readme_shows_every_command(root):
    assert {line.split()[0] for line in commands(root / "README.md")} == set(cli.COMMANDS)


@pytest.mark.timeout(400)
def test_each_command_runs(root, inside):
    for number in range(3):
        frames = np.random.default_rng(number).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)
        write_video(Path("rollouts") / f"{number}.mp4", frames)
    unused = set(FEWER)
    for line in commands(root / "README.md"):
        if line.split()[0] in ELSEWHERE:
            continue
        for many, few in FEWER.items():
            if many in line:
                unused.discard(many)
                line = line.replace(many, few)
        assert cli.main(shlex.split(line)) == 0, line
    assert not unused
    for made in ("data/episodes/drawer-open", "data/offline/door-close", "labels.parquet", "runs/vlp/model.safetensors"):
        assert Path(made).exists(), made
    assert len(list(Path("runs/sweep").rglob("model.safetensors"))) == 2
    assert list(Path("runs/videos").glob("*.mp4"))
