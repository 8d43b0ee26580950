"""`python -m robopref.preference.baselines.train`: the small contrastive model, a few seconds a seed.

Comes from frame banks and a backbone, as VLP's training does, but is told no order of clips: a batch holds one moment a task
in which an expert has done it, and one sentence that asks for it.  Goes to the labellers cosine, vlm-rm and roboclip.

Axes: B tasks, K frames that the model sees at once, M frames of the banks, P tokens a frame, D features.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from robopref.configs.baselines import ContrastiveConfig
from robopref.configs.checkpoint import save_model
from robopref.configs.cli import guarded
from robopref.configs.errors import RoboprefError
from robopref.configs.finite import check_losses
from robopref.configs.flags import from_flags
from robopref.configs.run import MetricsLogger, choose_device, is_complete, seed_everything, write_manifest
from robopref.configs.run_folder import FLAGS, MODEL, run_folder
from robopref.datasets.clips import FRAMES, FrameBank, Stacked
from robopref.embodied.tasks import expand_tasks, instructions
from robopref.preference.backbone import Backbone, backbone_files, keep_backbone, load_backbone
from robopref.preference.baselines.contrastive import KIND, DualEncoder, Shape, info_nce
from robopref.preference.features import cached_features
from robopref.preference.pretrain import schedule, step_rate

LOG_EVERY = 25


def main(argv: list[str]) -> None:
    """Command line."""
    prog = "python -m robopref.preference.baselines.train"
    for folder in run(from_flags(ContrastiveConfig, argv, prog, __doc__)):
        print(f"{folder}: contrastive model; next: robopref annotate --labeller cosine --baseline.encoder contrastive:{folder}")


def run(config: ContrastiveConfig) -> list[Path]:
    """Train a model a seed; return their folders.  Finished ones are kept."""
    tasks = expand_tasks(config.tasks)
    if len(tasks) < 2:
        raise RoboprefError("InfoNCE tells tasks apart, so it needs at least two; collect more of them.")
    inputs = {name: config.clips / name for name in tasks} | backbone_files(config.backbone)
    device = choose_device(config.device)
    torch.set_num_threads(config.threads)
    folders = {seed: config.out / f"seed-{seed}" for seed in config.seeds}
    missing = {
        seed: folder
        for seed, folder in folders.items()
        if config.overwrite or not is_complete(folder, replace(config, seeds=(seed,)), inputs)
    }
    if missing:
        bank = FrameBank([config.clips / name for name in tasks])
        backbone = load_backbone(config.backbone, str(device))
        features = cached_features(bank, backbone, config.features or config.out / "features")
        for seed, folder in missing.items():
            own = replace(config, seeds=(seed,))
            writes = (*MODEL, "backbone/*")
            with run_folder(folder, "contrastive", own, inputs, overwrite=config.overwrite, words=FLAGS, writes=writes):
                train(own, folder, bank, backbone, features, device, inputs)
    return list(folders.values())


def train(
    config: ContrastiveConfig,
    folder: Path,
    bank: FrameBank,
    backbone: Backbone,
    features: Stacked,
    device: torch.device,
    inputs: dict[str, Path],
) -> None:
    """One seed, from nothing to its folder: `config.seeds` holds it alone."""
    started = time.time()
    (seed,) = config.seeds
    rng = seed_everything(seed)
    frames = 1 if config.sees == "frame" else FRAMES
    tasks = expand_tasks(config.tasks)
    done = Achievements(bank.index, tasks, frames)
    model = DualEncoder(Shape(frames, backbone.image_dim, backbone.text_dim, config.hidden, config.dim)).to(device)
    sample = torch.from_numpy(features[:: max(1, len(features) // 4096)].astype(np.float32)).mean(1)
    model.image_mean.copy_(sample.mean(0))
    model.image_std.copy_(sample.std(0) + 1e-3)
    sentences = sorted({sentence for name in tasks for sentence in instructions(name)})
    row_of = {sentence: row for row, sentence in enumerate(sentences)}
    words, mask = (part.to(device) for part in backbone.encode_text(sentences))
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)

    clock = time.time()
    with MetricsLogger(folder, total=config.steps) as logger:
        for step in range(1, config.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * schedule(step, config.steps)
            rows, said = done.draw(rng)
            seen = model.standardise(torch.from_numpy(features[rows].astype(np.float32)).to(device).mean(2))  # (B, K, D)
            seen = seen + config.noise * torch.randn_like(seen)
            asked = [row_of[sentence] for sentence in said]
            texts = model.embed_texts(words[asked], mask[asked])
            loss, metrics = info_nce(model.embed_images(seen), texts, model.scale)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % LOG_EVERY == 0 or step == config.steps:
                check_losses(metrics, folder)
                rate = {"charts/steps_per_second": step_rate(0, step, clock)}
                logger.log(step, {f"losses/{name}": float(value) for name, value in metrics.items()} | rate)
    settings = {
        "shape": asdict(model.shape),
        "backbone": keep_backbone(config.backbone, folder),
        "backbone_digest": backbone.digest,
        "camera": bank.camera,
        "frame_size": bank.frames(np.array([0])).shape[1],
        "tasks": list(tasks),
    }
    save_model(folder, KIND, model.state_dict(), settings)
    write_manifest(folder, "contrastive", config, inputs, seed, started, outputs=["model.safetensors"])


class Achievements:
    """Moments in which a task has been done: one frame from success on, or the frames of an expert clip that ends there."""

    def __init__(self, index: pd.DataFrame, tasks: Sequence[str], frames: int) -> None:
        """index: of the bank.  frames: K, how many at a time."""
        self.tasks, self.frames = tasks, frames
        self._episodes: dict[str, list[tuple[int, int, int]]] = {name: [] for name in tasks}
        steps, successes = index["step"].to_numpy(), index["success_step"].to_numpy()
        for (name, level, _), rows in index.groupby(["task", "level", "episode"], sort=True).indices.items():
            if level != "expert" or name not in self._episodes:
                continue
            first, last = int(rows[0]), int(rows[-1])
            reached = successes[last] if successes[last] >= 0 else steps[last]
            done = min(first + int(np.searchsorted(steps[first : last + 1], reached)), last)
            self._episodes[name].append((first, done, last))
        missing = [name for name in tasks if not self._episodes[name]]
        if missing:
            raise RoboprefError(f"The frame banks hold no expert episode of {missing[0]}; collect it first.")
        self._instructions = {name: instructions(name) for name in tasks}

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
        """One moment a task, rows (B, K) of the bank, and a train wording of each task.

        A clip is a whole episode or, as often, consecutive frames: episodes and segments are both asked about.
        """
        moments, said = [], []
        for name in self.tasks:
            first, done, last = self._episodes[name][rng.integers(len(self._episodes[name]))]
            end = int(rng.integers(done, last + 1))
            whole = self.frames > 1 and rng.random() < 0.5
            start = first if whole else max(first, end - self.frames + 1)
            moments.append(np.linspace(start, end, self.frames).round().astype(int))
            said.append(self._instructions[name][rng.integers(len(self._instructions[name]))])
        return np.stack(moments), said


if __name__ == "__main__":
    sys.exit(guarded(lambda: main(sys.argv[1:])))
