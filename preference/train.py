"""`robopref train-vlp`: preference orders, drawn on the fly, teach VLP to score (clip, instruction).

Comes from frame banks and a backbone; goes to annotation.  Frames are encoded once and cached; a step then costs only the
cross-modal model.  Each clip and each sentence of a batch is encoded once, whatever number of scores it enters.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from robopref.configs.checkpoint import (
    digests,
    pack_optimizer,
    resume,
    rng_state,
    save_model,
    save_tensors,
)
from robopref.configs.errors import RoboprefError
from robopref.configs.files import NO_MATTER, plain, without
from robopref.configs.finite import check_losses
from robopref.configs.progress import counted, tell_end
from robopref.configs.run import MetricsLogger, is_complete, seed_everything, write_manifest
from robopref.configs.run_folder import MODEL, run_folder
from robopref.configs.stopping import Stopping
from robopref.configs.vlp import TrainVLPConfig
from robopref.datasets.clips import FRAMES, FrameBank, Stacked
from robopref.embodied.tasks import expand_tasks
from robopref.preference.backbone import Backbone, backbone_files, keep_backbone, load_backbone
from robopref.preference.factored import FactoredVLP, match_loss, progress_loss
from robopref.preference.features import cached_features
from robopref.preference.hub import PICTURES
from robopref.preference.orders import OrderSampler
from robopref.preference.pretrain import schedule, step_rate
from robopref.preference.ranks import Ranks, starts_first
from robopref.preference.unusual import TrainingPictures
from robopref.preference.vlp import KIND, VLP, build, vlp_loss

CHECKPOINT = "vlp-training"
STATE_FRAMES = 20_000  # at most, that the factored model learns to read the state from
PLACES = (*NO_MATTER, "clips", "features", "devices", "num_nodes", "strategy")  # may differ when training is resumed


def main(config: TrainVLPConfig) -> None:
    """`robopref train-vlp`."""
    began = time.time()
    out = run(config)
    tell_end(
        out,
        began,
        f"VLP of {counted(config.steps, 'step')}",
        "robopref",
        "annotate",
        "--model",
        str(out),
        "--episodes",
        "DATASET",
    )


def run(config: TrainVLPConfig) -> Path:
    """Train VLP as `config` says; return its folder.  A finished one is kept, an interrupted one goes on."""
    tasks = expand_tasks(config.tasks)
    inputs = {name: config.clips / name for name in tasks} | backbone_files(config.backbone)
    alone = config.devices * config.num_nodes == 1
    writes = (*MODEL, PICTURES, "backbone/*")
    folder = (
        run_folder(config.out, "train-vlp", config, inputs, overwrite=config.overwrite, writes=writes)
        if alone or starts_first()
        else nullcontext(not config.overwrite and is_complete(config.out, config, inputs))
    )
    with folder as complete:
        if not complete:
            learn(config, tasks, inputs)
    return config.out


def learn(config: TrainVLPConfig, tasks: Sequence[str], inputs: Mapping[str, Path]) -> None:
    """From the checkpoint on, if there is one, to a finished folder."""
    started = time.time()
    ranks = Ranks(config.device, config.devices, config.num_nodes, config.strategy)
    if config.batch % ranks.size:
        raise RoboprefError(f"batch={config.batch} cannot be shared evenly by {ranks.size} processes: choose a multiple")
    device = ranks.device
    torch.set_num_threads(config.threads)
    rng = seed_everything(config.seed)
    bank = FrameBank([config.clips / name for name in tasks])
    backbone = load_backbone(config.backbone, str(device))
    cache = config.features or config.out / "features"
    if ranks.first:
        cached_features(bank, backbone, cache)
    ranks.wait()
    features = cached_features(bank, backbone, cache)
    sampler = OrderSampler(bank.index, tasks, config.orders)
    texts = TextTable(sampler, backbone, device)

    shape = {
        "frames": FRAMES,
        "tokens_per_frame": backbone.tokens_per_frame,
        "image_dim": backbone.image_dim,
        "text_dim": backbone.text_dim,
        "scene_dim": backbone.scene_dim,
    }
    model = build(config.model, shape).to(device)
    standardise(model, features)
    if isinstance(model, FactoredVLP):
        every = max(1, len(features) // STATE_FRAMES)
        model.fit_state(features[::every], bank.states[::every])
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay, fused=True)
    checkpoint = config.out / "checkpoint.safetensors"
    identity = without(plain(config), PLACES) | digests(inputs)
    first = 0
    if checkpoint.exists():
        first = resume(checkpoint, CHECKPOINT, identity, model, optimizer, rng)
    ranks.wait()  # nobody writes a checkpoint before all have read the last one
    logger = MetricsLogger(config.out, first if first else -1, config.steps) if ranks.first else None

    clock = time.time()
    model.train()
    with Stopping(config.checkpoint_every, signals=ranks.size == 1) as stopping:
        for step in range(first + 1, config.steps + 1):
            for group in optimizer.param_groups:
                group["lr"] = config.lr * schedule(step, config.steps, config.warmup)
            if isinstance(model, FactoredVLP):
                loss, metrics = factored_training_loss(model, features, sampler, texts, config, rng, ranks)
            else:
                loss, metrics = training_loss(model, features, sampler, texts, config, rng, ranks)
            descend(loss, model, optimizer, ranks)
            if step % config.log_every == 0 or step == config.steps:
                ranks.average(metrics.values())
                check_losses(metrics, config.out)
                rate = {"charts/tuples_per_second": step_rate(first, step, clock) * config.batch}
                if logger is not None:
                    logger.log(step, {f"losses/{k}": float(v) for k, v in metrics.items()} | rate)
            if ranks.first and stopping.due(step) and step < config.steps:
                tensors, meta = pack_optimizer(optimizer, "optimizer")
                rng_tensors, rng_meta = rng_state(rng)
                weights = {f"model.{k}": v for k, v in model.state_dict().items()}
                meta |= rng_meta | {"kind": CHECKPOINT, "step": step, "identity": identity}
                save_tensors(checkpoint, weights | tensors | rng_tensors, meta)
                stopping.leave(f"step {step} of {config.steps}", checkpoint)
    if logger is not None:
        logger.close()
        save(config, model, backbone, bank)
        checkpoint.unlink(missing_ok=True)
        write_manifest(config.out, "train-vlp", config, inputs, config.seed, started, outputs=["model.safetensors"])
    ranks.wait()


def training_loss(
    model: VLP,
    features: Stacked,
    sampler: OrderSampler,
    texts: TextTable,
    config: TrainVLPConfig,
    rng: np.random.Generator,
    ranks: Ranks,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Eq. 4 on this process's share of a fresh batch of tuples."""
    device = ranks.device
    tuples = sampler.draw(config.batch, rng)
    rows = {"a": tuples.a[ranks.share], "b": tuples.b[ranks.share], "other": tuples.other[ranks.share]}
    sentences = {"own": tuples.own[ranks.share], "foreign": tuples.foreign[ranks.share]}
    asked = {  # the name of each score -> which clip, under which sentence
        "a": ("a", "own"),
        "b": ("b", "own"),
        "other": ("other", "own"),
        "foreign_a": ("a", "foreign"),
        "foreign_b": ("b", "foreign"),
    }
    if config.orders.progress_weight > 0:
        earlier, later, said = sampler.draw_progress(config.batch, rng)
        rows |= {"earlier": earlier[ranks.share], "later": later[ranks.share]}
        sentences["expert"] = said[ranks.share]
        asked |= {"earlier": ("earlier", "expert"), "later": ("later", "expert")}
    clips = torch.from_numpy(features[np.concatenate(list(rows.values()))].astype(np.float32)).to(device)
    clips = clips + config.feature_noise * model.image_std * torch.randn_like(clips)
    words, mask = texts.look_up([sentence for group in sentences.values() for sentence in group])
    # One call for all scores: the cross-attention of several hundred pairs at once is what the processor likes.
    clip_rows = dict(zip(rows, torch.arange(len(clips), device=device).chunk(len(rows)), strict=True))
    sentence_rows = dict(zip(sentences, torch.arange(len(words), device=device).chunk(len(sentences)), strict=True))
    scores = model.score(
        model.encode_video(clips),
        model.encode_text(words, mask),
        mask,
        torch.cat([clip_rows[clip] for clip, _ in asked.values()]),
        torch.cat([sentence_rows[said] for _, said in asked.values()]),
    )
    label = torch.from_numpy(tuples.label[ranks.share].copy()).to(device)
    return vlp_loss(dict(zip(asked, scores.chunk(len(asked)), strict=True)), label, config.orders)


