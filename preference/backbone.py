"""Backbones: frozen encoders of frames and words, behind one interface.

What VLP looks at.  `small` (preference/small.py) is trained here and needs no download; `open_clip`
(preference/open_clip.py) is any CLIP.  Both are imported only when named.

Axes: N images or texts, P tokens a frame, D and Dt features, L words.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.run_folder import is_shared, refuse_outside

if TYPE_CHECKING:
    from torch import Tensor

FORMS = "small:FOLDER, small:FOLDER@wordllama, open_clip:NAME:WEIGHTS, open_clip:hf-hub:ORG/MODEL or open_clip:local-dir:FOLDER"


class FrameEncoder(Protocol):
    """Turns frames into tokens; frozen, so that features can be cached under its digest."""

    @property
    def name(self) -> str:
        """Short, usable in a file name."""

    @property
    def digest(self) -> str:
        """Changes with the weights and with the preprocessing."""

    @property
    def tokens_per_frame(self) -> int:
        """P."""

    @property
    def image_dim(self) -> int:
        """D."""

    def encode_frames(self, frames: np.ndarray) -> Tensor:
        """frames (N, H, W, 3) uint8 -> (N, P, D) float32."""


@runtime_checkable
class Backbone(FrameEncoder, Protocol):
    """Turns frames and instructions into tokens."""

    @property
    def scene_dim(self) -> int:
        """How many of the D, the last ones, say what there is, wherever it is; D where they are not told apart."""

    @property
    def text_dim(self) -> int:
        """Dt."""

    def encode_text(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """N texts -> tokens (N, L, Dt) float32 and mask (N, L), True = a real token."""

    def unread(self, text: str) -> list[str]:
        """The words of a text that `encode_text` leaves out."""


def load_backbone(spec: str, device: str = "cpu", relative_to: Path | None = None) -> Backbone:
    """The backbone that `spec` names, always with trained weights.

    `small:FOLDER` (a relative one is looked up in `relative_to`, and of a shared model in no other place), with `@wordllama` to
    read other vectors of words (preference/words.py); `open_clip:NAME:WEIGHTS` with a pretrained tag or a
    local file; `open_clip:hf-hub:ORG/MODEL`; `open_clip:local-dir:FOLDER`.  The open_clip forms may end in `@G`: patch
    tokens are averaged to a G x G grid, for ViT-B/16 196 -> 16 tokens a frame with `@4`.  Raises `RoboprefError` when
    the weights cannot be had.
    """
    kind, _, where = spec.partition(":")
    if kind not in ("small", "open_clip") or not where:
        raise UsageError(f"Backbone {spec!r} is none of {FORMS}.{nearest(kind, ['small', 'open_clip'])}")
    if kind == "small":
        from robopref.preference.small import SmallBackbone
        from robopref.preference.words import load_words

        folder, words = parse_small(where)
        if relative_to is not None and is_shared(relative_to):
            refuse_elsewhere(relative_to, folder)
        return SmallBackbone.load((relative_to or Path()) / folder, device, load_words(words or "hashed"))
    from robopref.preference.open_clip import OpenClipBackbone

    name, weights, grid = parse_open_clip(where)
    if relative_to is not None and is_shared(relative_to) and (name.startswith("local-dir:") or Path(weights or "").is_file()):
        raise RoboprefError(
            f"{relative_to}: a shared model names weights of this machine, {spec!r}, as its backbone: train one that names a "
            "pretrained tag"
        )
    return OpenClipBackbone(name, weights, device, grid)


def refuse_elsewhere(model: Path, backbone: str) -> None:
    """RoboprefError where the backbone of the shared model in the folder `model` lies anywhere but in that folder."""
    if Path(backbone).is_absolute() or ".." in Path(backbone).parts:
        raise RoboprefError(
            f"{model}: a shared model names a backbone out of its folder, {backbone!r}: get it anew, from a "
            "`robopref push` that puts the backbone beside it"
        )
    refuse_outside(model, (backbone,))


def backbone_files(spec: str) -> dict[str, Path]:
    """The files and folders on this machine that a backbone is read from, by what they are; none of what a name stands for."""
    kind, _, where = spec.partition(":")
    if kind == "small":
        folder, _ = parse_small(where)
        return {"backbone": Path(folder, "model.safetensors"), "backbone's settings": Path(folder, "config.json")}
    if kind != "open_clip":
        return {}
    name, weights, _ = parse_open_clip(where)
    local = name.removeprefix("local-dir:") if name.startswith("local-dir:") else weights
    return {"backbone": Path(local)} if local is not None and Path(local).exists() else {}


def keep_backbone(spec: str, folder: Path) -> str:
    """Copy a small backbone into the model folder `folder`, so that it alone scores clips; the spec to load it by from there."""
    kind, _, where = spec.partition(":")
    if kind != "small":
        return spec
    source, words = parse_small(where)
    shutil.copytree(source, folder / "backbone", dirs_exist_ok=True, ignore=shutil.ignore_patterns("events*", "checkpoint*"))
    return f"small:backbone@{words}" if words else "small:backbone"


def parse_small(where: str) -> tuple[str, str]:
    """`FOLDER@WORDS` -> (folder, words); words are empty where none are named."""
    folder, _, words = where.rpartition("@")
    return (folder, words) if folder and "/" not in words else (where, "")


def parse_open_clip(where: str) -> tuple[str, str | None, int | None]:
    """`NAME:WEIGHTS@G` -> (name, weights, grid); a hub or folder name brings its own weights, so theirs are None."""
    body, _, end = where.rpartition("@")
    grid = int(end) if body and re.fullmatch(r"\d{1,4}", end, re.ASCII) else None
    name = where if grid is None else body
    if name.startswith(("hf-hub:", "local-dir:")):
        return name, None, grid
    model, _, weights = name.partition(":")
    if not weights:
        raise RoboprefError(
            f"open_clip:{where} names no weights, and random ones would score nothing: add a pretrained tag or a file, "
            f"such as open_clip:{model}:openai"
        )
    return model, weights, grid
