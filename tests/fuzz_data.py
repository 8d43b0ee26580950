"""Readers of data for tests/fuzzing.py: each with good files as a command would leave or find them, and damages of their formats.

Read as the commands read them, in this process; what is given back is compared, where a digest holds it, to the bit.
"""

from __future__ import annotations

import ast
import atexit
import io
import json
import random
import shutil
import struct
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import offline_toys
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import small_run
from films import film
from fuzzing import DIGITS, Damage, Reader, damage_json, wrong_json
from torch import Tensor, zeros

from robopref.configs.files import digest, write_json
from robopref.configs.rows import read_rows
from robopref.configs.run import MetricsLogger, write_manifest
from robopref.datasets import d4rl, download
from robopref.datasets.clips import FrameBank, Segment, render_bank
from robopref.datasets.d4rl import load_offline, write_d4rl, write_minari
from robopref.datasets.episodes import EpisodeStore, write_episodes
from robopref.datasets.preferences import Origin, check_origin, read_origin, read_preferences, side_folder, write_preferences
from robopref.datasets.videos import video_clip
from robopref.embodied.fields import built_in, described
from robopref.embodied.rollout import Episode
from robopref.policies import bench
from robopref.policies.experience import ExperienceMemory
from robopref.policies.results import gather
from robopref.preference import compare, leave_out
from robopref.preference.features import cached_features
from robopref.preference.labellers import HumanFile
from robopref.preference.pairs_file import listed_segments, read_pairs
from robopref.preference.scoring import score_in_chunks, true_returns

ENV = "metaworld/drawer-close"


# ---------------------------------------------------------------------------------------------------------------- damages


