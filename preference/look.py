"""`robopref attention`: a VLP and a few clips -> pictures with heat where it looks, and the numbers behind them.

Comes after VLP training; ends before the reader's eyes.  What is shown is drawn anew, larger than what the model sees.

Axes: T frames after the opening, P tokens a frame, G cells a side.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from robopref.configs.errors import RoboprefError, UsageError, nearest
from robopref.configs.files import atomic_file
from robopref.configs.progress import tell_end
from robopref.configs.run import choose_device, write_manifest
from robopref.configs.run_folder import FLAGS, run_folder
from robopref.configs.show import AttentionConfig
from robopref.datasets.clips import Segment, frame_steps, render_clips
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.videos import find_videos, video_clip
from robopref.embodied.envs import make_env
from robopref.embodied.heat import bar, paint, sheet
from robopref.embodied.render import Renderer
from robopref.embodied.tasks import canonical
from robopref.preference.annotate import check_instruction
from robopref.preference.attention import CrossAttentionMean
from robopref.preference.broken import find_broken, refuse_broken
from robopref.preference.hub import WEIGHTS, find_model
from robopref.preference.occlusion import occlusion
from robopref.preference.vlp import VLPScorer

MAPS = "maps.csv"


@dataclass(frozen=True)
class Clip:
    """One clip twice: as the model sees it, and as it is shown."""

    name: str
    said: str
    about: str
    seen: np.ndarray  # (1 + T, H, W, 3)
    shown: np.ndarray  # (T, size, size, 3)
    captions: list[str]  # (T,)


@dataclass(frozen=True)
class Map:
    """Heat of one clip: one map of cells for all frames, or one a frame."""

    score: float
    notes: str
    pictures: list[np.ndarray]  # (T) of the second row
    numbers: pd.DataFrame  # frame, top, left, side (shares of the picture), value


def main(config: AttentionConfig) -> None:
    """`robopref attention`."""
    began = time.time()
    out = run(config)
    for path in sorted(out.glob("*.png")):
        print(path)
    tell_end(out, began, f"a picture a clip, and their numbers in {MAPS}")


def run(config: AttentionConfig) -> Path:
    """Draw every clip that `config` asks for; return the folder.  What is already there is kept."""
    check_config(config)
    videos = find_videos(config.videos)
    refuse_broken(find_broken(videos, whole=False), len(videos))
    model = find_model(config.model, "vlp")
    inputs = {"model": model / WEIGHTS} | {str(path): path for path in (*config.episodes, *videos)}
    writes = (MAPS, "[0-9][0-9]-*.png")
    with run_folder(config.out, "attention", config, inputs, overwrite=config.overwrite, words=FLAGS, writes=writes) as complete:
        if not complete:
            refuse_broken(find_broken(videos, whole=True, workers=config.threads), len(videos))
            draw(config, videos, model, inputs)
    return config.out


def draw(config: AttentionConfig, videos: list[Path], model: Path, inputs: Mapping[str, Path]) -> None:
    """A picture a clip, and a table of all values of heat."""
    started = time.time()
    import torch

    torch.set_num_threads(config.threads)
    vlp = VLPScorer.load(model, str(choose_device(config.device)))
    outputs, tables = [], []
    clips = of_episodes(config, vlp) if config.episodes else of_videos(config, videos, vlp)
    for number, clip in enumerate(clips):
        found = occluded(config, vlp, clip) if config.method == "occlusion" else attended(vlp, clip)
        picture = sheet([list(clip.shown), found.pictures], clip.said, [clip.about, found.notes], clip.captions)
        outputs.append(f"{number:02d}-{clip.name}.png")
        with atomic_file(config.out / outputs[-1]) as temp:
            Image.fromarray(picture).save(temp)
        tables.append(found.numbers.assign(clip=outputs[-1].removesuffix(".png"), instruction=clip.said, score=found.score))
    with atomic_file(config.out / MAPS) as temp:
        columns = ["clip", "instruction", "score", "frame", "top", "left", "side", "value"]
        pd.concat(tables)[columns].to_csv(temp, index=False, float_format="%.6g", lineterminator="\n")
    write_manifest(config.out, "attention", config, inputs, 0, started, [*outputs, MAPS])


def check_config(config: AttentionConfig) -> None:
    """Raise `UsageError` for settings that do not go together."""
    problem = None
    if bool(config.episodes) == bool(config.videos):
        problem = "give either --episodes DIR or --videos FILES"
    elif min(config.clips, config.size, config.chunk, config.threads) < 1 or config.grid < 2:
        problem = "--clips, --size, --chunk and --threads must be at least 1, and --grid at least 2"
    elif not 0 < config.square < 1:
        problem = f"--square {config.square} is a share of the picture's side: above 0 and below 1"
    elif config.videos and config.instruction is None:
        problem = "--videos needs --instruction: say what the robot should do there, such as --instruction 'close the drawer'"
    if problem:
        raise UsageError(f"attention: {problem}")
    if config.instruction is not None:
        check_instruction(config.instruction)
    for path in config.episodes:  # before the model is loaded
        EpisodeStore(path)


def of_episodes(config: AttentionConfig, vlp: VLPScorer) -> Iterator[Clip]:
    """The first episodes of the wanted level of every dataset, each drawn small for the model and large for the eye."""
    for path in config.episodes:
        store = EpisodeStore(path)
        said = check_instruction(canonical(store.task) if config.instruction is None else config.instruction)
        levels = sorted(store.index["level"].unique())
        if config.level not in levels:
            raise RoboprefError(
                f"{path}: no {config.level} episode, --level is one of {', '.join(levels)}.{nearest(config.level, levels)}"
            )
        rows = store.index[store.index["level"] == config.level].head(config.clips)
        whole = [Segment(int(episode), 0, int(length)) for episode, length in zip(rows["episode"], rows["length"], strict=True)]
        with closing(make_env(store.env_id)) as env:
            env.reset(seed=0)
            with (
                Renderer(env, vlp.frame_size, vlp.camera) as small,
                Renderer(env, config.size, vlp.camera, config.quality) as large,
            ):
                drawn = (render_clips(store, whole, renderer, vlp.frames) for renderer in (small, large))
                for episode, seen, shown in zip(whole, *drawn, strict=True):
                    name = f"{store.task}-episode-{episode.episode}"
                    steps = [f"step {step}" for step in frame_steps(0, episode.stop, vlp.frames)]
                    about = f"{store.task}, {config.level} episode {episode.episode}"
                    yield Clip(name, said, about, seen, shown[1:], steps)


def of_videos(config: AttentionConfig, videos: list[Path], vlp: VLPScorer) -> Iterator[Clip]:
    """Every video, once as small as the model sees it and once as large as it is shown."""
    said = check_instruction(config.instruction)
    for path in videos:
        seen, shown = (video_clip(path, vlp.frames, size) for size in (vlp.frame_size, config.size))
        captions = [f"frame {number + 1} of {vlp.frames}" for number in range(vlp.frames)]
        yield Clip(path.stem, said, path.name, np.concatenate([seen[:1], seen]), shown, captions)


def occluded(config: AttentionConfig, vlp: VLPScorer, clip: Clip) -> Map:
    """How far the score falls without each square; one map, shown over every frame."""
    found = occlusion(vlp, clip.seen, clip.said, config.square, config.grid, config.chunk)
    size = clip.seen.shape[1]
    heat = found.heat(clip.shown.shape[1]) / max(np.abs(found.falls).max(), 1e-9)
    most, least = max(found.falls.max(), 0.0), max(-found.falls.min(), 0.0)
    notes = (
        f"Score {found.score:.2f}.  Red: covering this place in all frames lowers it, by up to {most:.2f}; "
        f"blue: raises it, by up to {least:.2f}.  Squares of {found.side} of {size} pixels."
    )
    top, left = (axis.ravel() / size for axis in np.meshgrid(found.corners, found.corners, indexing="ij"))
    numbers = pd.DataFrame({"frame": "all", "top": top, "left": left, "side": found.side / size, "value": found.falls.ravel()})
    return Map(found.score, notes, [paint(picture, heat) for picture in clip.shown], numbers)


def attended(vlp: VLPScorer, clip: Clip) -> Map:
    """Where the words attend, frame by frame: patches where a frame has several tokens, else a bar a frame."""
    score, shares = word_attention(vlp, clip.seen, clip.said)
    cells = round(shares.shape[1] ** 0.5)
    if cells**2 != shares.shape[1]:
        raise RoboprefError(f"{shares.shape[1]} tokens a frame are no square of patches; use --method occlusion.")
    last = shares[-len(clip.shown) :]  # an opening that the model looks at comes before them
    strongest = last.max()
    if cells == 1:
        pictures = [bar(picture, share, share / strongest) for picture, (share,) in zip(clip.shown, last, strict=True)]
        where = "This backbone has one token a frame, so attention says which frames, and nothing about places"
    else:
        maps = (last / strongest).reshape(-1, cells, cells)
        pictures = [paint(picture, heat) for picture, heat in zip(clip.shown, maps, strict=True)]
        where = f"Red: up to {strongest:.2%} of the attention on one patch"
    notes = (
        f"Score {score:.2f}.  {where}; {1 / shares.size:.2%} would be even.  "
        "Mean over heads and words; no measure of importance: patches are mixed before they are attended to."
    )
    frames = [*["opening"] * (len(shares) - len(last)), *range(len(last))]
    row, column = (axis.ravel() for axis in np.indices((cells, cells)))
    numbers = pd.DataFrame(
        {
            "frame": np.repeat(np.array(frames, object), cells**2),
            "top": np.tile(row / cells, len(frames)),
            "left": np.tile(column / cells, len(frames)),
            "side": 1 / cells,
            "value": shares.ravel(),
        }
    )
    return Map(score, notes, pictures, numbers)


def word_attention(vlp: VLPScorer, clip: np.ndarray, instruction: str) -> tuple[float, np.ndarray]:
    """f(v | l) of clip (1 + T, H, W, 3), and the shares of attention from its words to its frames, (T or 1 + T, P), sum 1.

    Read by a hook while the model scores the clip.  RoboprefError for a model without cross-attention of this kind.
    """
    block = getattr(vlp.model, "text_to_video", None)
    if not isinstance(block, CrossAttentionMean):
        raise RoboprefError("This model has no cross-attention from words to frames; use --method occlusion, which any has.")
    found: list[np.ndarray] = []
    hook = block.register_forward_pre_hook(
        lambda block, args, named: found.append(block.shares(*args, **named)[0].cpu().numpy()), with_kwargs=True
    )
    try:
        (score,) = vlp.score(clip[None], [instruction])
    finally:
        hook.remove()
    return float(score), found[0].reshape(-1, vlp.backbone.tokens_per_frame)
