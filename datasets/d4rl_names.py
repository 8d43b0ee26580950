"""What a name of D4RL stands for: the environment, its reference scores, its steps, and where the file lies on D4RL's host.

Facts of the benchmark (Fu et al., "D4RL: Datasets for Deep Data-Driven Reinforcement Learning", 2020, and its package `d4rl`),
which datasets.d4rl and datasets.minari_sets look up.  Nothing is read or fetched here.
"""

from __future__ import annotations

import re
from pathlib import Path

from robopref.datasets.offline import ReferenceScore

HOST = "http://rail.eecs.berkeley.edu/datasets/offline_rl"

REFERENCES = {
    "halfcheetah": ReferenceScore(-280.178953, 12135.0),
    "hopper": ReferenceScore(-20.272305, 3234.3),
    "walker2d": ReferenceScore(1.629008, 4592.3),
    "ant": ReferenceScore(-325.6, 3879.7),
    "antmaze": ReferenceScore(0.0, 1.0),
    "kitchen": ReferenceScore(0.0, 4.0),
    "pen": ReferenceScore(96.262799, 3076.8331017826877),
    "hammer": ReferenceScore(-274.856578, 12794.134825156867),
    "door": ReferenceScore(-56.512833, 2880.5693087298737),
    "relocate": ReferenceScore(-6.425911, 4233.877797728884),
}

# Where what is learnt can be tried out.  Not ant: D4RL's observations have 111 numbers, Ant-v5's 105.
ENVIRONMENTS = {task: f"mujoco/{task}" for task in ("halfcheetah", "hopper", "walker2d")} | {
    task: f"adroit/{task}" for task in ("pen", "hammer", "door", "relocate")
}

GYM = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")
ADROIT = ("human", "cloned", "expert")
MAZES = {
    "umaze": "u-maze_noisy_multistart_False_multigoal_False",
    "umaze-diverse": "u-maze_noisy_multistart_True_multigoal_True",
    "medium-play": "big-maze_noisy_multistart_True_multigoal_False",
    "medium-diverse": "big-maze_noisy_multistart_True_multigoal_True",
    "large-play": "hardest-maze_noisy_multistart_True_multigoal_False",
    "large-diverse": "hardest-maze_noisy_multistart_True_multigoal_True",
}
KITCHENS = {
    "complete": "mini_kitchen_microwave_kettle_light_slider",
    "partial": "kitchen_microwave_kettle_light_slider",
    "mixed": "kitchen_microwave_kettle_bottomburner_light",
}


def _paths() -> dict[str, str]:
    """name -> path below HOST, as `d4rl.infos` has them."""
    paths = {}
    for task in ("halfcheetah", "hopper", "walker2d", "ant"):
        for kind in GYM:
            for version in ("v1", "v2"):
                file = f"{task}-{kind}".replace("-", "_")
                paths[f"{task}-{kind}-{version}"] = f"gym_mujoco_{version}/{file}-{version}.hdf5"
        for kind in GYM:
            # the first version called medium-replay "mixed", and walker2d's "walker"; it had no full-replay
            short = "walker" if (task, kind) == ("walker2d", "medium-replay") else task
            file = f"{short}_{kind}".replace("medium-replay", "mixed").replace("-", "_")
            if kind != "full-replay":
                paths[f"{task}-{kind}-v0"] = f"gym_mujoco/{file}.hdf5"
    for task in ("pen", "hammer", "door", "relocate"):
        files = ("v0_demos_clipped", "demos-v0-bc-combined", "v0_expert_clipped")
        paths |= {f"{task}-{kind}-v0": f"hand_dapg/{task}-{file}.hdf5" for kind, file in zip(ADROIT, files, strict=True)}
        paths |= {f"{task}-{kind}-v1": f"hand_dapg_v1/{task}-{kind}-v1.hdf5" for kind in ADROIT}
    for kind, file in MAZES.items():
        paths[f"antmaze-{kind}-v0"] = f"ant_maze_new/Ant_maze_{file}_sparse.hdf5"
        paths[f"antmaze-{kind}-v2"] = f"ant_maze_v2/Ant_maze_{file}_sparse_fixed.hdf5"
    for kind, file in KITCHENS.items():
        paths[f"kitchen-{kind}-v0"] = f"kitchen/{file}-v0.hdf5"
    return paths


PATHS = _paths()
FILES = {Path(path).name: name for name, path in PATHS.items()}  # d4rl keeps a download under its file's name

_KINDS = {
    **dict.fromkeys(("halfcheetah", "hopper", "walker2d", "ant"), (*GYM, "mixed", "random-expert")),
    **dict.fromkeys(("pen", "hammer", "door", "relocate"), (*ADROIT, "human-longhorizon")),
    "antmaze": tuple(MAZES),
    "kitchen": tuple(KITCHENS),
}


def task_of(name: str) -> str | None:
    """The key of REFERENCES that a set's name (hopper-medium-v2) or an environment's (mujoco/hopper, Hopper-v5) stands for.

    None for everything else, also where a word is the same: metaworld/door-open, bullet-hopper-medium-v0.
    """
    # a suite's own name of the environment: mujoco/Hopper-v5, adroit/AdroitHandDoor-v1, D4RL's door-v0
    match = re.fullmatch(r"(?:(mujoco|adroit|d4rl)/)?(?:adroithand)?([a-z0-9]+)(?:-v\d+)?", name.lower())
    if match and match[2] in REFERENCES:
        suite, task = match[1], match[2]
        return task if suite in (None, "d4rl") or ENVIRONMENTS.get(task, "mujoco/ant").startswith(suite) else None
    for task, kinds in _KINDS.items():
        if re.fullmatch(rf"{task}-({'|'.join(kinds)})-v\d+", name.lower()):
            return task
    return None


def reference_score(name_or_env: str) -> ReferenceScore | None:
    """D4RL's reference returns of a set (hopper-medium-v2) or an environment (mujoco/hopper); None where it has none.

    They were measured in MuJoCo 2 through mujoco_py.  In the environments of today the dynamics differ a little, so a
    normalised score of a policy that was tried out there is comparable with a published one only roughly.
    """
    task = task_of(name_or_env)
    return None if task is None else REFERENCES[task]


def env_of(name: str) -> str | None:
    """Where to evaluate what was learnt from a set: `mujoco/hopper`; None where robopref has no environment of its layout."""
    task = task_of(name)
    return None if task is None else ENVIRONMENTS.get(task)


def step_limit(name: str) -> int | None:
    """Steps after which D4RL cuts an episode of this set; what `d4rl` goes by where a file has no `timeouts`."""
    task = task_of(name)
    if task == "antmaze":
        return 700 if "umaze" in name else 1000
    longer = {"hammer": 600, "pen": 200, "relocate": 500, "door": 300}
    if task in longer and "longhorizon" in name:
        return longer[task]
    return {"kitchen": 280, "pen": 100, "hammer": 200, "door": 200, "relocate": 200}.get(task, 1000) if task else None


def url_of(name: str, mirror: str | None = None) -> str:
    """Where the file of a set lies.

    mirror: a host with D4RL's own folders instead of HOST, or, with `{name}` in it, the address of each set:
    https://example.org/{name}.hdf5.
    """
    base = mirror or HOST
    return base.replace("{name}", name) if "{name}" in base else f"{base.rstrip('/')}/{PATHS[name]}"


def name_of(path: Path) -> str:
    """D4RL's name of a file, whether it is called by the name or as on D4RL's host; else the file's name without its ending."""
    return FILES.get(path.name, path.stem)
