"""The smallest settings of every command that writes, for tests of full disks, of kills and of two processes in one folder.

OUT stands for where it writes, MADE for a folder that the commands of MAKING have filled; `write_toys` makes the other files.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from offline_toys import walker
from test_prof_command import FIELDS

from robopref.datasets.d4rl import write_d4rl
from robopref.embodied.tasks import Split

SAC = """train policy=sac env=mujoco/HalfCheetah-v5 action_repeat=1 frames=300 warmup=100 eval_every=300 eval_episodes=1
checkpoint_every=100 policy.width=8 out=OUT"""
PROF = """prof env=toy/walker data=data.hdf5 expert_data=expert.hdf5 fields=fields.yaml candidates=3 children=1
ranking.horizon=10 ranking.draws=1 out=OUT"""
GTR = """train policy=gtr env=mujoco/hopper switch=friction frames=64 seeds=[0] policy.envs=2 policy.steps=16
policy.minibatch=16 policy.epochs=2 processes=1 out=OUT"""
PLAIN = {
    "prof": PROF,
    "sac": SAC,
    "gtr": GTR,
    "evaluate": "evaluate --policy random --env metaworld/door-close --goals 1 --max-steps 5 --out OUT",
    "video": "video --policy random --env metaworld/door-close --goals 1 --max-steps 20 --quality fast --out OUT",
    "collect": """collect --tasks door-close drawer-close --levels random --episodes 2 --processes 1 --max-steps 20
        --out OUT/episodes --clips OUT/clips""",
    "clips": """collect --tasks door-close drawer-close --levels random --episodes 2 --processes 1 --max-steps 20
        --out episodes --clips OUT/clips --overwrite""",
    "collect protocol=d4rl": """collect protocol=d4rl env=mujoco/hopper frames=300 warmup=100 eval_every=100 steps=40
        eval_episodes=1 reference_episodes=2 policy.width=8 out=OUT""",
}
AFTER = {
    "pretrain": "pretrain clips=MADE/clips tasks=[door-close,drawer-close] steps=2 batch=8 threads=1 out=OUT",
    "train-vlp": """train-vlp clips=MADE/clips tasks=[door-close,drawer-close] backbone=small:MADE/backbone steps=2 batch=4
        threads=1 out=OUT""",
    "annotate": """annotate --episodes MADE/episodes/door-close --instruction "close the door" --model MADE/vlp --pairs 6
        --threads 1 --out OUT/labels.parquet""",
    "train": """train policy=piql data=MADE/episodes/door-close labels=MADE/labels.parquet seeds=[0] policy.steps=3
        policy.reward_steps=3 out=OUT""",
    "attention": "attention --model MADE/vlp --episodes MADE/episodes/door-close --clips 1 --out OUT",
    "push": "push MADE/vlp --to OUT/vlp",
}
FURTHER = {
    "train-vlp factored": """train-vlp clips=MADE/clips tasks=[door-close,drawer-close] backbone=small:MADE/backbone steps=6
        batch=4 threads=1 checkpoint_every=2 model.architecture=factored out=OUT""",
    "train-vlp paper": """train-vlp clips=MADE/clips tasks=[door-close,drawer-close] backbone=small:MADE/backbone steps=6
        batch=4 threads=1 checkpoint_every=2 model.architecture=cross out=OUT""",
    "annotate videos": """annotate --videos MADE/videos/random-goal-*.mp4 --instruction "close the door" --model MADE/vlp
        --pairs 3 --threads 1 --chunk 2 --processes 2 --out OUT/labels.parquet""",
    "bc": """train policy=bc data=MADE/episodes/door-close seeds=[0,1] policy.steps=40 checkpoint_every=10 policy.hidden=[16]
        out=OUT""",
    "iql": """train policy=iql data=MADE/episodes/door-close seeds=[0] policy.steps=40 checkpoint_every=10 policy.hidden=[16]
        out=OUT""",
    "cpl": """train policy=cpl data=MADE/episodes/door-close labels=MADE/labels.parquet seeds=[0] policy.steps=20
        policy.clone_steps=20 checkpoint_every=10 policy.hidden=[16] out=OUT""",
    "iql otr": """train policy=iql_d4rl data=data.hdf5 reward=otr expert_data=expert.hdf5 seeds=[0] policy.steps=40
        checkpoint_every=10 policy.hidden=[16] policy.batch=16 out=OUT""",
    "cir": SAC.replace("policy=sac", "policy=cir"),
    "ppo": GTR.replace("policy=gtr", "policy=ppo"),
    "prof replay": f"{PROF} writer.kind=replay writer.transcript=MADE/prof/transcript.jsonl",
    "pipeline": """pipeline train_tasks=[door-close,drawer-close] task=door-lock policy_seeds=[0] processes=1 goals=1
        max_steps=10 film_goals=1 collect.episodes=2 collect.max_steps=200 offline.episodes=2 offline.max_steps=80
        offline.levels=[random] annotate.pairing=random annotate.pairs=4 pretrain.steps=4 pretrain.batch=8 pretrain.threads=1
        vlp.steps=3 vlp.batch=4 vlp.threads=1 bc.steps=4 piql.steps=4 piql.reward_steps=4 cpl.steps=4 cpl.clone_steps=4
        out=OUT""",
    "unseen": """unseen seeds=[0] processes=1 tuples=4 pairs=2 collect.episodes=2 collect.max_steps=120 offline.episodes=2
        offline.max_steps=120 pretrain.steps=4 pretrain.width=8 pretrain.features=16 pretrain.keypoints=4 pretrain.batch=8
        vlp.steps=3 vlp.batch=4 vlp.model.dim=16 vlp.model.heads=2 vlp.warmup=1 contrastive.steps=2 only=[factored] out=OUT""",
}
"""More than a full disk needs to meet: other learners, and commands that are made of the others (`unseen` with FEW_TASKS)."""
FEW_TASKS = Split(train=("drawer-open", "door-close"), test=("drawer-close",))
"""For `preference.unseen.SPLITS`, where fifty take minutes."""
REPORT = "report --run MADE --out OUT/report.html"
MAKING = [
    "collect --tasks door-close drawer-close --episodes 2 --processes 1 --out MADE/episodes --clips MADE/clips",
    AFTER["pretrain"].replace("OUT", "MADE/backbone"),
    AFTER["train-vlp"].replace("OUT", "MADE/vlp"),
    AFTER["annotate"].replace("OUT", "MADE"),
]
"""Makes what AFTER reads."""
MAKING_FURTHER = [
    "video --policy random --env metaworld/door-close --goals 3 --max-steps 20 --quality fast --out MADE/videos",
    PROF.replace("OUT", "MADE/prof"),
]
"""And what FURTHER reads beside it."""


def write_toys(folder: Path) -> None:
    """Data of a walker, and what its numbers mean."""
    write_d4rl(folder / "data.hdf5", walker())
    write_d4rl(folder / "expert.hdf5", walker(skill=1.0))
    (folder / "fields.yaml").write_text(FIELDS)


def words(command: str, out: Path | str, made: Path | str = "MADE") -> list[str]:
    """What is typed behind `robopref`."""
    return shlex.split(command.replace("OUT", str(out)).replace("MADE", str(made)))
