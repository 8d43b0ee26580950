"""Clips: a few frames that stand for a segment of an episode, drawn from simulator states.

A clip is 1 + T frames: the opening, which is the first frame of its episode, and T frames spread over the segment.  The
opening shows what there was to be done, also where the segment comes late [ours; VLP's paper scores the T frames alone].

Two ways to hold them.  `render_clips` draws the frames of given segments at once, for annotation.  A `FrameBank` holds the
frames of whole episodes at a fixed stride, for training: every window of T consecutive frames makes a clip, and so do T frames
spread over the episode, so one picture serves in many clips and is encoded once.

Axes: N clips, T frames after the opening, H, W, 3 colours, always uint8.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from robopref.configs.arrays import read_array
from robopref.configs.digests import check_digests
from robopref.configs.errors import LONG, RoboprefError
from robopref.configs.files import MANIFEST, as_written, atomic_folder, new_array_file, read_json, write_json
from robopref.configs.rows import read_parquet
from robopref.configs.run import write_manifest
from robopref.datasets.episodes import EpisodeStore
from robopref.embodied.decode import legible
from robopref.embodied.envs import OBSERVATION_SIZE
from robopref.embodied.render import Renderer

FRAMES = 8  # frames a clip [VLP, second-hand notes]
SEGMENT = 50  # environment steps a segment [VLP, downstream protocol]
PARTS = ("parts.npy", "parts.json")
FILES = ("frames.npy", "states.npy", "index.parquet")
BANK = {*FILES, *PARTS, MANIFEST}
"""The files of a frame bank."""
BANK_STAGE = "frames"
"""The stage in a bank's manifest: a part of `robopref collect`."""
CHANGED = "Draw it anew (`robopref collect --overwrite`)."
TOLD = 12  # names of frame banks in an error
STRIDE = 7  # 8 frames, 7 steps apart, span the 50 steps of a segment
COLUMNS = ("task", "level", "episode", "step", "length", "success_step", "camera")  # of a bank's index


@dataclass(frozen=True)
class Segment:
    """Steps start..stop - 1 of one episode of one dataset."""

    episode: int
    start: int
    stop: int


def frame_steps(start: int, stop: int, frames: int = FRAMES) -> np.ndarray:
    """`frames` state indices spread evenly over steps start..stop - 1, both ends included; (T,) int."""
    if not 0 <= start < stop:
        raise RoboprefError(f"A segment needs 0 <= start < stop, got {start}..{stop}.")
    return np.linspace(start, stop - 1, frames).round().astype(int)


def render_clips(
    store: EpisodeStore, segments: Sequence[Segment], renderer: Renderer, frames: int = FRAMES
) -> Iterator[np.ndarray]:
    """Draw one clip (1 + T, H, W, 3) a segment, in the given order, one at a time in memory.

    Segments of one episode that follow each other share its opening, which is then drawn once.
    """
    episode, opening = None, np.empty(0)
    for segment in segments:
        steps = frame_steps(segment.start, segment.stop, frames)
        fresh = segment.episode != episode
        static, dynamic = store.states(segment.episode, np.append(0, steps) if fresh else steps)
        drawn = renderer.frames(static, dynamic)
        if fresh:
            episode, opening, drawn = segment.episode, drawn[:1], drawn[1:]
        yield np.concatenate([opening, drawn])