def in_hdf5(data: bytes, rng: random.Random) -> bytes:
    """An object or an attribute of an HDF5 file is another, is a link that leads nowhere, or is missing."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file.hdf5")
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            name = rng.choice(names)
            text = file[name].asstr()[()] if _is_text(file[name]) else ""
            if rng.random() < 0.2:
                _attribute(file[name], rng)
            elif text and rng.random() < 0.7:
                del file[name]
                file[name] = _other_text(text, rng)
            else:
                old = np.asarray(file[name][()]) if isinstance(file[name], h5py.Dataset) else np.zeros((3, 2))
                if old.dtype.kind not in "fiub" or not old.size:
                    old = np.zeros((3, 2))
                del file[name]
                rng.choice(OBJECTS)(file, name, old)
        return path.read_bytes()


def _is_text(item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and not item.shape and h5py.check_string_dtype(item.dtype) is not None


def _other_text(text: str, rng: random.Random) -> Any:
    if text.startswith("{"):
        return damage_json(text, rng).encode("utf-8", "surrogatepass").replace(b"\0", b"")
    return rng.choice(
        ("", "a\nb", "mujoco/x", "mujoco/Hopper-v99", "../x", "a/b/c", "é", b"\xff", "ALE/Pong-v5", "module:X-v0", DIGITS)
    )


def _attribute(item: Any, rng: random.Random) -> None:
    names = [*item.attrs, "seed"]
    name = rng.choice(names)
    with suppress(KeyError):
        del item.attrs[name]
    kinds = (
        None,
        "x",
        np.bytes_(b"\xff\xfe"),
        -1,
        2**63 - 1,
        np.nan,
        [1, 2],
        [[]],
        h5py.Empty("f8"),
        np.zeros((2, 2)),
        "a\nb\x00",
    )
    kind = rng.choice(kinds)
    if kind is not None:
        with suppress(ValueError, TypeError):
            item.attrs[name] = kind


def _dataset(make: Callable[[np.ndarray], Any], **how: Any) -> Callable[[h5py.File, str, np.ndarray], None]:
    def put(file: h5py.File, name: str, old: np.ndarray) -> None:
        file.create_dataset(name, data=make(old), **how)

    return put


def _link(make: Callable[[str], Any]) -> Callable[[h5py.File, str, np.ndarray], None]:
    def put(file: h5py.File, name: str, old: np.ndarray) -> None:
        file[name] = make(name)

    return put


def _huge(file: h5py.File, name: str, old: np.ndarray) -> None:
    file.create_dataset(name, (2**40, *old.shape[1:]), old.dtype, chunks=(64, *old.shape[1:]))


def _huge_packed(file: h5py.File, name: str, old: np.ndarray) -> None:
    file.create_dataset(name, (2**40, *old.shape[1:]), old.dtype, chunks=(64, *old.shape[1:]), compression="gzip")


def _rare_filter(file: h5py.File, name: str, old: np.ndarray) -> None:
    """A filter whose plugin is not there; optional when it is written, and needed when it is read."""
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(old.shape or (1,))
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))  # zstandard
    space = h5py.h5s.create_simple(old.shape or (1,))
    dataset = h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(old.dtype), space, plist)
    dataset.write_direct_chunk((0,) * max(old.ndim, 1), old.tobytes(), 0)


def _group_of_itself(file: h5py.File, name: str, old: np.ndarray) -> None:
    group = file.create_group(name)
    group["again"] = group


def _enum(old: np.ndarray) -> Any:
    return np.zeros(old.shape, h5py.enum_dtype({"NO": 0, "YES": 1}, np.uint8))


OBJECTS: tuple[Callable[[h5py.File, str, np.ndarray], None], ...] = (
    lambda file, name, old: None,  # it is missing
    lambda file, name, old: file.create_group(name),
    _group_of_itself,
    _link(lambda name: h5py.SoftLink("/nowhere")),
    _link(lambda name: h5py.SoftLink(f"/{name}")),
    _link(lambda name: h5py.ExternalLink("nowhere.hdf5", "/x")),
    _link(lambda name: h5py.ExternalLink("/etc/passwd", "/x")),
    _dataset(lambda old: ["wörd"] * max(len(np.atleast_1d(old)), 1), dtype=h5py.string_dtype()),
    _dataset(lambda old: np.array([b"\xff\xfe"] * max(len(np.atleast_1d(old)), 1), object), dtype=h5py.string_dtype()),
    _dataset(lambda old: np.array([np.arange(3.0), np.arange(2.0)], object), dtype=h5py.vlen_dtype(np.float64)),
    _dataset(lambda old: np.zeros(max(len(np.atleast_1d(old)), 1), [("a", "f4"), ("b", "i8")])),
    _dataset(lambda old: np.zeros(max(len(np.atleast_1d(old)), 1), "V7")),
    lambda file, name, old: file.create_dataset(name, data=np.array([file.ref] * 3, h5py.ref_dtype)),
    _dataset(_enum),
    _dataset(lambda old: old.astype(np.float16)),
    _dataset(lambda old: old.astype(np.complex64)),
    _dataset(lambda old: old.astype(">f8")),
    _dataset(lambda old: old.astype("S5")),
    _dataset(lambda old: np.full(old.shape, np.nan, np.float32)),
    _dataset(lambda old: np.full(old.shape, -np.inf)),
    _dataset(lambda old: np.full(old.shape, 1e300)),
    _dataset(lambda old: np.full(old.shape, 2**63 - 1, np.int64)),
    _dataset(lambda old: old.reshape(-1)[0]),
    _dataset(lambda old: old[None]),
    _dataset(lambda old: old.reshape(-1)),
    _dataset(lambda old: old[..., None, None]),
    _dataset(lambda old: old[:0] if old.ndim else old),
    _dataset(lambda old: old[..., :0] if old.ndim else old),
    _dataset(lambda old: old[:-1] if old.ndim else old),
    _dataset(lambda old: h5py.Empty("f4")),
    lambda file, name, old: _huge(file, name, np.atleast_1d(old)),
    lambda file, name, old: _huge_packed(file, name, np.atleast_1d(old)),
    lambda file, name, old: _rare_filter(file, name, np.atleast_1d(old)),
)


def in_npy(data: bytes, rng: random.Random) -> bytes:
    """The header of a .npy file says something else."""
    if data[:6] != b"\x93NUMPY":
        return data[: len(data) // 2]
    length = struct.unpack("<H", data[8:10])[0]
    header, body = data[10 : 10 + length].decode("latin1"), data[10 + length :]
    told = ast.literal_eval(header)
    shape = told["shape"]
    huge = rng.choice((2**40, 2**62, 2**64, -1, 0, 10**30, int(DIGITS[:4000]), len(body)))
    change: dict[str, Any] = rng.choice(
        (
            {"shape": (huge, *shape[1:])},
            {"shape": (*shape[:-1], huge)},
            {"shape": shape[::-1]},
            {"shape": (*shape, 1)},
            {"shape": shape[:-1]},
            {"shape": ()},
            {"shape": tuple(float(size) for size in shape)},
            {"shape": (True, *shape[1:])},
            {"shape": ("1",)},
            {"shape": None},
            {"descr": rng.choice(("|O", "<f8", ">f4", "<f2", "|V0", "|S0", "<U9", "<M8[s]", "<c16", "|b1", "x", "", None, ()))},
            {"descr": [("a", "<f4"), ("b", "|O")]},
            {"descr": [("a", "<f4", (2**31,))]},
            {"fortran_order": True},
            {"fortran_order": "no"},
            {"more": 1},
        )
    )
    text = repr(told | change)
    text = rng.choice(
        (text, text, text, text[:-3], text.replace("'shape'", "'shapes'"), "(" * 5000, "{" + "'a':1," * 3000, DIGITS)
    )
    said = text.encode("latin1", "replace") + b"\n"
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\4\0", b"\xff\xff"))
    size = struct.pack("<H", len(said) % 2**16) if version == b"\1\0" else struct.pack("<I", rng.choice((len(said), 2**32 - 1)))
    return data[:6] + version + size + said + body


def in_parquet(data: bytes, rng: random.Random) -> bytes:
    """A table with a column that is missing, of another type, nested, or twice; or with other metadata."""
    sink = io.BytesIO()
    pq.write_table(_other_table(pq.read_table(pa.BufferReader(data)), rng), sink)
    return sink.getvalue()


def _other_table(table: pa.Table, rng: random.Random) -> pa.Table:
    about = dict(table.schema.metadata or {})
    number = rng.randrange(table.num_columns)
    name, rows = table.column_names[number], table.num_rows
    how = rng.choice(("gone", "null", "column", "column", "column", "twice", "empty", "metadata", "metadata", "renamed"))
    if how == "gone":
        table = table.remove_column(number)
    elif how == "twice":
        table = table.append_column(name, table.column(number))
    elif how == "renamed":
        table = table.rename_columns(
            [rng.choice(("", "a\nb", "\0", other)) if other == name else other for other in table.column_names]
        )
    elif how == "empty":
        table = table.slice(0, 0)
    elif how == "metadata":
        word = rng.choice([b"robopref", b"pandas", *about])
        old = about.get(word, b"{}")
        with suppress(ValueError):
            old = damage_json(old.decode(), rng).encode("utf-8", "surrogatepass")
        about[word] = rng.choice((old, old, b"", b"\xff", b"null", b"{", b"[]", b'{"labeller": 1}'))
    else:
        column = pa.nulls(rows) if how == "null" else rng.choice(COLUMNS)(rows)
        table = table.set_column(number, name, column)
    return table.replace_schema_metadata(about)


COLUMNS: tuple[Callable[[int], pa.Array], ...] = (
    lambda rows: pa.array([[1, 2]] * rows),
    lambda rows: pa.array([{"a": 1}] * rows),
    lambda rows: pa.array([b"\xff"] * rows),
    lambda rows: pa.array(["x"] * rows),
    lambda rows: pa.array(["1"] * rows),
    lambda rows: pa.array([DIGITS] * rows),
    lambda rows: pa.array([float("nan")] * rows),
    lambda rows: pa.array([1e300] * rows),
    lambda rows: pa.array([-1] * rows),
    lambda rows: pa.array([2**63 - 1] * rows),
    lambda rows: pa.array([2**63] * rows, pa.uint64()),
    lambda rows: pa.array([True] * rows),
    lambda rows: pa.array([10**12] * rows, pa.timestamp("ns")),
    lambda rows: pa.array([2**50] * rows, pa.timestamp("s")),
    lambda rows: pa.array([1] * rows, pa.duration("s")),
    lambda rows: pa.array(["a"] * rows).dictionary_encode(),
    lambda rows: pa.array([1] * rows, pa.decimal128(38, 0)),
    lambda rows: pa.array([1.5] * rows, pa.float16()),
    lambda rows: pa.array(["a\0b\n"] * rows),
)


def in_csv(data: bytes, rng: random.Random) -> bytes:
    """A cell, a column's name, a row or the separator of a CSV is another."""
    lines = [line.split(",") for line in data.decode("utf-8", "replace").splitlines()]
    line = rng.randrange(len(lines))
    cell = rng.randrange(len(lines[line]))
    how = rng.choice(("cell", "cell", "cell", "gone", "more", "row", "separator", "name"))
    if how == "cell":
        lines[line][cell] = rng.choice(
            ("", "x", "-1", "1e999", "nan", "inf", DIGITS, "-" + DIGITS, "0." + DIGITS, str(2**63), str(2**40), '"', '"a\nb',
             "\0", "\ud800", "true", "1.5", "é" * 3, "a" * 200_000, " 1", "0x10", "1_000", "[1]", "\r")
        )  # fmt: skip
    elif how == "gone":
        lines = [[*cells[:cell], *cells[cell + 1 :]] for cells in lines]
    elif how == "more":
        lines[line].append("1")
    elif how == "row":
        lines[line] = rng.choice(([], [""], ["<html>"], lines[line] * 2))
    elif how == "name":
        lines[0][cell % len(lines[0])] = rng.choice(("", "x", lines[0][0], "a\tb", "\0", "\ufeff" + lines[0][0]))
    separator = rng.choice((";", "\t", "|")) if how == "separator" else ","
    return "\n".join(separator.join(cells) for cells in lines).encode("utf-8", "surrogatepass")