def factored_training_loss(
    model: FactoredVLP,
    features: Stacked,
    sampler: OrderSampler,
    texts: TextTable,
    config: TrainVLPConfig,
    rng: np.random.Generator,
    ranks: Ranks,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Progress from orders within a task, match from which scene and sentence belong together, on this process's share.

    lambda_1 and lambda_2 weigh the two directions of match; at the paper's values both weigh one.  Of several processes each
    tells the scenes and sentences of its own share apart.
    """
    device, share, orders = ranks.device, ranks.share, config.orders
    tuples = sampler.draw(config.batch, rng)
    label = tuples.label[share, None] > 0.5
    pairs = [(np.where(label, tuples.a[share], tuples.b[share]), np.where(label, tuples.b[share], tuples.a[share]))]
    draws = ((sampler.draw_prefixes, orders.prefix_share), (sampler.draw_later, orders.later_share))
    for draw, times in draws:
        if times > 0:
            worse, better = draw(round(times * config.batch), rng)
            pairs.append((worse[share], better[share]))
    clips = np.concatenate([side for sides in zip(*pairs, strict=True) for side in sides])  # all worse ones, all better ones
    scenes, said, tasks = sampler.draw_scenes(config.batch, rng)

    def look(rows: np.ndarray) -> Tensor:
        seen = torch.from_numpy(features[rows].astype(np.float32)).to(device)
        seen = ((seen - model.image_mean) / model.image_std).mean(-2)
        return seen + config.feature_noise * torch.randn_like(seen)

    low, high = model.progress(look(clips)).chunk(2)
    own = len(tuples.a[share])
    words, mask = texts.look_up(said[share])
    number = torch.from_numpy(tasks[share]).to(device)
    match = match_loss(
        model.embed_opening(look(scenes[share])),
        model.encode_text(words, mask),
        number[:, None] == number,
        model.temperatures(),
        (2 * orders.ivp_weight, 10 * orders.ilp_weight),
    )
    weights = torch.ones(len(low), device=device)
    weights[:own] = orders.itp_weight
    progress = progress_loss(low, high, weights)
    loss = progress + match
    metrics = {
        "loss": loss.detach(),
        "progress": progress.detach(),
        "match": match.detach(),
        "itp_accuracy": (high > low)[:own].float().mean(),
    }
    return loss, metrics


def descend(loss: Tensor, model: VLP | FactoredVLP, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
    """One optimiser step on `loss`, with gradients averaged over the processes and their norm clipped to 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    ranks.average(parameter.grad for parameter in model.parameters() if parameter.grad is not None)
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()


class TextTable:
    """The word vectors of every training sentence, encoded once."""

    def __init__(self, sampler: OrderSampler, backbone: Backbone, device: torch.device) -> None:
        sentences = sorted({sentence for name in sampler.tasks for sentence in sampler.instructions[name]})
        self._row = {sentence: i for i, sentence in enumerate(sentences)}
        words, mask = backbone.encode_text(sentences)
        self._words, self._mask = words.to(device), mask.to(device)

    def look_up(self, sentences: list[str]) -> tuple[Tensor, Tensor]:
        """Word vectors (M, L, Dt) and mask (M, L) of the given sentences."""
        rows = torch.tensor([self._row[sentence] for sentence in sentences], device=self._words.device)
        return self._words[rows], self._mask[rows]


def standardise(model: VLP | FactoredVLP, features: Stacked, most: int = 4096) -> None:
    """Set the model's feature statistics from (at most `most` of) the training frames."""
    sample = features[:: max(1, len(features) // most)].astype(np.float32)
    model.image_mean.copy_(torch.from_numpy(sample.mean(0)))
    model.image_std.copy_(torch.from_numpy(sample.std(0) + 1e-3))


def save(config: TrainVLPConfig, model: VLP | FactoredVLP, backbone: Backbone, bank: FrameBank) -> None:
    """Write the model; a small backbone is copied into the folder, so that the folder alone scores clips."""
    settings = {
        "model": asdict(config.model),
        "shape": model.shape,
        "backbone": keep_backbone(config.backbone, config.out),
        "backbone_digest": backbone.digest,
        "camera": bank.camera,
        "frame_size": bank.frames(np.array([0])).shape[1],
        "orders": asdict(config.orders),
        "tasks": list(config.tasks),
    }
    TrainingPictures.of(bank).save(config.out)
    save_model(config.out, KIND, model.state_dict(), settings)
