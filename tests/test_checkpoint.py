"""Checkpoints are strict, pickle-free, and resume to the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import save_file
from torch import Tensor, nn

from robopref.configs.checkpoint import (
    built_like,
    check_sizes,
    load_model,
    load_strict,
    load_tensors,
    pack_optimizer,
    restore_rng,
    resuming,
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


def model_with_one_bit_flipped(folder: Path, place: int) -> Path:
    """A file of ours in which one bit of a weight is another."""
    path = folder / "x.safetensors"
    save_tensors(path, network().state_dict(), {"kind": "vlp", "step": 7, "rate": 0.25})
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)
    return path


def test_one_changed_bit_of_a_weight_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = model_with_one_bit_flipped(tmp_path, -9)
    with pytest.raises(RoboprefError) as caught:
        load_tensors(path, "vlp")
    assert str(caught.value) == (
        f"{path} has changed since it was written (its digest says so): put the original back, or delete it and run its stage "
        "again; `robopref --skip-digests COMMAND ...` reads it all the same"
    )
    monkeypatch.setenv("ROBOPREF_SKIP_DIGESTS", "1")
    changed, meta = load_tensors(path, "vlp")
    assert not all(torch.equal(tensor, changed[name]) for name, tensor in network().state_dict().items())
    assert meta == {"kind": "vlp", "step": 7, "rate": 0.25}, "the digest is no setting"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"0.25", b"0.35"),  # in the meta
        (rb"\"step\": 7", rb"\"stop\": 7"),
        (b'"0.bias":{"dtype":"F32"', b'"0.bias":{"dtype":"I32"'),
        (b'"shape":[8,4]', b'"shape":[4,8]'),
        (b'"3.bias"', b'"4.bias"'),
    ],
)
def test_a_changed_header_is_noticed(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors(path, network().state_dict(), {"kind": "vlp", "step": 7, "rate": 0.25})
    data = path.read_bytes()
    assert data.count(before) == 1
    path.write_bytes(data.replace(before, after))
    with pytest.raises(RoboprefError, match=r"x\.safetensors has changed since it was written"):
        load_tensors(path, "vlp")


def test_a_file_without_a_digest_is_refused_with_the_way_around(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path, {"robopref": '{"kind": "vlp"}'})
    with pytest.raises(RoboprefError, match=r"x\.safetensors holds no digest: .* `robopref --skip-digests COMMAND \.\.\.` reads"):
        load_tensors(path, "vlp")
    monkeypatch.setenv("ROBOPREF_SKIP_DIGESTS", "1")
    assert load_tensors(path, "vlp")[1] == {"kind": "vlp"}


def test_equal_contents_are_equal_bytes_in_any_order(tmp_path: Path) -> None:
    state = network().state_dict()
    for name, tensors in (("a", state), ("b", dict(reversed(state.items())))):
        save_tensors(tmp_path / name, tensors, {"kind": "vlp", "steps": [1, 2]})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    empty = {"none": torch.zeros(0, 3), "one": torch.tensor(True), "brain": torch.ones(2, 2, dtype=torch.bfloat16).T}
    save_tensors(tmp_path / "c", empty, {"kind": "vlp"})
    assert load_tensors(tmp_path / "c", "vlp")[0].keys() == empty.keys()


@pytest.mark.parametrize(
    "header",
    [
        "[]",
        "null",
        "{",
        '{"kind": 3}',
        '{"kind": "vlp", "kind": "vlp"}',
        '{"kind": "vlp", "step": NaN}',
        '{"kind": "vlp", "step": 1e999}',
        '{"kind": "vlp", "step": ' + "9" * 5000 + "}",
        '{"kind": "vlp", "step": ' + "[" * 3000 + "]" * 3000 + "}",
        '{"kind": "vlp", "step": "\\ud800"}',
        '{"kind": "vlp", "step": "\\u0000"}',
    ],
)
@pytest.mark.parametrize("skip", ["0", "1"])
def test_a_header_of_anything_else_is_one_line(tmp_path: Path, header: str, skip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOPREF_SKIP_DIGESTS", skip)
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1)}, path, {"robopref": header})
    with pytest.raises(RoboprefError) as caught:
        load_tensors(path, "vlp")
    assert str(caught.value).startswith(f"{path} is damaged (its header") and "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("wrong", [None, "x", -1, [], {}, [[1]], 1e300, 2**127])
@pytest.mark.parametrize("place", ["scalars", "groups", "groups 0", "lr", "betas", "params", "rng", "rng state"])
def test_values_of_another_kind_in_a_checkpoint_are_one_line(tmp_path: Path, place: str, wrong: object) -> None:
    training = Training()
    training.run(1)
    tensors, meta = pack_optimizer(training.optimizer, "adam")
    random, random_meta = rng_state(training.rng)
    tensors, meta = tensors | random, meta | random_meta
    adam = meta["adam"]
    if place in adam:
        adam[place] = wrong
    elif place == "groups 0":
        adam["groups"][0] = wrong
    elif place == "rng":
        meta["rng"] = wrong
    elif place == "rng state":
        meta["rng"]["state"] = wrong
    else:
        adam["groups"][0][place] = wrong
    path = tmp_path / "checkpoint.safetensors"
    try:
        with resuming(path):
            unpack_optimizer(training.optimizer, tensors, meta, "adam")
            restore_rng(tensors, meta, training.rng)
    except RoboprefError as error:
        assert str(error).startswith(f"{path}") and "\n" not in str(error) and "anew" in str(error)
        return
    assert (place in ("lr", "betas") and wrong in (-1, 1e300, 2**127)) or (place == "scalars" and wrong == {}), (
        "read all the same"
    )


def test_a_network_that_its_weights_are_not_of_takes_no_memory(tmp_path: Path) -> None:
    with pytest.raises(RoboprefError, match=r"run is of another architecture: '0\.weight' has shape \(8, 4\) in it and \(1000"):
        built_like(lambda: network(10**12), network().state_dict(), "run")
    state = network().state_dict()
    torch.manual_seed(3)
    network()
    expected = torch.rand(1)
    torch.manual_seed(3)
    built_like(network, state, "run")
    assert torch.equal(torch.rand(1), expected), "the one without memory has drawn numbers"
    with pytest.raises(RoboprefError, match=r"run is of another architecture: its settings say 2 members of \[3, 1000000, 1\]"):
        check_sizes(2, [3, 10**6, 1], network().state_dict(), "run")


def test_a_link_out_of_a_shared_model_is_refused_and_one_of_an_own_run_is_not(tmp_path: Path) -> None:
    model = tmp_path / "model"
    save_model(tmp_path / "elsewhere", "vlp", network().state_dict(), {"width": 8})
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        (model / name).symlink_to(tmp_path / "elsewhere" / name)
    with pytest.raises(RoboprefError, match=r"model\.safetensors leads out of the folder of a shared model, to .*elsewhere"):
        load_model(model, "vlp")
    write_json(model / "run.json", {"stage": "train-vlp", "config": {}})
    assert load_model(model, "vlp")[1] == {"width": 8}
    snapshot = tmp_path / "hub" / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (tmp_path / "hub" / "blobs").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "elsewhere" / name).rename(tmp_path / "hub" / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
    assert load_model(snapshot, "vlp")[1] == {"width": 8}