def in_yaml(data: bytes, rng: random.Random) -> bytes:
    """A line of a YAML file holds another value, tag, alias or level."""
    lines = data.decode("utf-8", "replace").splitlines()
    number = rng.randrange(len(lines))
    line = lines[number]
    value = rng.choice(
        ("null", "on", "[]", "{}", "[[x]]", DIGITS, "-" + DIGITS, "1e999", ".nan", ".inf", "!!python/object/apply:os.getcwd []",
         "!!binary x", "!x y", "*a", "&a [*a]", '"\\ud800"', '"\\0"', "2026-99-99", "? x", "'", "%", "[" * 3000,
         "0x" + "f" * 5000, "1:2:3:4:5", "0b" + "1" * 20000, "!!timestamp x", "!!int x", "!!float x", "!!set {x}", "!!omap [x]")
    )  # fmt: skip
    head, colon, _ = line.partition(": ")
    lines[number] = rng.choice(
        (f"{head}{colon or ': '}{value}", f"{value}: {value}", f"{line}{value}", f"   {line}", "", "- " + value)
    )
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def other_name(data: bytes, rng: random.Random) -> bytes:
    """The text of a checksum's file: of another, of none, of one too long."""
    return rng.choice(
        (b"0" * 64 + b"  x\n", b"x" * 64, b"", b"\0" * 64, b"0" * 10**6, "０".encode() * 64, data.upper(), data + data)
    )


