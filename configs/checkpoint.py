"""Checkpoints without pickle: tensors in one safetensors file, everything else as JSON in that file's header.

One file means that weights, optimiser, random state and settings can never be of different steps.  Loading is strict:
a missing, damaged or foreign file is an error that says which and what to do, never a model with some random weights.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from .errors import RoboprefError
from .files import atomic_file, digest, plain, read_json, write_json
from .finite import check_weights
from .run_folder import refuse_unfinished

_HEADER = "robopref"
TOLD = 3  # differences that an error names


def save_tensors(path: str | Path, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
    """Write `tensors` and `meta` (JSON-like; its "kind" is what load_tensors asks for) to one file, atomically."""
    if "kind" not in meta:
        raise ValueError("meta needs a 'kind'")
    # Clones, because safetensors refuses tensors that share memory (tied weights, views).
    copies = {name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}
    with atomic_file(path) as temp:
        save_file(copies, temp, metadata={_HEADER: json.dumps(plain(meta))})


def load_tensors(path: str | Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors on the CPU, meta) of a file of this kind; RoboprefError when missing, damaged or of another kind."""
    path = Path(path)
    if not path.is_file():
        raise RoboprefError(f"{path} does not exist: train the {kind} first, or correct the path")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise RoboprefError(f"{path} is damaged or cut short ({error}): delete it and run its stage again") from error
    if _HEADER not in header:
        raise RoboprefError(f"{path} was not written by robopref: a {kind} checkpoint is wanted")
    meta = json.loads(header[_HEADER])
    if meta["kind"] != kind:
        raise RoboprefError(f"{path} holds a {meta['kind']!r}, but a {kind!r} is wanted: give the path of one")
    return tensors, meta


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
    tensors, meta = load_tensors(folder / "model.safetensors", kind)
    if read_json(folder / "config.json") != meta:
        raise RoboprefError(
            f"{folder / 'config.json'} is not the config that {folder / 'model.safetensors'} was trained with "
            "(edited, or from another run): train again, or put the original back"
        )
    return tensors, meta["config"]


def load_strict(module: nn.Module, state_dict: Mapping[str, Tensor], where: str | Path) -> None:
    """Load exactly these keys and shapes into `module`; else RoboprefError naming `where` and the first mismatch."""
    ours = module.state_dict()
    missing = [name for name in ours if name not in state_dict]
    unknown = [name for name in state_dict if name not in ours]
    shapes = [name for name in ours if name in state_dict and ours[name].shape != state_dict[name].shape]
    if missing:
        problem = f"{missing[0]!r} is missing in it ({len(missing)} such)"
    elif unknown:
        problem = f"it has {unknown[0]!r}, which the model has not ({len(unknown)} such)"
    elif shapes:
        found, wanted = tuple(state_dict[shapes[0]].shape), tuple(ours[shapes[0]].shape)
        problem = f"{shapes[0]!r} has shape {found} in it and {wanted} in the model ({len(shapes)} such)"
    else:
        module.load_state_dict(state_dict)
        return
    raise RoboprefError(f"{where} is of another architecture: {problem}; use the settings it was trained with, or train anew")


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
    state: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in meta[prefix]["scalars"].items()}
    for name, tensor in tensors.items():
        if name.startswith(prefix + "."):
            index, key = name.removeprefix(prefix + ".").split(".", 1)
            state[int(index)][key] = tensor
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    groups = meta[prefix]["groups"]
    fits = [len(group["params"]) for group in groups] == [len(group["params"]) for group in optimizer.param_groups]
    for number, values in state.items():
        moments = [value for value in values.values() if isinstance(value, Tensor) and value.dim() > 0]
        fits = fits and all(moment.shape == parameters[number].shape for moment in moments)
    if not fits:
        raise RoboprefError(f"optimiser {prefix!r} of the checkpoint is for other parameters: start training anew")
    # JSON has no tuples and no tensors; Adam's betas and a movable learning rate are such.
    groups = [
        {key: like(ours.get(key), value) for key, value in group.items()}
        for group, ours in zip(groups, optimizer.param_groups, strict=True)
    ]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def like(ours: Any, value: Any) -> Any:
    """A value that JSON held, as the kind of thing that `ours` is."""
    if isinstance(ours, Tensor):
        return torch.full_like(ours, value)
    return tuple(value) if isinstance(ours, tuple) else value


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
