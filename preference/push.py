"""What `robopref push` does with any model: one folder that works anywhere, with a model card, here or in the Hugging Face hub.

policies/push.py finds out what a run holds; `write_vlp` is what is shared of a VLP.  Comes after training (and, in a pipeline,
after the measures that the card quotes); goes to `--model` of whoever gets it.
"""

from __future__ import annotations

import filecmp
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from robopref.configs.checkpoint import load_model, save_model
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import as_written, atomic_folder, read_json, remove_abandoned
from robopref.configs.push import PushConfig
from robopref.configs.run_folder import CARD, LIBRARY
from robopref.preference.backbone import parse_open_clip, parse_small
from robopref.preference.card import model_card
from robopref.preference.hub import FILES, PICTURES, PREFIX, SETTINGS, WEIGHTS, Kind, check_upload, parse_reference, upload
from robopref.preference.small import KIND as SMALL
from robopref.preference.vlp import KIND, VLPScorer

Writer = Callable[[Path, Path, str, str], dict[str, int]]
"""Run, empty folder, name and reference -> bytes of each file that it wrote there, the card first."""
AGAIN = "run the stage that made it again"
NAMES: dict[Kind, str] = {"vlp": "VLP", "policy": "policy", "reward": "learned reward"}


def share(config: PushConfig, write: Writer) -> tuple[str, dict[str, int]]:
    """Write or upload what is shared of a run; returns what a command is given to use it, and the bytes of each file."""
    if config.to.startswith(PREFIX):
        repo, revision = parse_reference(config.to)
        if revision is not None:
            raise UsageError(f"--to {config.to}: a push goes to the main branch; leave out @{revision}")
        if config.overwrite:
            raise UsageError("--overwrite is for folders: in the hub a push is a commit, and the earlier ones stay; leave it out")
        if not config.dry_run:
            check_upload(config.to)
        with tempfile.TemporaryDirectory() as made:
            aside = Path(made)
            with as_written(config.run, AGAIN):
                sizes = write(config.run, aside, repo.partition("/")[2], config.to)
            return config.to if config.dry_run else upload(aside, repo, config.private), sizes
    target = check_target(config)
    if config.dry_run:
        with tempfile.TemporaryDirectory() as made:
            return config.to, write_over(config, write, Path(made), target)
    remove_abandoned(target)
    with atomic_folder(target) as aside:
        return config.to, write_over(config, write, aside, target)


def write_over(config: PushConfig, write: Writer, aside: Path, target: Path) -> dict[str, int]:
    """Write to `aside` what shall replace `target`; RoboprefError when that holds another model, unless it is to be replaced."""
    with as_written(config.run, AGAIN):
        sizes = write(config.run, aside, target.name, target.name)
    if not config.overwrite:
        refuse_other(target, aside)
    return sizes


def refuse_other(target: Path, made: Path) -> None:
    """RoboprefError when the weights that a push wrote to `target` are not those in `made`, or are of another kind of model."""
    try:
        if filecmp.cmp(target / WEIGHTS, made / WEIGHTS, shallow=False):  # kind and settings are in the same file
            return
    except FileNotFoundError:  # none is there, or another push is just replacing it
        return
    try:
        kind = read_json(target / SETTINGS)["kind"]
        kind = kind if isinstance(kind, str) else None
    except (RoboprefError, KeyError, TypeError):  # missing, or edited
        kind = None
    article = "another" if kind == read_json(made / SETTINGS)["kind"] else "a"
    raise RoboprefError(
        f"--to {target} holds {article} {NAMES.get(kind, 'model')} that an earlier push wrote: choose another --to, or replace "
        "it with --overwrite"
    )


def check_target(config: PushConfig) -> Path:
    """The folder to write; RoboprefError when something lies there that a push did not write and would destroy."""
    if ":" in config.to:
        raise UsageError(f"--to {config.to}: neither a folder nor {PREFIX}OWNER/NAME")
    if config.private:
        raise UsageError(f"--private is for the hub's repositories: write --to {PREFIX}OWNER/NAME, or leave it out")
    target = Path(config.to).resolve()
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return target
    known = {file for files in FILES.values() for file in files}
    foreign = [path for path in target.rglob("*") if path.is_file() and path.relative_to(target).as_posix() not in known]
    card = target / CARD
    if not card.is_file() or foreign or LIBRARY not in card.read_text(encoding="utf-8", errors="replace").splitlines():
        what = f"it holds {foreign[0].name}" if foreign else f"it has no {CARD} of one"
        raise RoboprefError(f"--to {target} is there already, and no folder that `robopref push` wrote ({what}): choose another")
    return target


def write_vlp(run: Path, folder: Path, name: str, reference: str) -> dict[str, int]:
    """Write model, small backbone and card of a VLP's `run` into the empty `folder`; returns the bytes of each file.

    name and reference: what the card calls the model, and what --model is given.  Raises RoboprefError when the run does not
    load here, or looks through weights that lie on this machine alone.
    """
    scorer = VLPScorer.load(run)
    state, config = load_model(run, KIND)
    parameters = {WEIGHTS: sum(parameter.numel() for parameter in scorer.model.parameters())}
    kind, _, where = config["backbone"].partition(":")
    if kind == "small":
        where, words = parse_small(where)
        (folder / "backbone").mkdir()
        for file in (SETTINGS, WEIGHTS):  # copied and not saved anew: its digest is in VLP's settings
            shutil.copyfile(run / where / file, folder / "backbone" / file)
        parameters[f"backbone/{WEIGHTS}"] = sum(tensor.numel() for tensor in load_model(run / where, SMALL)[0].values())
        config["backbone"] = f"small:backbone@{words}" if words else "small:backbone"
    else:
        model, weights, _ = parse_open_clip(where)
        if model.startswith("local-dir:") or (weights is not None and Path(weights).is_file()):
            raise RoboprefError(
                f"{run}: its backbone {config['backbone']} lies on this machine alone; train VLP with a pretrained tag or an "
                "hf-hub: name, which others can get too"
            )
    if (run / PICTURES).exists():
        shutil.copyfile(run / PICTURES, folder / PICTURES)
    save_model(folder, KIND, state, config)
    return with_card(folder, "vlp", lambda sizes: model_card(name, reference, run, config, sizes, parameters))


def with_card(folder: Path, kind: Kind, card: Callable[[Mapping[str, int]], str]) -> dict[str, int]:
    """Write the card that `card` makes of the bytes of each file, beside the files of a model; returns all of their bytes."""
    sizes = {file: (folder / file).stat().st_size for file in FILES[kind] if (folder / file).exists()}
    (folder / CARD).write_text(card(sizes), encoding="utf-8")
    return {CARD: (folder / CARD).stat().st_size} | sizes