def render_bank(store: EpisodeStore, folder: Path, renderer: Renderer, stride: int = STRIDE, with_parts: bool = False) -> None:
    """Draw every `stride`-th state of every episode of `store` into the frame bank `folder`, which appears when it is whole.

    with_parts: also what each pixel of an episode's first and last frame shows (embodied/parts.py).
    """
    started = time.time()
    rows: list[dict[str, object]] = []
    states: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    parted: list[int] = []  # the rows that `parts` belong to
    steps_of = [np.arange(0, length + 1, stride) for length in store.index["length"]]
    total = sum(len(steps) for steps in steps_of)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as aside, ExitStack() as stack:
        pixels: np.memmap | None = None
        position = 0
        for (_, info), steps in zip(store.index.iterrows(), steps_of, strict=True):
            static, dynamic = store.states(int(info["episode"]), steps)
            drawn = renderer.frames(static, dynamic)
            if pixels is None:
                pixels = new_array_file(aside / "frames.npy", np.uint8, (total, *drawn.shape[1:]))
                stack.callback(pixels.flush)
            pixels[position : position + len(steps)] = drawn
            states.append(store.episode(int(info["episode"])).observations[steps])
            if with_parts:
                parts.append(renderer.parts(static, dynamic[[0, -1]]))
                parted += [position, position + len(steps) - 1]
            rows += [
                {
                    "task": store.task,
                    "level": info["level"],
                    "episode": info["episode"],
                    "step": step,
                    "length": info["length"],
                    "success_step": info["success_step"],
                    "camera": str(renderer.camera),
                }
                for step in steps
            ]
            position += len(steps)
        np.save(aside / "states.npy", np.concatenate(states).astype(np.float32))
        if with_parts:
            np.save(aside / "parts.npy", np.concatenate(parts))
            write_json(aside / "parts.json", {"names": list(renderer.part_names), "rows": parted})
        with (aside / "index.parquet").open("wb") as file:  # Arrow itself takes no name that is not UTF-8
            pd.DataFrame(rows).to_parquet(file)
        if pixels is not None:
            pixels.flush()
        view = {"camera": str(renderer.camera), "frame_size": int(drawn.shape[1]), "stride": stride, "parts": with_parts}
        written = [*FILES, *(PARTS if with_parts else ())]
        write_manifest(aside, BANK_STAGE, view, {"episodes": store.path}, [], started, outputs=written)


def read_index(folder: Path) -> pd.DataFrame:
    """The table of a bank's frames; OSError or ValueError, of one line, where there is none."""
    return read_parquet(folder / "index.parquet")


def is_bank(folder: Path) -> bool:
    """Whether a folder is a frame bank, whole or not, and holds nothing else: that may be drawn anew."""
    try:
        index = read_index(folder)
    except (OSError, ValueError):
        return False
    return {"task", "level", "episode", "step"} <= set(index.columns) and {path.name for path in folder.iterdir()} <= BANK


def is_drawn(folder: Path, store: EpisodeStore, size: int, camera: str, with_parts: bool) -> bool | None:
    """Whether a frame bank is this view of the episodes of `store`, whole; None: it is of other ones, or another view."""
    steps_of = [np.arange(0, length + 1, STRIDE) for length in store.index["length"]]
    episodes = [store.episode(int(number)).observations for number in store.index["episode"]]
    seen = [observations[steps] for observations, steps in zip(episodes, steps_of, strict=True)]
    try:
        index = read_index(folder)
        if not np.array_equal(read_array(folder / "states.npy"), np.concatenate(seen).astype(np.float32)):
            return None
        if set(index["task"]) != {store.task} or set(index["camera"]) != {camera}:
            return None
        pixels = read_array(folder / "frames.npy", "r")
        if pixels.shape[1:] != (size, size, 3):
            return None
    except FileNotFoundError:
        return False
    except (OSError, ValueError, KeyError, TypeError):  # TypeError: of cells that are lists
        return None
    return len(pixels) == len(index) and (not with_parts or all((folder / name).is_file() for name in PARTS))