HDF5: dict[str, tuple[Damage, ...]] = {"*.hdf5": (in_hdf5,)}
NPY: dict[str, tuple[Damage, ...]] = {"*.npy": (in_npy,)}
PARQUET: dict[str, tuple[Damage, ...]] = {"*.parquet": (in_parquet,)}
CSV: dict[str, tuple[Damage, ...]] = {"*.csv": (in_csv,)}
JSON: dict[str, tuple[Damage, ...]] = {"*.json": (wrong_json,)}
YAML: dict[str, tuple[Damage, ...]] = {"*.yaml": (in_yaml,)}
SUMS: dict[str, tuple[Damage, ...]] = {"*.sha256": (other_name,)}


# ---------------------------------------------------------------------------------------------------------------- D4RL, Minari


def make_flat(folder: Path) -> None:
    """As robopref writes it, and as others do."""
    data = offline_toys.walker((8, 6))
    write_d4rl(folder / "ours.hdf5", data)
    with h5py.File(folder / "hopper-medium-v2.hdf5", "w") as file:
        rng = np.random.default_rng(0)
        file.create_dataset("observations", data=rng.normal(size=(30, 11)).astype("f4"), chunks=(10, 11), compression="gzip")
        file["actions"] = rng.uniform(-1, 1, (30, 3)).astype("f4")
        file["rewards"] = np.ones(30, "f4")
        file["terminals"], file["timeouts"] = np.arange(30) == 9, np.arange(30) % 10 == 9
        file["infos/qpos"] = np.zeros((30, 6))
        file["metadata/algorithm"] = "SAC"
        file["metadata/iteration"] = np.array(7)
        file["metadata/policy/fc0/weight"] = np.zeros((4, 4), "f4")
        file["metadata/ref_min_score"], file["metadata/ref_max_score"] = -20.0, 3000.0


