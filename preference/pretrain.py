"""`robopref pretrain`: the small backbone learns to read the simulator's state off frames.

Comes from frame banks (pixels with the observation that belongs to each); goes to preference/train.py.  Nothing is
downloaded and no preference is used: what the simulator knows is supervision enough (ours).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from robopref.configs.checkpoint import (
    digests,
    pack_optimizer,
    resume,
    rng_state,
    save_tensors,
)
from robopref.configs.files import NO_MATTER, plain, without
from robopref.configs.finite import check_losses
from robopref.configs.progress import counted, tell_end
from robopref.configs.run import MetricsLogger, choose_device, seed_everything, write_manifest
from robopref.configs.run_folder import MODEL, run_folder
from robopref.configs.stopping import Stopping
from robopref.configs.vlp import PretrainConfig, TrainVLPConfig
from robopref.datasets.clips import FrameBank, Parts
from robopref.embodied.parts import BACKGROUND, ROBOT
from robopref.embodied.tasks import expand_tasks
from robopref.preference.small import STATE_SIZE, STRIDE, SmallBackbone, SmallConfig, SmallEncoder

CHECKPOINT = "pretraining"
ROOM_PARTS = (BACKGROUND, ROBOT)  # in every picture
PARTED_SHARE = 0.25  # pictures that parts are learnt from, for one that the state is learnt from
PART_WEIGHT = 0.3  # of that loss; chosen on train tasks left out, where 0.1 does about as well (docs/lab.md)


def main(config: PretrainConfig) -> None:
    """`robopref pretrain`."""
    began = time.time()
    out = run(config)
    usual = TrainVLPConfig()
    then = [f"backbone=small:{out}"]
    then += [f"clips={config.clips}"] if config.clips != usual.clips else []
    then += [f"tasks=[{','.join(config.tasks)}]"] if config.tasks != usual.tasks else []
    tell_end(out, began, f"backbone of {counted(config.steps, 'step')}", "robopref", "train-vlp", *then)


def run(config: PretrainConfig) -> Path:
    """Train the backbone of `config`; return its folder.  A finished one is kept, an interrupted one goes on."""
    tasks = expand_tasks(config.tasks)
    inputs = {name: config.clips / name for name in tasks}
    with run_folder(config.out, "pretrain", config, inputs, overwrite=config.overwrite, writes=MODEL) as complete:
        if not complete:
            learn(config, tasks, inputs)
    return config.out


def learn(config: PretrainConfig, tasks: Sequence[str], inputs: Mapping[str, Path]) -> None:
    """From the checkpoint on, if there is one, to a finished folder."""
    started = time.time()
    device = choose_device(config.device)
    torch.set_num_threads(config.threads)
    rng = seed_everything(config.seed)
    bank = FrameBank([config.clips / name for name in tasks])
    mean, std = standardiser(bank.states)
    kept = held_out(bank, config.holdout, config.seed)
    train_rows, test_rows = np.flatnonzero(~kept), np.flatnonzero(kept)
    targets = torch.from_numpy((bank.states[:, :STATE_SIZE] - mean) / std)
    lesson = PartLesson(bank.parts(), kept) if config.scene else None

    size = bank.frames(np.array([0])).shape[1]
    shape = SmallConfig(size, config.width, config.features, config.keypoints, parts=lesson.names if lesson else ())
    encoder = SmallEncoder(shape).to(device)
    optimizer = torch.optim.AdamW(encoder.parameters(), config.lr, weight_decay=config.weight_decay)
    checkpoint = config.out / "checkpoint.safetensors"
    identity = _resumable(config) | digests(inputs)
    first = 0
    if checkpoint.exists():
        first = resume(checkpoint, CHECKPOINT, identity, encoder, optimizer, rng)
    logger = MetricsLogger(config.out, first if first else -1, config.steps)

    clock = time.time()
    with Stopping(config.checkpoint_every) as stopping:
        for step in range(first + 1, config.steps + 1):
            rows = rng.choice(train_rows, config.batch)
            images, target = shift_colours(to_images(bank.frames(rows), device), rng), targets[rows].to(device)
            for group in optimizer.param_groups:
                group["lr"] = config.lr * schedule(step, config.steps)
            metrics = {}
            if lesson is None:
                state_loss = loss = F.smooth_l1_loss(encoder.state(encoder.locate(encoder.near(images))), target, beta=0.1)
            else:
                shown, answer = lesson.draw(bank, round(PARTED_SHARE * config.batch), rng, device)
                near = encoder.near(torch.cat([images, shown]))
                state_loss = F.smooth_l1_loss(encoder.state(encoder.locate(near[: len(images)])), target, beta=0.1)
                part_loss = lesson.loss(encoder.look(near[len(images) :]), answer)
                loss = state_loss + PART_WEIGHT * part_loss
                metrics["losses/parts"] = part_loss.item()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % config.log_every == 0 or step == config.steps:
                metrics |= {
                    "losses/state": state_loss.item(),
                    "charts/frames_per_second": step_rate(first, step, clock) * config.batch,
                }
                if step % (4 * config.log_every) == 0 or step == config.steps:
                    metrics["eval/state_error_sd"] = state_error(encoder, bank, test_rows, targets, device)
                check_losses(metrics, config.out)
                logger.log(step, metrics)
            if stopping.due(step) and step < config.steps:
                tensors, meta = pack_optimizer(optimizer, "optimizer")
                rng_tensors, rng_meta = rng_state(rng)
                model = {f"model.{k}": v for k, v in encoder.state_dict().items()}
                meta |= rng_meta | {"kind": CHECKPOINT, "step": step, "identity": identity}
                save_tensors(checkpoint, model | tensors | rng_tensors, meta)
                stopping.leave(f"step {step} of {config.steps}", checkpoint)
    logger.close()
    SmallBackbone.save(config.out, encoder)
    checkpoint.unlink(missing_ok=True)
    write_manifest(config.out, "pretrain", config, inputs, config.seed, started, outputs=["model.safetensors"])


class PartLesson:
    """Frames of which each pixel's part is known, and what it costs to mistake them [ours].

    Every part of the picture is a lesson of its own, in many places and sizes, so what is learnt here holds for scenes that
    were never seen, if they are made of parts that were; the state alone teaches only where things are.
    """

    def __init__(self, parts: Parts, kept_aside: np.ndarray) -> None:
        used = ~kept_aside[parts.rows]
        self._rows, self._masks = parts.rows[used], parts.masks[used]
        counts = np.bincount(self._masks.ravel(), minlength=len(parts.names))
        visible = [name for name, count in zip(parts.names, counts, strict=True) if count and name not in ROOM_PARTS]
        self.names = (*ROOM_PARTS, *visible)
        """What the encoder's maps stand for; a part that no picture shows is none."""
        number = np.array([self.names.index(name) if name in self.names else 0 for name in parts.names], np.uint8)
        self._masks = number[self._masks]
        share = np.bincount(self._masks.ravel(), minlength=len(self.names)) / self._masks.size
        weights = torch.from_numpy((1.0 / (share + 1e-3)) ** 0.3).float()  # a button is a thousandth of the table
        self._weights = weights / weights.max()

    def draw(self, bank: FrameBank, count: int, rng: np.random.Generator, device: torch.device) -> tuple[Tensor, Tensor]:
        """Pictures (count, 3, H, W), moved, scaled, mirrored and coloured at random, and what they show, (count, h, w).

        That is the part in the middle of each square of the encoder's maps.
        """
        chosen = rng.integers(len(self._rows), size=count)
        images = shift_colours(to_images(bank.frames(self._rows[chosen]), device), rng)
        views = random_views(count, rng).to(device)
        squares = [size // STRIDE for size in images.shape[2:]]
        parts = torch.from_numpy(self._masks[chosen]).to(device)[:, None].float()
        return sample(images, views, images.shape[2:], "bilinear"), sample(parts, views, squares, "nearest")[:, 0].long()

    def loss(self, logits: Tensor, parts: Tensor) -> Tensor:
        """Cross-entropy of logits (N, K, h, w) and parts (N, h, w), rare parts weighted up."""
        return F.cross_entropy(logits, parts, self._weights.to(logits.device))


def sample(pictures: Tensor, views: Tensor, size: Sequence[int], mode: str) -> Tensor:
    """pictures (N, C, H, W) seen through affine maps (N, 2, 3), drawn at `size` (h, w)."""
    grid = F.affine_grid(views, [len(pictures), 1, *size], align_corners=False)
    return F.grid_sample(pictures, grid, mode=mode, padding_mode="border", align_corners=False)


def random_views(count: int, rng: np.random.Generator, shift: float = 0.24, zoom: float = 0.2) -> Tensor:
    """Affine maps (count, 2, 3) of picture coordinates in [-1, 1]: moved, scaled, and half of them mirrored."""
    scale = rng.uniform(1 - zoom, 1 + zoom, count)
    views = np.zeros((count, 2, 3), np.float32)
    views[:, 0, 0] = scale * rng.choice([-1, 1], count)
    views[:, 1, 1] = scale
    views[:, :, 2] = rng.uniform(-shift, shift, (count, 2))
    return torch.from_numpy(views)


def standardiser(states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (18,) of the state over all frames; constant entries get deviation 1."""
    half = states[:, :STATE_SIZE]
    std = half.std(0)
    return half.mean(0), np.where(std > 1e-4, std, 1.0)


def held_out(bank: FrameBank, share: float, seed: int) -> np.ndarray:
    """Whole episodes to keep aside, as a mask over frames (M,): neighbouring frames would give the answer away."""
    episodes = bank.index.groupby(["task", "level", "episode"]).ngroup().to_numpy()
    chosen = np.random.default_rng(seed).random(episodes.max() + 1) < share
    chosen[0] = True  # never an empty measurement
    return chosen[episodes]


def to_images(frames: np.ndarray, device: torch.device) -> Tensor:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(frames).to(device).permute(0, 3, 1, 2).float() / 255.0


def shift_colours(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Random gain and offset a colour channel and picture: held-out tasks bring other colours."""
    n = len(images)
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (n, 3, 1, 1)).astype(np.float32)).to(images.device)
    offset = torch.from_numpy(rng.uniform(-0.1, 0.1, (n, 3, 1, 1)).astype(np.float32)).to(images.device)
    return (images * gain + offset).clamp(0.0, 1.0)


def schedule(step: int, steps: int, warmup: int = 50) -> float:
    """Linear warm-up, then cosine to 2 %: a factor on the learning rate."""
    return min(1.0, step / warmup) * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * step / steps)))


def step_rate(first: int, step: int, clock: float) -> float:
    """Steps a second since step `first` at time `clock`."""
    return (step - first) / max(time.time() - clock, 1e-9)


@torch.no_grad()
def state_error(
    encoder: SmallEncoder, bank: FrameBank, rows: np.ndarray, targets: Tensor, device: torch.device, most: int = 512
) -> float:
    """Mean absolute error of the state estimate on episodes kept aside, in standard deviations of each entry."""
    encoder.eval()
    rows = rows[:: max(1, len(rows) // most)]
    error = (encoder(to_images(bank.frames(rows), device))[1].cpu() - targets[rows]).abs().mean()
    encoder.train()
    return error.item()


def _resumable(config: PretrainConfig) -> dict[str, object]:
    """What must not change when training is resumed; paths and thread counts may."""
    return without(plain(config), (*NO_MATTER, "clips"))