class Stacked:
    """Arrays of one width, one after another, read by row number as if they were one; memory maps stay on the disk."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self._parts = list(parts)
        self._offsets = np.cumsum([0, *(len(part) for part in self._parts)])
        self.dtype = self._parts[0].dtype
        self.shape = (int(self._offsets[-1]), *self._parts[0].shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray | slice) -> np.ndarray:
        """Rows of any shape, or a slice of them: rows.shape + the rest of `shape`, a copy."""
        wanted = np.arange(len(self))[rows] if isinstance(rows, slice) else np.asarray(rows)
        flat = wanted.ravel()
        which = np.searchsorted(self._offsets, flat, side="right") - 1
        out = np.empty((len(flat), *self.shape[1:]), self.dtype)
        for part in np.unique(which):
            mine = which == part
            out[mine] = self._parts[part][flat[mine] - self._offsets[part]]
        return out.reshape(*wanted.shape, *self.shape[1:])


@dataclass(frozen=True)
class Parts:
    """What each pixel of some frames shows."""

    names: tuple[str, ...]
    rows: np.ndarray
    """(K,) row numbers of the frames."""
    masks: np.ndarray
    """(K, H, W) uint8, indices into `names`."""


def _wrong(pixels: np.ndarray, table: pd.DataFrame, states: np.ndarray, task: str) -> str:
    """What keeps frames, index and states from being a bank, of `task` if that is not empty; empty where nothing does."""
    if missing := [name for name in COLUMNS if name not in table]:
        return f"index.parquet has no column {missing[0]}"
    if not len(table):
        return "it holds no frame"
    for name in COLUMNS:
        words = name in ("task", "level", "camera")
        right = [isinstance(value, str) for value in table[name]] if words else [pd.api.types.is_integer_dtype(table[name])]
        if not all(right):
            return f"column {name} of index.parquet is {table[name].dtype}, not {'text' if words else 'whole numbers'}"
    if (table[["episode", "step", "length"]] < 0).any(axis=None) or (table["step"] > table["length"]).any():
        return "index.parquet has a step that is not in its episode"
    if task and (others := sorted(set(table["task"].astype(str)) - {task})):
        return f"index.parquet says that it is the bank of {legible(Path(others[0][:LONG]))}"
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3:
        return f"frames.npy holds {pixels.dtype} {pixels.shape}, not pictures of uint8 (M, H, W, 3)"
    if states.shape[1:] != (OBSERVATION_SIZE,) or states.dtype.kind != "f":
        return f"states.npy holds {states.dtype} {states.shape}, not observations ({len(table)}, {OBSERVATION_SIZE})"
    if not (finite := np.isfinite(states).all(axis=1)).all():
        return f"states.npy holds NaN or infinity, first in row {int(np.flatnonzero(~finite)[0])}"
    return ""


def _parts(said: Any, masks: np.ndarray, frames: int) -> tuple[list[str], np.ndarray]:
    """Names and rows (K,) that parts.json gives to `masks`, of a bank of so many frames; ValueError where they do not fit."""
    names, rows = said["names"], said["rows"]
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names) and len(names) <= 256):
        raise ValueError("names are no list of words")
    if not (isinstance(rows, list) and all(type(row) is int and 0 <= row < frames for row in rows)):
        raise ValueError("rows are no list of rows of the bank")
    if masks.dtype != np.uint8 or masks.ndim != 3 or len(masks) != len(rows):
        raise ValueError(f"{len(rows)} rows, and parts.npy holds {masks.dtype} {masks.shape}")
    if masks.size and masks.max() >= len(names):
        raise ValueError(f"parts.npy holds part {masks.max()}, of {len(names)}")
    return names, np.array(rows, np.int64)


def _how_to_get(missing: Sequence[Path]) -> str:
    """Which frame banks do not exist, which lie beside them, and what can be done."""
    first = missing[0]
    others = f" (nor {len(missing) - 1} more)" if len(missing) > 1 else ""
    collect = f"`robopref collect --tasks {first.name} --clips {first.parent}`"
    there = sorted(path.name for path in first.parent.glob("*") if path.is_dir() and is_bank(path))
    if not there:
        return f"{first} does not exist{others}, nor any frame bank beside it: draw it with {collect}, or correct the path"
    shown = ",".join(there[:TOLD]) + (",..." if len(there) > TOLD else "")
    return f"{first} does not exist{others}: give those that are there, tasks=[{shown}], or collect what is missing, {collect}"


class FrameBank:
    """The frames of one or several tasks, memory mapped: `frames` of task after task, one `index` row a frame.

    index: task, level, episode, step, length, success_step (-1: never), camera, bank (which folder), row (in that folder).
    """

    def __init__(self, folders: Sequence[Path], any_name: bool = False) -> None:
        """folders: called as their tasks, unless `any_name`; RoboprefError for what is damaged or of another form."""
        self.folders = [Path(folder) for folder in folders]
        if not self.folders:
            raise RoboprefError("No frame bank to read: collect at least one task with rendering on.")
        if missing := [folder for folder in self.folders if not folder.exists()]:
            raise RoboprefError(_how_to_get(missing))
        pictures: list[np.ndarray] = []
        tables, states = [], []
        for bank, folder in enumerate(self.folders):
            check_digests(folder, *(folder / name for name in FILES), remedy=CHANGED)
            try:
                pixels = read_array(folder / "frames.npy", "r")
                table = read_index(folder)
                state = read_array(folder / "states.npy")
            except (OSError, ValueError) as error:
                raise RoboprefError(f"{folder}: not a readable frame bank ({error}). Run `robopref collect` again.") from error
            if not len(pixels) == len(table) == len(state):
                raise RoboprefError(f"{folder}: frames, states and index differ in length. Run `robopref collect` again.")
            if "camera" not in table:
                raise RoboprefError(f"{folder}: drawn by an older version, which kept no camera. Run `robopref collect` again.")
            if wrong := _wrong(pixels, table, state, "" if any_name else folder.name):
                raise RoboprefError(f"{folder}: {wrong}. Run `robopref collect` again.")
            pictures.append(pixels)
            tables.append(table.assign(bank=bank, row=np.arange(len(table))))
            states.append(state)
        self.index = pd.concat(tables, ignore_index=True)
        self.states = np.concatenate(states)
        """Observations (M, 39) float32 that belong to the frames: what the small backbone learns to see."""
        views = {(str(table["camera"].iloc[0]), pixels.shape[1:]) for table, pixels in zip(tables, pictures, strict=True)}
        if len(views) > 1:
            told = ", ".join(f"{camera} at {shape[0]} x {shape[1]} px" for camera, shape in sorted(views))
            raise RoboprefError(f"{self.folders[0].parent}: banks of different views ({told}). Collect all tasks alike.")
        self.camera: str = next(iter(views))[0]
        """The view that all frames were drawn from."""
        self._pixels = Stacked(pictures)

    def __len__(self) -> int:
        return len(self.index)

    def frames(self, rows: np.ndarray) -> np.ndarray:
        """Pixels of the frames numbered `rows` (any shape): rows.shape + (H, W, 3) uint8."""
        return self._pixels[rows]

    def parts(self) -> Parts:
        """What the first and the last frame of every episode show; `RoboprefError` for banks that were drawn without."""
        found: list[tuple[list[str], np.ndarray, np.ndarray]] = []
        for folder in self.folders:
            if not (folder / "parts.json").exists():
                raise RoboprefError(f"{folder} does not say what its pixels show: run `robopref collect` again, with --parts.")
            check_digests(folder, *(folder / name for name in PARTS), remedy=CHANGED)
            try:
                masks = read_array(folder / "parts.npy")
            except (OSError, ValueError) as error:
                raise RoboprefError(f"{folder}/parts.npy: damaged ({error}). Run `robopref collect --parts` again.") from error
            said = read_json(folder / "parts.json")
            with as_written(folder / "parts.json", "run `robopref collect --parts` again"):
                found.append((*_parts(said, masks, int((self.index["bank"] == len(found)).sum())), masks))
        names = sorted({name for known, _, _ in found for name in known})
        starts = np.searchsorted(self.index["bank"].to_numpy(), np.arange(len(self.folders)))
        return Parts(
            tuple(names),
            np.concatenate([start + rows for start, (_, rows, _) in zip(starts, found, strict=True)]),
            np.concatenate([np.array([names.index(n) for n in known], np.uint8)[masks] for known, _, masks in found]),
        )
