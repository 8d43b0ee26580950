"""Checkpoints are strict, pickle-free, and resume to the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from robopref.configs.checkpoint import (
    load_model,
    load_strict,
    load_tensors,
    pack_optimizer,
    restore_rng,
    rng_state,
    save_model,
    save_tensors,
    unpack_optimizer,
)
from robopref.configs.errors import RoboprefError
from robopref.configs.files import write_json
from robopref.preference.hub import find_model


def network(width: int = 8) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Dropout(0.5), nn.Linear(width, 1))


def test_round_trip_keeps_values_types_and_settings(tmp_path: Path) -> None:
    shared = torch.arange(6.0).reshape(2, 3)
    tensors = {"a": shared, "view": shared.T, "count": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}
    save_tensors(tmp_path / "x.safetensors", tensors, {"kind": "test", "step": 7, "betas": (0.9, 0.99)})
    loaded, meta = load_tensors(tmp_path / "x.safetensors", "test")
    assert meta == {"kind": "test", "step": 7, "betas": [0.9, 0.99]}
    assert all(torch.equal(loaded[name], tensors[name]) and loaded[name].dtype == tensors[name].dtype for name in tensors)


def test_the_folder_of_an_unfinished_run_names_the_command_that_continues_it(tmp_path: Path) -> None:
    run = tmp_path / "cpl"
    run.mkdir()
    write_json(run / "run.json", {"stage": "train", "config": {}, "command": "robopref train policy=cpl out=cpl"})
    said = f"{run} holds an unfinished run of `train`; the same command continues it: robopref train policy=cpl out=cpl"
    for find in (
        lambda: load_model(run, "policy"),
        lambda: find_model(run, "policy"),
        lambda: find_model(run, "vlp"),
        lambda: find_model(run, "reward"),
    ):
        with pytest.raises(RoboprefError) as caught:
            find()
        assert str(caught.value) == said
    with FileLock(run / ".lock"), pytest.raises(RoboprefError, match="of `train`, which is still at work: wait for it"):
        load_model(run, "policy")


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(RoboprefError, match=r"no\.safetensors does not exist: train the vlp first"):
        load_tensors(tmp_path / "no.safetensors", "vlp")
    with pytest.raises(RoboprefError, match="is not a folder"):
        load_model(tmp_path / "no", "vlp")
    save_tensors(tmp_path / "x.safetensors", {"a": torch.ones(1)}, {"kind": "policy"})
    with pytest.raises(RoboprefError, match=r"x\.safetensors holds a 'policy', but a 'vlp' is wanted"):
        load_tensors(tmp_path / "x.safetensors", "vlp")
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "y.safetensors")
    with pytest.raises(RoboprefError, match=r"y\.safetensors was not written by robopref"):
        load_tensors(tmp_path / "y.safetensors", "vlp")


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_truncated_file_is_named(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, network(100).state_dict(), {"kind": "vlp"})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(RoboprefError, match=r"x\.safetensors is damaged"):
        load_tensors(path, "vlp")


def test_model_folder_round_trip_and_foreign_config(tmp_path: Path) -> None:
    model = network()
    save_model(tmp_path, "vlp", model.state_dict(), {"width": 8})
    state, config = load_model(tmp_path, "vlp")
    assert config == {"width": 8}
    load_strict(network(), state, tmp_path)
    text = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(text.replace("8", "9"))
    with pytest.raises(RoboprefError, match=r"config\.json is not the config"):
        load_model(tmp_path, "vlp")


@pytest.mark.parametrize(
    ("other", "problem"),
    [
        (network(9), r"'0\.weight' has shape \(9, 4\) in it and \(8, 4\) in the model"),
        (nn.Sequential(nn.Linear(4, 8)), r"'3\.weight' is missing in it \(2 such\)"),
        (network().append(nn.Linear(1, 1)), r"it has '4\.weight', which the model has not"),
    ],
)
def test_other_architecture_is_an_error_that_changes_nothing(other: nn.Module, problem: str) -> None:
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RoboprefError, match=f"run/model is of another architecture: {problem}"):
        load_strict(model, other.state_dict(), "run/model")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Training:
    """A run that draws from every generator: data from numpy, noise from one of torch, dropout from the global one."""

    def __init__(self) -> None:
        torch.manual_seed(1)
        self.model = network()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-2, betas=(0.8, 0.9))
        self.rng = np.random.default_rng(2)
        self.noise = torch.Generator().manual_seed(3)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            x = torch.from_numpy(self.rng.normal(size=(16, 4))).float() + torch.randn(16, 4, generator=self.noise)
            self.optimizer.zero_grad()
            self.model(x).square().mean().backward()
            self.optimizer.step()

    def save(self, path: Path) -> None:
        optimizer, optimizer_meta = pack_optimizer(self.optimizer, "adam")
        random, random_meta = rng_state(self.rng, self.noise)
        weights = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        save_tensors(path, weights | optimizer | random, {"kind": "state", **optimizer_meta, **random_meta})

    def load(self, path: Path) -> None:
        tensors, meta = load_tensors(path, "state")
        weights = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
        load_strict(self.model, weights, path)
        unpack_optimizer(self.optimizer, tensors, meta, "adam")
        restore_rng(tensors, meta, self.rng, self.noise)

    def result(self) -> dict[str, Tensor]:
        moments, _ = pack_optimizer(self.optimizer, "adam")
        return {
            **self.model.state_dict(),
            **moments,
            "next": torch.rand(3, generator=self.noise),
            "drop": torch.rand(3),
        }


def test_resumed_training_equals_uninterrupted_bit_for_bit(tmp_path: Path) -> None:
    whole = Training()
    whole.run(5)
    whole.save(tmp_path / "state.safetensors")
    whole.run(5)
    expected = whole.result()

    resumed = Training()
    resumed.optimizer.param_groups[0]["lr"] = 1.0  # the checkpoint's value must win
    torch.manual_seed(99)
    resumed.load(tmp_path / "state.safetensors")
    resumed.run(5)
    found = resumed.result()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert resumed.optimizer.param_groups[0]["betas"] == (0.8, 0.9)


def test_foreign_optimizer_and_random_state_are_refused() -> None:
    training = Training()
    training.run(1)
    tensors, meta = pack_optimizer(training.optimizer, "adam")
    with pytest.raises(RoboprefError, match="for other parameters"):
        unpack_optimizer(torch.optim.AdamW(network(9).parameters()), tensors, meta, "adam")
    with pytest.raises(RoboprefError, match="no optimiser 'critic'"):
        unpack_optimizer(training.optimizer, tensors, meta, "critic")
    tensors, meta = rng_state(np.random.default_rng(0))
    with pytest.raises(RoboprefError, match="another kind of random state"):
        restore_rng(tensors, meta, np.random.Generator(np.random.MT19937(0)))
    with pytest.raises(RoboprefError, match="another kind of random state"):
        restore_rng(tensors, meta, np.random.default_rng(0), torch.Generator())
