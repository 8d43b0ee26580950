"""`robopref push`: a trained VLP, policy or learned reward -> one folder with a model card, here or in the Hugging Face hub.

Comes after training, and after the measures that the card quotes; goes to `--model`, `--policy` or `reward=` of whoever gets it.
What is shared tells no path of this machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from robopref.configs.checkpoint import load_model, save_model
from robopref.configs.errors import RoboprefError
from robopref.configs.files import MANIFEST, read_record
from robopref.configs.progress import counted
from robopref.configs.push import PushConfig
from robopref.policies.card import policy_card, reward_card
from robopref.policies.networks import load_policy
from robopref.preference.hub import PREFIX, REWARD, SETTINGS, WEIGHTS, Kind
from robopref.preference.push import Writer, share, with_card, write_vlp
from robopref.preference.reward import LearnedReward

STAGES: dict[str, Kind] = {"train-vlp": "vlp", "train": "policy"}
GIVEN: dict[Kind, str] = {
    "vlp": "give it to --model",
    "policy": "give it to --policy",
    "reward": "give it to `robopref train` as reward=",
}
HERE = ("data", "labels")  # of a model's settings: paths of this machine


def main(config: PushConfig) -> None:
    """`robopref push`."""
    where, sizes = run(config)
    for name, size in sizes.items():
        print(f"{name:<28}{size:>12} bytes")
    said = "would be written" if config.dry_run else GIVEN[kind_of(config.run)]
    print(f"{where}: {counted(len(sizes), 'file')}, {sum(sizes.values()) / 2**20:.1f} MB, {said}")


def run(config: PushConfig) -> tuple[str, dict[str, int]]:
    """Write or upload what is shared of a run; returns what a command is given to use it, and the bytes of each file."""
    writers: dict[Kind, Writer] = {"vlp": write_vlp, "policy": write_policy, "reward": write_reward}
    return share(config, writers[kind_of(config.run)])


def kind_of(run: Path) -> Kind:
    """What a finished run's folder holds, or `reward/` inside one; RoboprefError for any other folder."""
    stage = read_record(run / MANIFEST)["stage"] if (run / MANIFEST).exists() else None
    if stage in STAGES:
        return STAGES[stage]
    above = run.resolve().parent / MANIFEST  # P-IQL's reward has no manifest of its own
    if run.resolve().name == REWARD and (run / SETTINGS).exists() and above.exists() and read_record(above)["stage"] == "train":
        return "reward"
    inside = [path for path in (run / "vlp", *sorted((run / "policies").glob("*"))) if (path / MANIFEST).exists()]
    hint = f"; {inside[0]} may be" if inside else ""
    raise RoboprefError(
        f"{run} is not what `robopref train-vlp` or `robopref train` leaves when it is finished: no {MANIFEST} of it{hint}"
    )


def write_policy(run: Path, folder: Path, name: str, reference: str) -> dict[str, int]:
    """Write the members of `run`, the reward that they learnt from if it was learnt too, and a card into the empty `folder`.

    name and reference: what the card calls it, and what --policy is given.  Returns the bytes of each file.  Raises RoboprefError
    when a member or the reward does not load here.
    """
    tensors, config = load_model(run, "policy")
    for member in range(len(config["seeds"])):
        load_policy(run, member)
    config = without_places(config)
    save_model(folder, "policy", tensors, config)
    parameters = {WEIGHTS: count(tensors, "actor.")}
    if (run / REWARD / SETTINGS).exists():
        parameters[f"{REWARD}/{WEIGHTS}"] = copy_reward(run / REWARD, folder / REWARD)[2]
    return with_card(folder, "policy", lambda sizes: policy_card(name, reference, run, config, sizes, parameters))


def write_reward(run: Path, folder: Path, name: str, reference: str) -> dict[str, int]:
    """Write the learned reward `run`, the folder of that name in a policy's run, and a card into the empty `folder`.

    name, reference, errors and what is returned: as for write_policy, with `reward=` for --policy.
    """
    config, dims, size = copy_reward(run, folder)
    whole = run.resolve().parent
    return with_card(folder, "reward", lambda sizes: reward_card(name, reference, whole, config, sizes, {WEIGHTS: size}, dims))


def copy_reward(source: Path, folder: Path) -> tuple[dict[str, Any], tuple[int, int], int]:
    """Write a learned reward without paths of this machine; its settings, its sizes (do, da), and how many parameters it has."""
    dims = LearnedReward(source).dims
    tensors, config = load_model(source, "reward")
    config = without_places(config)
    save_model(folder, "reward", tensors, config)
    return config, dims, count(tensors, "reward.")


def without_places(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a policy or reward, with the last part alone of a path that says which reward was learnt from."""
    kept = {key: value for key, value in config.items() if key not in HERE}
    if isinstance(reward := kept.get("reward"), str) and not reward.startswith(PREFIX):
        kept["reward"] = Path(reward).name
    return kept


def count(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """Parameters of the networks whose tensors' names begin so."""
    return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(prefix))
