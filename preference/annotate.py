"""`robopref annotate`: pairs of episode segments, or of videos -> labels P(b preferred), one Parquet file.

Comes after VLP training, on data that VLP never saw; goes to reward learning and direct preference optimisation.  Each
clip is scored once, however many pairs it is in; a killed run goes on where it was.

Axes: N clips, P pairs, T frames.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import tyro

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import MANIFEST, digest, plain, read_json, write_json
from robopref.configs.run import choose_device, is_complete, write_manifest
from robopref.datasets.clips import Segment
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import COLUMNS, read_preferences, write_preferences
from robopref.datasets.videos import find_videos
from robopref.embodied.tasks import canonical
from robopref.preference.agreement import NEAR_TIE, agreement, format_table
from robopref.preference.baselines.chat import Chat
from robopref.preference.baselines.goal_image import Goals, read_goal
from robopref.preference.baselines.load import BASELINES, PAIRWISE, files, lacking, load_baseline
from robopref.preference.baselines.rl_vlm_f import LastFrames, label_pairs
from robopref.preference.features import FeatureScorer
from robopref.preference.hub import WEIGHTS, find_model
from robopref.preference.labellers import Constant, HumanFile, Scorer, ScriptedReturn, labels_from_scores
from robopref.preference.pairs import choose_segments, choose_videos
from robopref.preference.scoring import Clips, open_clips, score_in_chunks, true_returns
from robopref.preference.vlp import VLPScorer

LONGEST_INSTRUCTION = 300  # characters; the encoders set limits of their own: 24 words (small), 77 tokens (CLIP)
AGREEMENT = "agreement.json"
ANSWERS = "answers"  # of the model that rl-vlm-f asks: paid for, so kept
UNFINISHED = ".scores-"


def main(argv: list[str]) -> None:
    """Command line of `robopref annotate`."""
    config = tyro.cli(AnnotateConfig, args=argv, prog="robopref annotate", description=__doc__)
    print(summary(run(config)))


def run(config: AnnotateConfig) -> Path:
    """Label the pairs that `config` asks for; return the file.  A finished one is kept, an interrupted one goes on."""
    started = time.time()
    check_config(config)
    videos = find_videos(config.videos)
    model = find_model(config.model) if config.labeller == "vlp" and config.model is not None else None
    inputs = list_inputs(config, videos, model)
    side = side_folder(config.out)
    if config.out.exists() and is_complete(side, config, inputs):
        return config.out
    (side / MANIFEST).unlink(missing_ok=True)  # it must not vouch for what other settings write
    rng = np.random.default_rng(config.seed)
    store = EpisodeStore(config.episodes) if config.episodes else None
    said = canonical(store.task) if config.instruction is None and store is not None else config.instruction
    instruction = check_instruction(said)
    if store is not None:
        segments, pairs = choose_segments(config, store, rng)
        clips: Clips = segments
        returns = true_returns(store, segments)
    else:
        clips, pairs = choose_videos(config, videos, rng)
        returns = None

    table = pair_table(clips, pairs, store.task if store is not None else "", instruction, config.labeller)
    if config.labeller == "human":
        people = config.human_file or config.pairs_file
        assert people is not None
        table["label"] = HumanFile(people).label(table)
    elif config.labeller == PAIRWISE:
        chat = Chat(config.chat, side / ANSWERS)
        with open_clips(store, clips, LastFrames()) as draw:
            table["label"] = label_pairs(chat, pairs, draw, instruction)
    else:
        scores = score_clips(config, model, store, clips, returns, instruction)
        score_a, score_b = scores[pairs].T
        label = labels_from_scores(score_a, score_b, config.hard, config.tie_margin)
        table = table.assign(score_a=score_a, score_b=score_b, label=label)
    side.mkdir(parents=True, exist_ok=True)
    if returns is not None:
        write_json(side / AGREEMENT, measure(table, returns[pairs]))
    else:
        (side / AGREEMENT).unlink(missing_ok=True)
    write_preferences(config.out, table)
    write_manifest(side, "annotate", config, inputs, config.seed, started, outputs=[config.out.resolve()])
    for folder in side.glob(f"{UNFINISHED}*"):
        shutil.rmtree(folder)
    return config.out


def check_config(config: AnnotateConfig) -> None:
    """Raise `UsageError` for settings that do not go together."""
    problem = None
    if bool(config.episodes) == bool(config.videos):
        problem = "give either --episodes DIR or --videos FILES"
    elif config.labeller == "vlp" and config.model is None:
        problem = "--labeller vlp needs --model RUN, a folder written by `robopref train-vlp`"
    elif config.labeller == "scripted" and not config.episodes:
        problem = "--labeller scripted needs --episodes: a video holds no true return"
    elif config.pairing == "clusters" and not config.episodes:
        problem = "--pairing clusters needs --episodes: it groups episodes by their states"
    elif config.pairing == "file" and config.pairs_file is None:
        problem = "--pairing file needs --pairs-file FILE"
    elif config.pairing != "file" and config.pairs_file is not None:
        problem = f"--pairs-file is not read with --pairing {config.pairing}; use --pairing file"
    elif config.labeller == "human" and config.human_file is None and config.pairs_file is None:
        problem = "--labeller human needs --human-file FILE (or --pairing file with labels in the pairs file)"
    elif lack := lacking(config.labeller, config.baseline, config.chat):
        problem = lack
    elif config.out.suffix != ".parquet":
        problem = f"--out {config.out} should end in .parquet"
    elif min(config.chunk, config.frames, config.threads) < 1 or config.tie_margin < 0:
        problem = "--chunk, --frames and --threads must be at least 1, and --tie-margin at least 0"
    if problem:
        raise UsageError(f"annotate: {problem}")


def check_instruction(instruction: str | None) -> str:
    """The instruction, blanks trimmed; `RoboprefError` when it is missing, empty or too long to be one sentence."""
    words = " ".join((instruction or "").split())
    if not any(letter.isalnum() for letter in words):
        raise RoboprefError("The instruction is empty; say what the robot should do: --instruction 'close the drawer'.")
    if len(words) > LONGEST_INSTRUCTION:
        raise RoboprefError(
            f"The instruction has {len(words)} characters, one sentence is read: {LONGEST_INSTRUCTION} are the most."
        )
    return words


def side_folder(out: Path) -> Path:
    """Where manifest, agreement and unfinished scores of a preferences file live: its name without suffix."""
    return out.with_suffix("")


def list_inputs(config: AnnotateConfig, videos: Sequence[Path], model: Path | None) -> dict[str, Path]:
    """Every file and folder whose content the labels depend on; model: the folder of the VLP that labels."""
    inputs = {"episodes": config.episodes, "human_file": config.human_file, "pairs_file": config.pairs_file}
    if model is not None:
        inputs["model"] = model / WEIGHTS  # knows the digest of its backbone
    inputs |= files(config.labeller, config.baseline)
    return {name: path for name, path in inputs.items() if path is not None} | {str(path): path for path in videos}


def pair_table(clips: Clips, pairs: np.ndarray, task: str, instruction: str, labeller: str) -> pd.DataFrame:
    """The rows of the preferences file, label and scores still empty."""
    table = pd.DataFrame({"pair_id": np.arange(len(pairs))}).assign(
        kind="segment",
        task=task,
        instruction=instruction,
        labeller=labeller,
        split="train",
        label=np.nan,
        score_a=np.nan,
        score_b=np.nan,
    )
    for column, side in enumerate("ab"):
        chosen = [clips[number] for number in pairs[:, column]]
        for name in ("episode", "start", "stop"):
            values = [getattr(clip, name) if isinstance(clip, Segment) else pd.NA for clip in chosen]
            table[f"{name}_{side}"] = pd.array(values, dtype="Int64")
        table[f"video_{side}"] = [None if isinstance(clip, Segment) else str(clip) for clip in chosen]
    return table[list(COLUMNS)]


def score_clips(
    config: AnnotateConfig,
    model: Path | None,
    store: EpisodeStore | None,
    clips: Clips,
    returns: np.ndarray | None,
    instruction: str,
) -> np.ndarray:
    """f(v | l) of every clip, (N,): by the VLP in the folder `model`, or without one by the labeller of `config`."""
    if model is None and config.labeller not in BASELINES:
        scorer: Scorer = Constant() if returns is None or config.labeller == "constant" else ScriptedReturn(returns)
        no_pixels = np.empty((len(clips), 0, 0, 0, 3), np.uint8)
        return scorer.score(no_pixels, [instruction] * len(clips))
    import torch

    torch.set_num_threads(config.threads)
    device = str(choose_device(config.device))
    if model is not None:
        vlp: FeatureScorer = VLPScorer.load(model, device)
    else:
        goals = Goals([read_goal(config.baseline.goal)], {instruction: 0}) if config.baseline.goal else None
        vlp = load_baseline(config.labeller, config.baseline, config.frames, device, goals)
    if vlp.frames != config.frames:
        raise RoboprefError(f"{config.model} reads {vlp.frames} frames a clip, not {config.frames}; set --frames {vlp.frames}.")
    sources = [config.episodes] if config.episodes else [clip for clip in clips if isinstance(clip, Path)]
    identity = [vlp.digest, [digest(source) for source in sources], plain(clips), instruction, config.chunk]
    key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
    folder = side_folder(config.out) / f"{UNFINISHED}{key}"
    return score_in_chunks(vlp, len(clips), instruction, lambda: open_clips(store, clips, vlp), folder, config.chunk)


def measure(table: pd.DataFrame, returns: np.ndarray) -> dict[str, float]:
    """Agreement of the labels of a preferences table with the true returns (P, 2) of its clips a and b."""
    by_label = table["label"].to_numpy() - 0.5
    by_score = (table["score_b"] - table["score_a"]).to_numpy()  # finer than the label, which saturates
    preference = np.where(np.isnan(by_score) | (by_label == 0), by_label, by_score)
    return agreement(preference, returns[:, 1] - returns[:, 0])


def summary(out: Path) -> str:
    """What `run` wrote, in words, with every measure of agreement where a true return was there."""
    table = read_preferences(out)
    lines = [f"{out}: {len(table)} pairs, {(table['label'] == 0.5).sum()} ties, for {table['instruction'].iloc[0]!r}"]
    if (side_folder(out) / AGREEMENT).exists():
        row = read_json(side_folder(out) / AGREEMENT)
        lines += [format_table({table["labeller"].iloc[0]: row})]
        lines += [f"{row['near_ties']} of {len(table)} are near-ties: below {NEAR_TIE:.0%} of the largest true difference."]
    return "\n".join(lines)
