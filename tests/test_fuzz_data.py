"""Damaged data files are refused in one line or read as they were (fuzz_data.py); faults that were found have names here."""

from __future__ import annotations

import json
from pathlib import Path

import fuzz_data
import h5py
import numpy as np
import pytest
from fuzz_data import READERS
from fuzzing import DIGITS, campaign

from robopref.configs.arrays import read_array, sign
from robopref.configs.errors import RoboprefError
from robopref.configs.files import SKIP_DIGESTS
from robopref.configs.rows import read_named
from robopref.configs.run import MetricsLogger
from robopref.datasets.d4rl import load_offline
from robopref.embodied.fields import described
from robopref.policies.experience import check_digest
from robopref.preference.pairs_file import read_pairs

COUNT = 200
SLOW = {
    "results": 6,
    "videos": 40,
    "pairs in CSV": 80,
    "pairs in Parquet": 80,
    "D4RL files": 120,
    "episodes without digests": 120,
}
"""Readers of which a copy takes longer than milliseconds, and their copies."""


@pytest.mark.parametrize("name", READERS)
def test_damaged_files_are_refused_in_one_line_or_read_as_they_were(name: str, tmp_path: Path) -> None:
    tally = campaign(name, READERS[name], SLOW.get(name, COUNT), 0, tmp_path)
    assert not tally.faults, "\n".join(tally.faults[:3])
    assert tally.counts["refused"] or name == "results"  # a report tells of what is damaged, and is made all the same


CHANGED = {
    "episodes": "drawer-close/main_data.hdf5",
    "frame banks": "drawer-close/frames.npy",
    "cached features": "features/*.npy",
    "cached scores": ".scores-0/000000007.npy",
    "preferences": "labels.parquet",
}


@pytest.mark.parametrize("name", CHANGED)
def test_one_changed_bit_is_told_and_read_all_the_same_if_asked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    READERS[name].make(tmp_path)
    (path,) = tmp_path.glob(CHANGED[name])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RoboprefError, match=r"have changed since") as error:
        READERS[name].read(tmp_path)
    assert path.name in str(error.value) and "\n" not in str(error.value)
    if name not in ("episodes", "preferences"):  # whose formats may find it themselves
        monkeypatch.setenv(SKIP_DIGESTS, "1")
        READERS[name].read(tmp_path)


@pytest.mark.parametrize("change", ["digests", "seal", "created", "text"])
def test_a_damaged_manifest_is_no_way_around_its_digests(change: str, tmp_path: Path) -> None:
    READERS["episodes"].make(tmp_path)
    path = tmp_path / "drawer-close" / "manifest.json"
    manifest = json.loads(path.read_text())
    if change == "created":
        manifest["created"] += "1"
    elif change != "text":
        del manifest[change]
    path.write_text(json.dumps(manifest) if change != "text" else "{")
    with pytest.raises(RoboprefError, match=r"manifest.json") as error:
        READERS["episodes"].read(tmp_path)
    assert "\n" not in str(error.value)


def test_a_dataset_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    READERS["episodes"].make(tmp_path)
    path = tmp_path / "drawer-close" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["digests"], manifest["seal"]
    path.write_text(json.dumps(manifest))
    READERS["episodes"].read(tmp_path)


LINKS = {
    "nowhere": (h5py.SoftLink("/nowhere"), "no rewards in it"),
    "itself": (h5py.SoftLink("/rewards"), "damaged or not HDF5"),
    "outside": (h5py.ExternalLink("nowhere.hdf5", "/x"), "rewards leads to another file, which is not read"),
}


@pytest.mark.parametrize("kind", LINKS)
def test_links_of_hdf5_that_lead_nowhere(kind: str, tmp_path: Path) -> None:
    fuzz_data.make_flat(tmp_path)
    link, told = LINKS[kind]
    path = tmp_path / "hopper-medium-v2.hdf5"
    with h5py.File(path, "r+") as file:
        del file["rewards"]
        file["rewards"] = link
    with pytest.raises(RoboprefError, match=told) as error:
        load_offline(str(path))
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["link", "link to a link", "raw file", "virtual"])
def test_numbers_in_another_file_are_not_read(kind: str, tmp_path: Path) -> None:
    fuzz_data.make_flat(tmp_path)
    path, other = tmp_path / "hopper-medium-v2.hdf5", tmp_path / "other.hdf5"
    with h5py.File(path, "r+") as file, h5py.File(other, "w") as elsewhere:
        rewards = file["rewards"][()]
        elsewhere["rewards"] = rewards
        del file["rewards"]
        if kind == "raw file":
            (tmp_path / "secret").write_bytes(rewards.tobytes())
            file.create_dataset("rewards", rewards.shape, rewards.dtype, external=[(str(tmp_path / "secret"), 0, rewards.nbytes)])
        elif kind == "virtual":
            layout = h5py.VirtualLayout(rewards.shape, rewards.dtype)
            layout[:] = h5py.VirtualSource(str(other), "rewards", rewards.shape)
            file.create_virtual_dataset("rewards", layout)
        else:
            file["rewards" if kind == "link" else "between"] = h5py.ExternalLink(str(other), "/rewards")
            if kind == "link to a link":
                file["rewards"] = h5py.SoftLink("/between")
    with pytest.raises(RoboprefError, match="rewards leads to another file, which is not read; copy it into this one"):
        load_offline(str(path))


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_rows_that_a_file_cannot_hold_are_refused_before_memory_is_asked_for(compression: str | None, tmp_path: Path) -> None:
    fuzz_data.make_flat(tmp_path)
    path = tmp_path / "hopper-medium-v2.hdf5"
    with h5py.File(path, "r+") as file:
        del file["observations"]
        file.create_dataset("observations", (2**40, 11), "f4", chunks=(64, 11), compression=compression)
    with pytest.raises(RoboprefError, match=r"observations claims 1099511627776 rows, 48378511622144 bytes, and the file of"):
        load_offline(str(path))


