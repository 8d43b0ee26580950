"""Any CLIP of open_clip as a backbone: patch tokens of frames and word tokens of instructions.

Weights come from a pretrained tag (downloaded once, when first asked for; HF_HUB_OFFLINE is honoured), a local file, a
local folder or the Hugging Face hub.  Weights that cannot be had are an error: open_clip itself would go on with random
ones.

Axes: N images or texts, P = G x G tokens a frame, D and Dt features, L words.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robopref.configs.errors import RoboprefError, nearest
from robopref.datasets.download import DownloadError, download
from robopref.preference.hub_guard import guarded_hub

BATCH = 32  # images at a time: ViT-B/16 needs about 1 GB for 32 frames


class OpenClipBackbone:
    """Patch and word tokens of the last layer, projected to the joint space where the model has a projection.

    Frames of any size are resized (bicubic, antialiased, squeezed if not square) to the model's own.
    """

    def __init__(self, name: str, pretrained: str | None, device: str = "cpu", grid: int | None = None) -> None:
        """name: an architecture, `hf-hub:ORG/MODEL` or `local-dir:FOLDER`.  pretrained: tag or file, for an
        architecture.

        grid: average patch tokens to grid x grid [ours]; None keeps every patch [VLP].  Raises `RoboprefError` when the
        weights cannot be had or the model gives no tokens.
        """
        import open_clip

        self._model = _create(name, pretrained).eval().requires_grad_(False).to(device)
        try:
            self._tokenizer = open_clip.get_tokenizer(name)
        except ImportError as error:
            raise RoboprefError(f"{name}: its tokenizer needs another package ({error}): pip install transformers") from error
        self._device = device
        self._visual = self._model.visual
        self._preprocessing = dict(self._visual.preprocess_cfg)
        self._pad = int(self._tokenizer([""])[0, -1])
        self.grid = grid
        self.name = re.sub(r"[^\w.-]+", "-", f"open_clip-{name}" + (f"-{Path(pretrained).name}" if pretrained else ""))
        blank = self.encode_frames(np.zeros((1, 8, 8, 3), np.uint8))
        self.tokens_per_frame, self.image_dim = blank.shape[1:]
        self.scene_dim = self.image_dim
        self.text_dim = self.encode_text(["a"])[0].shape[2]
        self.digest = self._digest()

    @torch.no_grad()
    def encode_frames(self, frames: np.ndarray) -> Tensor:
        """frames (N, H, W, 3) uint8 -> patch tokens (N, P, D) float32, row by row from the top left."""
        return torch.cat([self._patches(frames[start : start + BATCH]) for start in range(0, len(frames), BATCH)])

    @torch.no_grad()
    def embed_frames(self, frames: np.ndarray) -> Tensor:
        """frames (N, H, W, 3) uint8 -> one vector of length 1 a frame, in the joint space of images and texts: (N, E) float32."""
        chunks = (self._images(frames[start : start + BATCH]) for start in range(0, len(frames), BATCH))
        return torch.cat([self._model.encode_image(images, normalize=True).float() for images in chunks])

    @torch.no_grad()
    def embed_texts(self, texts: list[str]) -> Tensor:
        """texts -> one vector of length 1 a text, in the same space: (N, E) float32.  Too long a text raises."""
        return self._model.encode_text(self._numbers(texts), normalize=True).float()

    @property
    def logit_scale(self) -> float:
        """What this CLIP's softmax multiplies cosines by: 100 in OpenAI's weights, the most that training allowed."""
        return float(self._model.logit_scale.exp())

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width in pixels that frames are resized to."""
        size = self._preprocessing["size"]
        return (size, size) if isinstance(size, int) else tuple(size)

    def _images(self, frames: np.ndarray) -> Tensor:
        """frames (N, H, W, 3) uint8 -> what the model reads, (N, 3, H', W')."""
        images = torch.from_numpy(np.ascontiguousarray(frames)).to(self._device).permute(0, 3, 1, 2).float() / 255.0
        images = F.interpolate(images, self.input_size, mode="bicubic", antialias=True).clamp(0.0, 1.0)
        mean, std = (torch.tensor(self._preprocessing[key], device=self._device)[:, None, None] for key in ("mean", "std"))
        return (images - mean) / std

    def _patches(self, frames: np.ndarray) -> Tensor:
        found = self._visual.forward_intermediates(
            self._images(frames), indices=1, normalize_intermediates=True, intermediates_only=True, output_fmt="NCHW"
        )
        maps = found["image_intermediates"][-1]
        if self.grid is not None:
            if self.grid > maps.shape[-1]:
                raise RoboprefError(f"{self.name}: its patches are a {maps.shape[-1]} x {maps.shape[-1]} grid, not @{self.grid}.")
            maps = F.adaptive_avg_pool2d(maps, self.grid)
        # With an attention pool the projection is for pooled vectors, not for patches.
        pooled = getattr(self._visual, "attn_pool", None) is not None
        return _project(maps.flatten(2).transpose(1, 2), None if pooled else getattr(self._visual, "proj", None)).float()

    @torch.no_grad()
    def encode_text(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """texts -> tokens (N, L, Dt) float32 and mask (N, L); L: the longest text.  RoboprefError above the model's context
        (77 tokens for CLIP).
        """
        numbers = self._numbers(texts)
        mask = numbers != self._pad
        mask[:, 0] = True  # an empty text in a model without a start token would otherwise leave nothing to attend to
        tower = getattr(self._model, "text", None)
        if tower is not None and not hasattr(tower, "forward_intermediates"):
            raise RoboprefError(
                f"{self.name}: its text tower gives no word tokens; choose a CLIP with one of its own, e.g. ViT-B-16."
            )
        found = self._model.forward_intermediates(
            text=numbers, text_indices=1, normalize_intermediates=True, intermediates_only=True
        )
        projection = getattr(tower if tower is not None else self._model, "text_projection", None)
        tokens = _project(found["text_intermediates"][-1], projection)
        longest = int(mask.nonzero()[:, 1].max()) + 1
        return tokens[:, :longest].float(), mask[:, :longest]

    def unread(self, text: str) -> list[str]:
        """Nothing: CLIP's tokenizer reads all letters, byte by byte, whatever the model makes of other languages."""
        return []

    def _numbers(self, texts: list[str]) -> Tensor:
        """The tokenizer's numbers (N, context) of texts that fit; open_clip itself would cut."""
        numbers = self._tokenizer(list(texts))
        context = numbers.shape[1]
        beyond = (self._tokenizer(list(texts), context_length=2 * context)[:, context:] != self._pad).any(1)
        if beyond.any():
            text = texts[int(beyond.nonzero()[0])]
            raise RoboprefError(
                f"An instruction ({text[:40]} ...) is longer than the {context} tokens {self.name} reads: shorten it."
            )
        return numbers.to(self._device)

    def _digest(self) -> str:
        total = hashlib.sha256(json.dumps([self._preprocessing, self.grid], sort_keys=True, default=list).encode())
        # The same weights mean another function with GELU than with QuickGELU, so the kinds of layers count.
        total.update(json.dumps(sorted({type(layer).__name__ for layer in self._model.modules()})).encode())
        for key, tensor in sorted(self._model.state_dict().items()):
            total.update(f"{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return total.hexdigest()


def _project(tokens: Tensor, projection: Any) -> Tensor:
    """tokens (N, P, D) times the model's projection: a matrix, a layer or None."""
    if projection is None:
        return tokens
    return projection(tokens) if isinstance(projection, nn.Module) else tokens @ projection


def _create(name: str, pretrained: str | None) -> Any:
    """The open_clip model with its weights; `RoboprefError` when there is no such model or no weights for it."""
    import open_clip
    from open_clip.pretrained import get_pretrained_cfg

    options: dict[str, Any] = {}
    if not name.startswith(("hf-hub:", "local-dir:")):
        if name not in open_clip.list_models():
            raise RoboprefError(f"open_clip has no model {name!r}.{nearest(name, open_clip.list_models())}")
        if pretrained is None:
            raise RoboprefError(f"{name}: name a pretrained tag or a weights file; random weights would score nothing.")
        tags = open_clip.list_pretrained_tags_by_model(name)
        tag = get_pretrained_cfg(name, pretrained)
        if not tag and not Path(pretrained).is_file():
            known = ", ".join(tags) or "it has none"
            raise RoboprefError(
                f"{name}: {pretrained!r} is neither a file nor a pretrained tag ({known}).{nearest(pretrained, tags)}"
            )
        if tag.get("url") and not tag.get("hf_hub"):
            _fetch(name, pretrained, tag["url"])
        # open_clip only warns when weights trained with QuickGELU are put into the model with GELU.
        options["force_quick_gelu"] = bool(tag.get("quick_gelu"))
    try:
        with guarded_hub():
            return open_clip.create_model(name, pretrained, require_pretrained=True, **options)
    except Exception as error:  # whatever the downloader and the five kinds of weights reader raise
        why, token = " ".join(str(error).split()), huggingface_hub.get_token()
        if token:  # a server that refuses may quote the request
            why = why.replace(token, "[token]")
        raise RoboprefError(_unavailable(name, pretrained, why)) from error


def _fetch(name: str, pretrained: str, url: str) -> None:
    """Put weights that are not in the hub where open_clip looks for them.

    It would fetch them itself past HF_HUB_OFFLINE, without a timeout, and leave half a file under the name when it is cut.
    """
    cached = Path("~/.cache/clip").expanduser() / url.rpartition("/")[2]
    if cached.is_file():
        return
    if huggingface_hub.constants.is_offline_mode():
        raise RoboprefError(_unavailable(name, pretrained, f"HF_HUB_OFFLINE is set and {cached} does not exist"))
    try:
        download(url, cached)
    except DownloadError as error:
        raise RoboprefError(_unavailable(name, pretrained, str(error))) from error


def _unavailable(name: str, pretrained: str | None, why: str) -> str:
    source = f"{name} with {pretrained}" if pretrained else name
    architecture = "NAME" if pretrained is None else name
    return (
        f"open_clip's weights {source} cannot be had ({why[:300]}). Connect to the network once, so they are kept; "
        f"or give a file, open_clip:{architecture}:FILE.safetensors; or use the backbone `small`: no download."
    )
