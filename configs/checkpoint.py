"""Checkpoints without pickle: tensors in one safetensors file, everything else as JSON in that file's header.

One file means that weights, optimiser, random state and settings can never be of different steps.  Loading is strict:
a missing, damaged or foreign file is an error that says which and what to do, never a model with some random weights.
The header holds a digest of all that is in the file, so that not even one changed bit is read as another weight.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import RoboprefError
from .files import as_written, atomic_file, digest, parse_json, plain, read_json, skips_digests, write_json
from .finite import check_weights
from .run_folder import refuse_outside, refuse_unfinished

_HEADER = "robopref"  # the one name in the header's metadata: of several, safetensors writes now one and now another first
_DIGEST = "sha256"
AGAIN = "delete it and run its stage again"
SKIPPING = "`robopref --skip-digests COMMAND ...` reads it all the same"
TOLD = 3  # differences that an error names

Module = TypeVar("Module", bound=nn.Module)


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write `tensors`, `meta` (JSON-like; its "kind" is what load_tensors asks for) and their digest to one file, atomically."""
    if "kind" not in meta:
        raise ValueError("meta needs a 'kind'")
    # Clones, because safetensors refuses tensors that share memory (tied weights, views).
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    told = plain(meta)
    header = json.dumps(told | {_DIGEST: contents_digest(copies, told)})
    with atomic_file(path) as temp:
        save_file(copies, temp, metadata={_HEADER: header})