def of_offline(where: Path) -> dict[str, Any]:
    data = load_offline(str(where))
    d4rl.describe(data)
    return vars(data)


def read_flat(folder: Path) -> Any:
    read = [of_offline(path) for path in sorted(folder.glob("*.hdf5"))]
    with redirect_stdout(io.StringIO()):
        d4rl.main(["info", str(folder / "ours.hdf5")])
    return read


def make_minari(folder: Path) -> None:
    data = offline_toys.walker((8, 6))
    write_minari(folder / "ours", data)
    write_minari(folder / "theirs", data)
    path = folder / "theirs" / "metadata.json"
    metadata = json.loads(path.read_text())
    for name in ("name", "facts", "action_box"):
        metadata.pop(name, None)
    metadata["env_spec"] = json.dumps({"id": "Hopper-v5", "entry_point": "gymnasium.envs.mujoco.hopper_v5:HopperEnv"})
    path.write_text(json.dumps(metadata))


def read_sets(folder: Path) -> Any:
    return [of_offline(folder / name) for name in ("ours", "theirs")]


# ---------------------------------------------------------------------------------------------------------------- episodes, clips


def episode(seed: int, steps: int = 15) -> Episode:
    """One that no simulator has seen."""
    rng = np.random.default_rng(seed)
    return Episode(
        observations=rng.normal(size=(steps + 1, 39)),
        actions=rng.uniform(-1, 1, (steps, 4)).astype(np.float32),
        rewards=rng.normal(size=steps),
        success=np.arange(steps) > 9,
        near_object=rng.uniform(size=steps),
        sim_dynamic=rng.normal(size=(steps + 1, 20)),
        sim_static=rng.normal(size=12),
        env_id=ENV,
        level="expert",
        seed=seed,
        policy="scripted",
    )


def make_episodes(folder: Path) -> None:
    def vouch(aside: Path) -> None:
        write_manifest(aside, "collect", {"seed": 0}, {}, 0, 0.0, outputs=list(EPISODE_FILES))

    write_episodes(folder / "drawer-close", ENV, [episode(seed) for seed in range(3)], {"by": "a test"}, vouch)