@pytest.mark.parametrize(
    ("key", "value", "told"),
    [
        ("metadata/ref_min_score", np.zeros(3), "its reference returns"),
        ("metadata/ref_min_score", h5py.Empty("f4"), "its reference returns"),
        ("metadata/ref_max_score", -20.0, "no numbers that rise"),
    ],
)
def test_reference_returns_that_are_none(key: str, value: object, told: str, tmp_path: Path) -> None:
    fuzz_data.make_flat(tmp_path)
    path = tmp_path / "hopper-medium-v2.hdf5"
    with h5py.File(path, "r+") as file:
        del file[key]
        file[key] = value
    with pytest.raises(RoboprefError, match=told):
        load_offline(str(path))


def header(told: str, version: bytes = b"\1\0") -> bytes:
    size = len(told).to_bytes(2 if version == b"\1\0" else 4, "little")
    return b"\x93NUMPY" + version + size + told.encode()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776, 3)}"), "claims 1099511627776 rows"),
        (header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 3)}"), "a shape that no array has"),
        (header("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}"), "holds objects"),
        (header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({DIGITS},)}}"), "its header is damaged"),
        (header("x" * 20_000), "its header is damaged: it claims to be 20000 bytes long"),
        (header("(" * 5000), "its header is damaged"),
        (b"\x93NUMPY\2\0\xff\xff\xff\xff{}", "it claims to be 4294967295 bytes long"),
        (b"\x93NUMPY\xff\xff", "its header is damaged"),
        (b"PK\3\4", "its header is damaged"),
        (b"", "its header is damaged"),
    ],
)
@pytest.mark.parametrize("mode", [None, "r"])
def test_headers_of_arrays_that_are_none(data: bytes, told: str, mode: None, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=told) as error:
        read_array(path, mode)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


@pytest.mark.parametrize("mode", [None, "r"])
def test_a_signed_array_is_read_and_a_changed_one_is_not(mode: None, tmp_path: Path) -> None:
    path = tmp_path / "x.npy"
    np.save(path, np.arange(12.0).reshape(3, 4))
    sign(path)
    np.testing.assert_array_equal(read_array(path, mode), np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(np.load(path), np.arange(12.0).reshape(3, 4))  # others need not know of it
    whole = path.read_bytes()
    for place in (60, 150, len(whole) - 10):  # header, numbers, signature
        data = bytearray(whole)
        data[place] ^= 1
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"changed|header"):
            read_array(path, mode)
    path.write_bytes(whole[:-20])
    with pytest.raises(ValueError, match=r"its header claims 3 rows, 96 bytes; 148 are there"):
        read_array(path, mode)


def test_a_checkpoint_knows_every_row_of_its_experience(tmp_path: Path) -> None:
    fuzz_data.make_experience(tmp_path)
    memory = fuzz_data.memory(tmp_path)
    memory.added = 22
    kept = memory.digest()
    memory.rows[7, -5 - 3 + 1] = 9.0  # a reward that is not in use changes between checkpoints
    memory.rows[23] = 1.0  # and so do rows that are not remembered yet
    check_digest(memory.digest(), kept, memory.path)
    memory.rows[11, 2] += 1.0
    with pytest.raises(RoboprefError, match=r"experience.npy: its bytes have changed since the checkpoint of this run"):
        check_digest(memory.digest(), kept, memory.path)


@pytest.mark.parametrize("text", ["a" * 200_000, f"label\n{DIGITS}", "video_a,video_b\n\0,\0", '"a\n', "\ufeff", ";"])
def test_lists_of_pairs_that_are_none(text: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RoboprefError) as error:
        read_pairs(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


@pytest.mark.parametrize("data", [b"", b"\xff\xfe", b'a,"b\n1,2', b"\0" * 9])
def test_tables_that_are_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(data)
    try:
        read_named(path)
    except RoboprefError as error:
        assert str(path) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("step", ["9" * 5000, "x" * 200_000])
def test_metrics_with_a_step_that_is_no_number(step: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(f"step,losses/x\n{step},1.0\n")
    with pytest.raises(RoboprefError, match=r"metrics.csv, line \d: no row of metrics"):
        MetricsLogger(tmp_path, resume_step=5)


@pytest.mark.parametrize("value", [DIGITS, "[" * 3000, "!!timestamp x", "&a [*a]", '"\\0"', ".nan"])
def test_fields_that_yaml_cannot_be_read_for(value: str, tmp_path: Path) -> None:
    path = tmp_path / "fields.yaml"
    path.write_text(f"mine/world:\n  task: {value}\n")
    with pytest.raises(RoboprefError) as error:
        described("mine/world", path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