def contents_digest(tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> str:
    """sha256 (hex) of `meta`, plain values, and of the names, types, shapes and bytes of `tensors`, whatever their order."""
    total = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        total.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, meta) of a file of this kind; RoboprefError when missing, damaged, changed or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise RoboprefError(f"{path} does not exist: train the {kind} first, or correct the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    # Others than its own come of headers that it takes for whole, and torch does not.
    except (SafetensorError, OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError) as error:
        said = " ".join(str(error).split())
        raise RoboprefError(f"{path} is damaged or cut short ({said}): {AGAIN}") from error
    if _HEADER not in header:
        raise RoboprefError(f"{path} was not written by robopref: a {kind} checkpoint is wanted")
    try:
        meta = parse_json(header[_HEADER])
    except ValueError as error:
        raise RoboprefError(f"{path} is damaged (its header: {error}): {AGAIN}") from error
    if not isinstance(meta, dict) or not isinstance(meta.get("kind"), str):
        raise RoboprefError(f"{path} is damaged (its header does not say what kind of file it is): {AGAIN}")
    written = meta.pop(_DIGEST, None)
    if meta["kind"] != kind:
        raise RoboprefError(f"{path} holds a {meta['kind']!r}, but a {kind!r} is wanted: give the path of one")
    if not skips_digests():
        check_contents(path, written, tensors, meta)
    return tensors, meta


def check_contents(path: Path, written: object, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """RoboprefError naming `path` when the digest `written` in it is not that of what is in it, or is missing."""
    if written is None:
        raise RoboprefError(
            f"{path} holds no digest: a version of robopref before there were any has written it, or somebody has changed it; "
            f"run its stage again, or, if you trust the file, {SKIPPING}"
        )
    if written != contents_digest(tensors, meta):
        raise RoboprefError(
            f"{path} has changed since it was written (its digest says so): put the original back, or {AGAIN}; {SKIPPING}"
        )


def save_model(folder: str | Path, kind: str, state_dict: Mapping[str, Tensor], config: Any) -> None:
    """Write `model.safetensors` (weights, kind and config) and `config.json` (its readable copy) into `folder`.

    RoboprefError, and nothing written, where a weight is not finite.
    """
    folder = Path(folder)
    check_weights(state_dict, folder)
    meta = {"kind": kind, "config": plain(config)}
    save_tensors(folder / "model.safetensors", state_dict, meta)
    write_json(folder / "config.json", meta)


def load_model(folder: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(state_dict, config) as saved by save_model; RoboprefError also when config.json does not fit the weights."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RoboprefError(f"{folder} is not a folder: a run folder with a {kind} in it is wanted")
    refuse_unfinished(folder)
    refuse_outside(folder, ("model.safetensors", "config.json"))
    path = folder / "model.safetensors"
    tensors, meta = load_tensors(path, kind)
    if not isinstance(meta.get("config"), dict):
        raise RoboprefError(f"{path} is damaged (its header holds no settings): {AGAIN}")
    if read_json(folder / "config.json") != meta:
        raise RoboprefError(
            f"{folder / 'config.json'} is not the config that {folder / 'model.safetensors'} was trained with "
            "(edited, or from another run): train again, or put the original back"
        )
    return tensors, meta["config"]


def load_strict(module: nn.Module, state_dict: Mapping[str, Tensor], where: str | Path) -> None:
    """Load exactly these keys and shapes into `module`; else RoboprefError naming `where` and the first mismatch."""
    check_fits(module, state_dict, where)
    module.load_state_dict(state_dict)


def check_fits(module: nn.Module, state_dict: Mapping[str, Tensor], where: str | Path) -> None:
    """RoboprefError naming `where` and the first mismatch unless these are the keys, shapes and kinds of numbers of `module`."""
    ours = module.state_dict()
    missing = [name for name in ours if name not in state_dict]
    unknown = [name for name in state_dict if name not in ours]
    both = [name for name in ours if name in state_dict]
    shapes = [name for name in both if ours[name].shape != state_dict[name].shape]
    kinds = [name for name in both if ours[name].is_floating_point() != state_dict[name].is_floating_point()]
    if missing:
        problem = f"{missing[0]!r} is missing in it ({len(missing)} such)"
    elif unknown:
        problem = f"it has {unknown[0]!r}, which the model has not ({len(unknown)} such)"
    elif shapes:
        found, wanted = tuple(state_dict[shapes[0]].shape), tuple(ours[shapes[0]].shape)
        problem = f"{shapes[0]!r} has shape {found} in it and {wanted} in the model ({len(shapes)} such)"
    elif kinds:
        problem = f"{kinds[0]!r} holds {state_dict[kinds[0]].dtype} in it and {ours[kinds[0]].dtype} in the model"
    else:
        return
    raise RoboprefError(f"{where} is of another architecture: {problem}; use the settings it was trained with, or train anew")


def built_like(build: Callable[[], Module], state_dict: Mapping[str, Tensor], where: str | Path) -> Module:
    """The module that `build` makes, with these weights; RoboprefError naming `where` unless they are exactly its own.

    It is built without memory first: settings in a file can ask for more than there is.
    """
    with torch.device("meta"):
        check_fits(build(), state_dict, where)
    module = build()
    load_strict(module, state_dict, where)
    return module


def check_sizes(members: int, sizes: Sequence[int], state_dict: Mapping[str, Tensor], where: str | Path) -> None:
    """RoboprefError naming `where` when layers of `sizes` have more numbers than all of its weights together.

    For networks that numpy draws, which are not built without memory.
    """
    total = sum(tensor.numel() for tensor in state_dict.values())
    if any(members * i * o > total or min(members, i, o) < 1 for i, o in pairwise(sizes)):
        raise RoboprefError(
            f"{where} is of another architecture: its settings say {members} members of {list(sizes)}, its weights are "
            f"{total} numbers; use the settings it was trained with, or train anew"
        )


def pack_optimizer(optimizer: torch.optim.Optimizer, prefix: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Optimiser state as (tensors named `PREFIX.<parameter number>.<name>`, {PREFIX: the rest}), for save_tensors."""
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    scalars: dict[str, dict[str, Any]] = {}
    for index, values in state["state"].items():
        scalars[str(index)] = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        tensors |= {f"{prefix}.{index}.{name}": value for name, value in values.items() if isinstance(value, Tensor)}
    return tensors, {prefix: {"scalars": scalars, "groups": plain(state["param_groups"])}}


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], meta: Mapping[str, Any], prefix: str
) -> None:
    """Put packed state back into an optimiser over parameters of the same number and shapes, else RoboprefError."""
    if prefix not in meta:
        raise RoboprefError(f"the checkpoint holds no optimiser {prefix!r}: start training anew")
    with as_written(f"optimiser {prefix!r} of the checkpoint", "start training anew"):
        state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in meta[prefix]["scalars"].items()}
        for name, tensor in tensors.items():
            if name.startswith(prefix + "."):
                index, key = name.removeprefix(prefix + ".").split(".", 1)
                state[int(index)][key] = tensor
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        groups, ours = meta[prefix]["groups"], optimizer.state_dict()["param_groups"]
        fits = [group["params"] for group in groups] == [group["params"] for group in ours]
        fits = fits and len({frozenset(values) for values in state.values()}) <= 1
        for number, values in state.items():
            moments = [value for value in values.values() if isinstance(value, Tensor) and value.dim() > 0]
            fits = fits and all(moment.shape == parameters[number].shape for moment in moments)
        if not fits:
            raise RoboprefError(f"optimiser {prefix!r} of the checkpoint is for other parameters: start training anew")
        # JSON has no tuples and no tensors; Adam's betas and a movable learning rate are such.
        groups = [
            own | {key: like(own.get(key), value) for key, value in group.items()}
            for group, own in zip(groups, ours, strict=True)
        ]
        optimizer.load_state_dict({"state": state, "param_groups": groups})


def like(ours: Any, value: Any) -> Any:
    """A value that JSON held, as the kind of thing that `ours` is."""
    if isinstance(ours, Tensor):
        return torch.full_like(ours, value)
    number = isinstance(ours, int | float) and not isinstance(ours, bool)
    if number != (isinstance(value, int | float) and not isinstance(value, bool)):
        raise TypeError(f"{value!r} where {ours!r} was")
    if isinstance(ours, tuple):
        return tuple(like(*both) for both in zip(ours, value, strict=True))
    return value


def pack_training(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Networks as tensors `NAME/<parameter>` and their optimisers as pack_optimizer gives them, for save_tensors."""
    tensors = {f"{name}/{key}": value for name, module in modules.items() for key, value in module.state_dict().items()}
    meta: dict[str, Any] = {}
    for name, optimizer in optimizers.items():
        packed, packed_meta = pack_optimizer(optimizer, f"optimizer/{name}")
        tensors |= packed
        meta |= packed_meta
    return tensors, meta


def unpack_training(
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    path: Path,
) -> None:
    """Put what pack_training has packed back into networks and optimisers of the same names and shapes, else RoboprefError."""
    for name, module in modules.items():
        prefix = f"{name}/"
        load_strict(module, {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}, path)
    for name, optimizer in optimizers.items():
        unpack_optimizer(optimizer, tensors, meta, f"optimizer/{name}")


def digests(inputs: Mapping[str, str | Path]) -> dict[str, str]:
    """Return the digest of every file or folder that a run reads, for `check_identity`: its result depends on their content."""
    return {f"input {name}": digest(path) for name, path in inputs.items()}


def check_identity(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """RoboprefError when the checkpoint at `path` is of a run that differs in what decides its result."""
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    if changed:
        told = ", ".join(changed[:TOLD]) + (", ..." if len(changed) > TOLD else "")
        raise RoboprefError(f"{path} is from a run with another {told}: delete {path.parent} or choose another out=")


def rng_state(np_rng: np.random.Generator, torch_gen: torch.Generator | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State of `np_rng`, `torch_gen` and torch's global generators (dropout draws from those), for save_tensors."""
    tensors = {"rng.global": torch.get_rng_state()}
    if torch_gen is not None:
        tensors["rng.generator"] = torch_gen.get_state()
    if torch.cuda.is_available():
        tensors |= {f"rng.cuda.{device}": state for device, state in enumerate(torch.cuda.get_rng_state_all())}
    return tensors, {"rng": np_rng.bit_generator.state}


def restore_rng(
    tensors: Mapping[str, Tensor],
    meta: Mapping[str, Any],
    np_rng: np.random.Generator,
    torch_gen: torch.Generator | None = None,
) -> None:
    """Set the generators back to a packed `rng_state`; RoboprefError when that is of another kind of generator."""
    with as_written("the checkpoint's random state", "start anew"):
        kinds = meta["rng"]["bit_generator"], np_rng.bit_generator.state["bit_generator"]
        if kinds[0] != kinds[1] or (torch_gen is not None and "rng.generator" not in tensors):
            raise RoboprefError(f"the checkpoint holds another kind of random state ({kinds[0]}, wanted {kinds[1]}): start anew")
        np_rng.bit_generator.state = meta["rng"]
        torch.set_rng_state(tensors["rng.global"])
        if torch_gen is not None:
            torch_gen.set_state(tensors["rng.generator"])
        if torch.cuda.is_available():
            for device in range(torch.cuda.device_count()):
                if f"rng.cuda.{device}" in tensors:  # absent when the run began on a machine with fewer GPUs
                    torch.cuda.set_rng_state(tensors[f"rng.cuda.{device}"], device)


def resume(
    path: Path,
    kind: str,
    identity: Mapping[str, Any],
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rng: np.random.Generator,
) -> int:
    """Put back the checkpoint of one model (tensors `model.*`), its optimiser (`optimizer`) and random state; its step.

    RoboprefError naming `path` when it is damaged, or of a run of another `identity` or architecture.
    """
    tensors, meta = load_tensors(path, kind)
    with resuming(path):
        check_identity(path, meta["identity"], identity)
        load_strict(model, {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}, path)
        unpack_optimizer(optimizer, tensors, meta, "optimizer")
        restore_rng(tensors, meta, rng)
        return count_of(meta, "step")


def count_of(meta: Mapping[str, Any], name: str) -> int:
    """A whole number from 0 on of a checkpoint's meta; TypeError for anything else, which `resuming` words."""
    value = meta[name]
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"{name} is {value!r}")
    return value


def resuming(path: Path) -> AbstractContextManager[None]:
    """Name the checkpoint at `path` in what is raised about values in it."""
    return as_written(path, "delete it: the run then begins anew")