EPISODE_FILES = ("main_data.hdf5", "metadata.json")


def read_episodes(folder: Path) -> Any:
    store = EpisodeStore(folder / "drawer-close")
    whole = [vars(store.episode(number)) for number in range(len(store))]
    returns = true_returns(store, [Segment(number, 2, 9) for number in range(len(store))])
    return whole, returns, [store.states(1, [0, 5, 3]), store.rewards(2)], store.index.to_dict("list"), store.metadata


def make_old_episodes(folder: Path) -> None:
    """Without a manifest, as those that were given away may be."""
    write_episodes(folder / "drawer-close", ENV, [episode(seed) for seed in range(3)], {"by": "a test"})


class Drawing:
    """Draws no world."""

    camera = "corner2-zoom"
    part_names = ("background", "drawer")

    def frames(self, static: np.ndarray, dynamic: np.ndarray) -> np.ndarray:
        return np.abs(100 * dynamic[:, :3, None, None] * np.ones((1, 3, 8, 8))).astype(np.uint8).transpose(0, 2, 3, 1)

    def parts(self, static: np.ndarray, dynamic: np.ndarray) -> np.ndarray:
        return (self.frames(static, dynamic)[..., 0] % 2).astype(np.uint8)


def make_bank(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as aside:
        make_episodes(Path(aside))
        store = EpisodeStore(Path(aside, "drawer-close"))
        render_bank(store, folder / "drawer-close", Drawing(), with_parts=True)


def make_old_bank(folder: Path) -> None:
    make_bank(folder)
    (folder / "drawer-close" / "manifest.json").unlink(missing_ok=True)


def read_bank(folder: Path) -> Any:
    bank = FrameBank([folder / "drawer-close"])
    parts = bank.parts()
    index = {name: bank.index[name].tolist() for name in bank.index}
    return index, bank.states, bank.frames(np.arange(len(bank))), parts.names, parts.rows, parts.masks


class Encoder:
    """Encodes nothing, in the form of a backbone."""

    name, digest, tokens_per_frame, image_dim = "toy", "0" * 64, 2, 4

    def encode_frames(self, frames: np.ndarray) -> Tensor:
        return zeros(len(frames), 2, 4) + float(frames.astype(np.float64).mean())


def make_features(folder: Path) -> None:
    make_bank(folder)
    cached_features(FrameBank([folder / "drawer-close"]), Encoder(), folder / "features")


def read_features(folder: Path) -> Any:
    stacked = cached_features(FrameBank([folder / "drawer-close"]), Encoder(), folder / "features")
    return stacked[:]


class Scorer:
    """Scores by a number that changes with the pictures."""

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        return clips.reshape(len(clips), -1).mean(1)


def read_scores(folder: Path) -> Any:
    def source(chunks: list[range]) -> Any:
        for numbers in chunks:
            yield np.stack([np.full((2, 4, 4, 3), number, np.uint8) for number in numbers])

    return score_in_chunks(Scorer(), 20, "close it", source, folder / ".scores-0", 7)


def make_scores(folder: Path) -> None:
    read_scores(folder)


# ---------------------------------------------------------------------------------------------------------------- tables


def make_preferences(folder: Path) -> None:
    pairs = small_run.labelled_pairs("close it", "vlp", np.random.default_rng(0))
    pairs["abstained"], pairs["disagreement"], pairs["unusual"] = False, 0.25, 1.0
    make_episodes(folder)
    path = folder / "labels.parquet"
    write_preferences(path, pairs, Origin("vlp", "close it", {"m": "0" * 64}, digest(folder / "drawer-close"), ENV))
    side_folder(path).mkdir()
    write_manifest(side_folder(path), "annotate", {"seed": 0}, {}, 0, 0.0, outputs=[Path("..", path.name)])


def read_labels(folder: Path) -> Any:
    path = folder / "labels.parquet"
    check_origin(path, folder / "drawer-close", ENV)
    table, origin = read_preferences(path), read_origin(path)
    return {name: table[name].astype(object).where(table[name].notna(), None).tolist() for name in table}, asdict(
        origin or Origin("", "")
    )


def make_old_preferences(folder: Path) -> None:
    make_preferences(folder)
    shutil.rmtree(folder / "labels.run")


def make_pairs(name: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        make_episodes(folder)
        table = pd.DataFrame({"episode_a": [0, 1, 2], "start_a": [0, 1, 2], "stop_a": [9, 9, 9],
                              "episode_b": [1, 2, 0], "start_b": [0, 1, 2], "stop_b": [9, 9, 9],
                              "label": [0.0, 1.0, 0.5], "abstained": [False, False, False]})  # fmt: skip
        videos = pd.DataFrame({"video_a": ["a.mp4", "b.mp4"], "video_b": ["b.mp4", "a.mp4"], "label": [0.0, 1.0]})
        for kind, rows in (("segments", table), ("videos", videos)):
            path = folder / f"{kind}.{name}"
            rows.to_csv(path, index=False) if name == "csv" else rows.to_parquet(path)

    return make


def read_lists(folder: Path) -> Any:
    read = []
    for path in sorted([*folder.glob("*.csv"), *folder.glob("*.parquet")]):
        table = read_pairs(path)
        if path.stem == "segments":
            segments, pairs = listed_segments(table, EpisodeStore(folder / "drawer-close"), path)
            read += [[asdict(segment) for segment in segments], pairs]
        read += HumanFile(path).label(table)
    return read


def make_tables(folder: Path) -> None:
    key = [["drawer-close", 0]]
    pd.DataFrame(key, columns=["task", "seed"]).assign(settings="abc", accuracy=0.5).to_csv(folder / "rows.csv", index=False)
    pd.DataFrame({name: ["x"] for name in (*compare.KEY, "kind", compare.MADE_FROM)}).to_csv(folder / "compare.csv", index=False)
    pd.DataFrame({name: ["x"] for name in bench.COLUMNS}).to_csv(folder / "bench.csv", index=False)
    with MetricsLogger(folder) as log:
        for step in range(3):
            log.log(step, {"losses/x": step / 3})
    for path in folder.glob("events*"):
        path.unlink()
    (folder / "variants.yaml").write_text("one: [vlp.steps=300, pretrain.width=32]\ntwo: []\n")


def read_tables(folder: Path) -> Any:
    with MetricsLogger(folder, resume_step=1) as log:
        rows = list(log._rows)
    return (
        read_rows(folder / "rows.csv", ["task", "seed"]).to_dict("list"),
        compare.read_table(folder / "compare.csv").to_dict("list"),
        bench.read_rows(folder / "bench.csv").to_dict("list"),
        leave_out.read_variants(folder / "variants.yaml"),
        rows,
    )


def make_results(folder: Path) -> None:
    make = _results()
    shutil.copytree(make, folder, dirs_exist_ok=True)


@cache
def _results() -> Path:
    """Once: the films take their time."""
    folder = Path(tempfile.mkdtemp(prefix="robopref-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    small_run.make_run(folder / "run")
    for path in folder.glob("run/videos/*-goal-*"):
        path.unlink()
    return folder / "run"


def read_results(folder: Path) -> Any:
    found = gather(folder)
    assert not any("\n" in problem for problem in found["problems"]), found["problems"]
    return found["problems"]


# ---------------------------------------------------------------------------------------------------------------- videos, words


@cache
def _film() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return film(Path(folder, "film.mp4"), "-pix_fmt", "yuv420p", seconds=0.5).read_bytes()


def make_videos(folder: Path) -> None:
    path = folder / "set" / "videos" / "chunk-000" / "top" / "episode_000000.mp4"
    path.parent.mkdir(parents=True)
    path.write_bytes(_film())
    write_json(
        folder / "set" / "meta" / "info.json", {"codebase_version": "v2.1", "fps": 20, "features": {"top": {"dtype": "video"}}}
    )


def read_films(folder: Path) -> Any:
    return [video_clip(path, 4, 32) for path in sorted(folder.rglob("*.mp4"))]


def make_fields(folder: Path) -> None:
    lines = built_in().splitlines(keepends=True)
    start = next(number for number, line in enumerate(lines) if line.startswith("mujoco/hopper:"))
    end = next(number for number, line in enumerate(lines) if number > start and line[:1].isalpha())
    (folder / "fields.yaml").write_text("".join(lines[start:end]), encoding="utf-8")


def read_fields(folder: Path) -> Any:
    return asdict(described("mujoco/Hopper-v5", folder / "fields.yaml"))


# ---------------------------------------------------------------------------------------------------------------- experience


def memory(folder: Path) -> ExperienceMemory:
    return ExperienceMemory(folder, "mujoco/hopper", 5, 2, capacity=20, spare=5)


def make_experience(folder: Path) -> None:
    rng = np.random.default_rng(0)
    of = memory(folder)
    for _ in range(22):
        of.add(rng.normal(size=5), rng.uniform(-1, 1, 2), 1.0, False, rng.normal(size=5))
    of.flush()


def read_experience(folder: Path) -> Any:
    of = memory(folder)
    of.added = 22
    return [values.numpy() for values in of.sample(np.random.default_rng(0), 8)]


# ---------------------------------------------------------------------------------------------------------------- downloads


def make_download(folder: Path) -> None:
    (folder / "set.hdf5").write_bytes(b"x" * 100)
    download.verify(folder / "set.hdf5")
    (folder / "next.hdf5.partial").write_bytes(b"x" * 10)
    write_json(folder / "next.hdf5.partial.json", {"url": "0" * 64, "validator": '"abc"', "size": 100})


def read_download(folder: Path) -> Any:
    known = download._Known.of(folder / "next.hdf5.partial")
    download.verify(folder / "set.hdf5")
    return (folder / "set.hdf5").read_bytes(), None if known is None else asdict(known)


READERS: dict[str, Reader] = {
    "D4RL files": Reader(make_flat, read_flat, HDF5),
    "Minari sets": Reader(make_minari, read_sets, HDF5 | JSON),
    "episodes": Reader(make_episodes, read_episodes, HDF5 | JSON, checked=True),
    "episodes without digests": Reader(make_old_episodes, read_episodes, HDF5 | JSON),
    "frame banks": Reader(make_bank, read_bank, NPY | PARQUET | JSON, checked=True),
    "frame banks without digests": Reader(make_old_bank, read_bank, NPY | PARQUET | JSON),
    "cached features": Reader(make_features, read_features, NPY | SUMS, only=("features/*",), checked=True),
    "cached scores": Reader(make_scores, read_scores, NPY | SUMS, checked=True),
    "preferences": Reader(make_preferences, read_labels, PARQUET | JSON, only=("labels*", "labels.run/*"), checked=True),
    "preferences without digests": Reader(make_old_preferences, read_labels, PARQUET, only=("labels*",)),
    "pairs in CSV": Reader(make_pairs("csv"), read_lists, CSV, only=("*.csv",)),
    "pairs in Parquet": Reader(make_pairs("parquet"), read_lists, PARQUET, only=("*.parquet",)),
    "tables": Reader(make_tables, read_tables, CSV | YAML),
    "results": Reader(make_results, read_results, CSV | PARQUET | JSON, only=("*.csv", "*.parquet", "*.json")),
    "videos": Reader(make_videos, read_films, JSON),
    "fields.yaml": Reader(make_fields, read_fields, YAML),
    "experience": Reader(make_experience, read_experience, NPY | JSON),
    "downloads": Reader(make_download, read_download, JSON | SUMS),
}
"""By name."""
