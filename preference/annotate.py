"""`robopref annotate`: pairs of episode segments, or of videos -> labels P(b preferred), one Parquet file.

Comes after VLP training, on data that VLP never saw; goes to reward learning and direct preference optimisation.  Each
clip is scored once, however many pairs it is in; a killed run goes on where it was.

Axes: N clips, P pairs, M models of an ensemble (1 for every other labeller).
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from robopref.configs.annotate import AnnotateConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import BEGUN, MANIFEST, as_written, digest, plain, read_json, remove_abandoned, write_json
from robopref.configs.progress import counted, tell_end
from robopref.configs.run import choose_device, write_manifest
from robopref.configs.run_folder import FLAGS, recorded, refuse_inside, run_folder
from robopref.datasets.clips import Segment
from robopref.datasets.episodes import EpisodeStore
from robopref.datasets.preferences import (
    AGREEMENT,
    COLUMNS,
    UNUSUAL,
    Origin,
    labelled,
    read_preferences,
    side_folder,
    write_preferences,
)
from robopref.datasets.videos import find_videos
from robopref.embodied.tasks import canonical
from robopref.preference.agreement import NEAR_TIE, agreement, better_cluster, format_table
from robopref.preference.backbone import Backbone
from robopref.preference.baselines.load import BASELINES, PAIRWISE, files, lacking
from robopref.preference.baselines.motion import MOTIONS
from robopref.preference.baselines.rl_vlm_f import LastFrames, label_pairs
from robopref.preference.broken import find_broken, refuse_broken
from robopref.preference.chat import Chat
from robopref.preference.drawing import Drawers
from robopref.preference.hub import WEIGHTS, find_model
from robopref.preference.labellers import (
    Constant,
    HumanFile,
    Scorer,
    ScriptedReturn,
    disagreement,
    labels_from_scores,
    least_sure,
    log_odds,
)
from robopref.preference.pairs import ChosenVideos, choose_segments, choose_videos
from robopref.preference.scoring import Clips, hand_positions, open_clips, score_in_chunks, true_returns

if TYPE_CHECKING:
    from robopref.preference.features import FeatureScorer

LONGEST_INSTRUCTION = 300  # characters; the encoders set limits of their own: 24 words (small), 77 tokens (CLIP)
ANSWERS = "answers"  # of the model that rl-vlm-f asks: paid for, so kept
UNFINISHED = ".scores-"
CLUSTER_BIT = "better-cluster"
SKIPPED = "skipped.json"
SKIP_THEM = "  --skip-broken leaves out what is broken."
NEED_NO_PIXELS = ("human", "constant")
NEED_EPISODES = ("scripted", CLUSTER_BIT, *MOTIONS)  # a video holds neither a true return nor where the hand was


def main(config: AnnotateConfig) -> None:
    """`robopref annotate`."""
    began = time.time()
    print(summary(run(config)))
    then = [] if config.episodes is None else ["robopref", "train", f"data={config.episodes}", f"labels={config.out}"]
    tell_end(config.out, began, "the labels", *then, folders=[side_folder(config.out)])


def run(config: AnnotateConfig) -> Path:
    """Label the pairs that `config` asks for; return the file.  A finished one is kept, an interrupted one goes on."""
    started = time.time()
    check_config(config)
    videos = find_videos(config.videos)
    looked_at = config.labeller not in NEED_NO_PIXELS or config.skip_broken
    useless = find_broken(videos, whole=False) if looked_at else {}
    if not config.skip_broken:
        refuse_broken(useless, len(videos), SKIP_THEM)
    models = [find_model(model, "vlp") for model in config.model] if config.labeller == "vlp" else []
    inputs = list_inputs(config, [video for video in videos if video not in useless], models)
    side = side_folder(config.out)
    check_out(config, side)
    config = as_worded(config, side)
    with run_folder(side, "annotate", config, inputs, overwrite=config.overwrite, words=FLAGS, by_part=True) as complete:
        if not complete:
            remove_abandoned(config.out)
            label(config, videos, useless, models, inputs)
            outputs = [Path("..", config.out.name)]  # beside the folder, and so wherever both are moved to
            write_manifest(side, "annotate", config, inputs, config.seed, started, outputs=outputs)
            for folder in side.glob(f"{UNFINISHED}*"):
                shutil.rmtree(folder)
    return config.out


def label(
    config: AnnotateConfig,
    videos: list[Path],
    useless: dict[Path, str],
    models: Sequence[Path],
    inputs: Mapping[str, Path],
) -> None:
    """Write the preferences file and what is measured of it; see `run`.

    useless: those of `videos` that cannot be opened, with their faults.  models: folders of the VLPs that label.  inputs: of
    `list_inputs`.
    """
    side = side_folder(config.out)
    rng = np.random.default_rng(config.seed)
    store = EpisodeStore(config.episodes) if config.episodes else None
    instruction = resolved(config.instruction, store)
    if store is not None:
        segments, pairs, clusters = choose_segments(config, store, rng)
        clips: Clips = segments
        returns = true_returns(store, segments)
    else:
        (clips, pairs, left_out), broken = choose_sound(config, videos, useless, rng)
        returns, clusters = None, None

    unusual = np.full(len(clips), np.nan)
    table = pair_table(clips, pairs, store.task if store is not None else "", instruction, config.labeller)
    if config.labeller == "human":
        people = config.human_file or config.pairs_file
        assert people is not None
        rows, labels = HumanFile(people).label(table)
        table, pairs = table.iloc[rows].assign(pair_id=np.arange(len(rows)), label=labels).reset_index(drop=True), pairs[rows]
        preference = table["label"].to_numpy() - 0.5
    elif config.labeller == PAIRWISE:
        chat = Chat(config.chat, side / ANSWERS)
        with open_clips(store, clips, LastFrames()) as draw:
            table["label"] = label_pairs(chat, pairs, draw, instruction)
        preference = table["label"].to_numpy() - 0.5
    else:
        if store is not None and config.labeller in MOTIONS:
            scores = MOTIONS[config.labeller](*hand_positions(store, segments, config.frames))[:, None]
        elif returns is not None and clusters is not None and config.labeller == CLUSTER_BIT:
            won = better_cluster(returns[pairs[:, 1]] - returns[pairs[:, 0]], clusters[pairs])
            scores = (won * clusters.astype(np.float64))[:, None]
        else:
            scores, unusual = score_clips(config, models, store, clips, returns, instruction)
        table, preference = label_by_scores(config, table, scores[pairs[:, 0]], scores[pairs[:, 1]])
    if not np.isnan(unusual).any():
        table["unusual"] = unusual[pairs].max(axis=1)
        warn_unusual(unusual, models)
    if returns is not None:
        write_json(side / AGREEMENT, measure(table, preference, returns[pairs], None if clusters is None else clusters[pairs]))
    else:
        (side / AGREEMENT).unlink(missing_ok=True)
    (side / SKIPPED).unlink(missing_ok=True)
    if store is None and broken:
        write_json(side / SKIPPED, {"reasons": list(broken.values()), "videos": len(videos), "pairs": left_out})
    write_preferences(config.out, table, origin_of(config, store, instruction, inputs))


def origin_of(config: AnnotateConfig, store: EpisodeStore | None, instruction: str, inputs: Mapping[str, Path]) -> Origin:
    """What the preferences file says of itself: equal for equal data and labellers, wherever they lie."""
    models = {name: digest(path) for name, path in inputs.items() if name.startswith("model")}
    models |= {name: digest(path) for name, path in files(config.labeller, config.baseline).items()}
    if store is None:
        return Origin(config.labeller, instruction, models)
    return Origin(config.labeller, instruction, models, digest(store.path), store.env_id)


def check_config(config: AnnotateConfig) -> None:
    """Raise `UsageError` for settings that do not go together."""
    problem = None
    if bool(config.episodes) == bool(config.videos):
        problem = "give either --episodes DIR or --videos FILES"
    elif config.labeller == "vlp" and not config.model:
        problem = "--labeller vlp needs --model RUN, a folder written by `robopref train-vlp`"
    elif config.labeller in NEED_EPISODES and not config.episodes:
        problem = f"--labeller {config.labeller} needs --episodes: a video holds no true return, and not where the hand was"
    elif config.labeller == CLUSTER_BIT and config.pairing != "clusters":
        problem = f"--labeller {CLUSTER_BIT} needs --pairing clusters"
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
    elif min(config.chunk, config.frames, config.threads, config.processes) < 1 or config.tie_margin < 0:
        problem = "--chunk, --frames, --threads and --processes must be at least 1, and --tie-margin at least 0"
    elif not 0 < config.temperature < math.inf:
        problem = f"--temperature {config.temperature} must be above 0"
    elif not 0 <= config.abstain < 1:
        problem = f"--abstain {config.abstain} is a share of the pairs: at least 0 and below 1"
    elif config.labeller == "human" and config.temperature != 1:
        problem = "--temperature is for scores, and --labeller human has none"
    elif config.labeller in ("human", "constant", CLUSTER_BIT) and config.abstain > 0:
        problem = f"--abstain is for scores, and --labeller {config.labeller} has none to be unsure of"
    elif config.abstain > 0 and config.abstain_by == "disagreement" and (config.labeller != "vlp" or len(config.model) < 2):
        problem = "one labeller cannot disagree with itself: give --model A B, or --abstain-by confidence"
    if problem:
        raise UsageError(f"annotate: {problem}")
    if config.instruction is not None or config.videos:  # else it is the task's own sentence
        check_instruction(config.instruction)


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


def resolved(instruction: str | None, store: EpisodeStore | None) -> str:
    """The sentence that is meant: the one that is given, by default the task's own for episodes."""
    return check_instruction(canonical(store.task) if instruction is None and store is not None else instruction)


def as_worded(config: AnnotateConfig, side: Path) -> AnnotateConfig:
    """`config` with its instruction as the run in the side folder was given it, where both mean the same sentence.

    So labels of the default sentence, and of the same one given or spaced otherwise, are of the same settings.
    """
    store = EpisodeStore(config.episodes) if config.episodes else None
    there = recorded(side)
    if there is None or there["stage"] != "annotate":
        return config
    said = there["config"].get("instruction")
    if said is None and store is None:
        return config
    same = resolved(said, store) == resolved(config.instruction, store)
    return replace(config, instruction=said) if same else config


def check_out(config: AnnotateConfig, side: Path) -> None:
    """RoboprefError where the preferences file would replace one of unknown origin, or become part of the episodes."""
    refuse_inside(config.out, "--out")
    if config.out.is_dir():
        raise RoboprefError(f"--out {config.out} is a folder: choose another --out")
    if config.out.exists() and not config.overwrite and not any((side / name).exists() for name in (MANIFEST, BEGUN)):
        raise RoboprefError(
            f"{config.out} is there, and nothing says how it was made ({side} would): "
            "choose another --out, or replace it with --overwrite"
        )


def list_inputs(config: AnnotateConfig, videos: Sequence[Path], models: Sequence[Path]) -> dict[str, Path]:
    """Every file and folder whose content the labels depend on; models: the folders of the VLPs that label."""
    inputs = {"episodes": config.episodes, "human_file": config.human_file, "pairs_file": config.pairs_file}
    for number, model in enumerate(models, 1):
        # The weights know the digest of their backbone.  Only a VLP that labelled alone is called the model, for its card
        # quotes these labels' agreement.
        inputs["model" if len(models) == 1 else f"model {number}"] = model / WEIGHTS
    inputs |= files(config.labeller, config.baseline)
    return {name: path for name, path in inputs.items() if path is not None} | {str(path): path for path in videos}


def choose_sound(
    config: AnnotateConfig, videos: list[Path], useless: dict[Path, str], rng: np.random.Generator
) -> tuple[ChosenVideos, dict[Path, str]]:
    """Pairs of videos that can be read to their end, and the others with their faults: `useless`, and what is only found by
    reading all of them.  RoboprefError where there are any, but for `config.skip_broken`.
    """
    if not config.skip_broken:
        chosen = choose_videos(config, videos, rng)
        if config.labeller not in NEED_NO_PIXELS:
            refuse_broken(find_broken(videos, whole=True, workers=config.processes), len(videos), SKIP_THEM)
        return chosen, {}
    faults = useless | find_broken([video for video in videos if video not in useless], whole=True, workers=config.processes)
    broken = {video: faults[video] for video in videos if video in faults}
    if len(broken) == len(videos):
        refuse_broken(broken, len(videos))
    for reason in broken.values():
        print(f"skipped: {reason}", file=sys.stderr)
    return choose_videos(config, videos, rng, broken), broken


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
    models: Sequence[Path],
    store: EpisodeStore | None,
    clips: Clips,
    returns: np.ndarray | None,
    instruction: str,
) -> tuple[np.ndarray, np.ndarray]:
    """f(v | l) of every clip, (N, M): by the VLPs in the folders `models`, or without one by the labeller of `config`; and how
    unusual each clip is to them, (N,), NaN where that is not known.
    """
    if not models and config.labeller not in BASELINES:
        scorer: Scorer = Constant() if returns is None or config.labeller == "constant" else ScriptedReturn(returns)
        no_pixels = np.empty((len(clips), 0, 0, 0, 3), np.uint8)
        return scorer.score(no_pixels, [instruction] * len(clips))[:, None], np.full(len(clips), np.nan)
    with Drawers(store, clips, min(config.processes, math.ceil(len(clips) / config.chunk))) as drawers:
        return score_drawn(config, models, drawers, clips, instruction)


def score_drawn(
    config: AnnotateConfig, models: Sequence[Path], drawers: Drawers, clips: Clips, instruction: str
) -> tuple[np.ndarray, np.ndarray]:
    """`score_clips` from pictures; torch is imported here, while the drawers start."""
    import torch

    from robopref.preference.ensemble import by_view
    from robopref.preference.unusual import TrainingPictures, Watched

    torch.set_num_threads(config.threads)
    device = str(choose_device(config.device))
    members = load_scorers(config, models, device, instruction)
    sources = [config.episodes] if config.episodes else [clip for clip in clips if isinstance(clip, Path)]
    shown = [[digest(source) for source in sources], plain(clips), instruction, config.chunk]
    check_words([member.backbone for member in members if isinstance(member.backbone, Backbone)], instruction)
    trained_on = dict(zip(members, map(TrainingPictures.load, models), strict=True)) if models else {}
    columns, unusual = [], []
    for group in by_view(members):
        known = [pictures for member in group.members if (pictures := trained_on.get(member)) is not None]
        identity = [*(member.digest for member in group.members), *shown, len(known)]
        key = hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]
        folder = side_folder(config.out) / f"{UNFINISHED}{key}"
        source = partial(drawers.draw, group.members[0])
        scored = score_in_chunks(Watched(group, known), len(clips), instruction, source, folder, config.chunk)
        columns.append(scored[:, :-1])
        unusual.append(scored[:, -1])
    return np.concatenate(columns, axis=1), np.fmax.reduce(unusual)


def check_words(backbones: Sequence[Backbone], instruction: str) -> None:
    """Raise RoboprefError for an instruction that a backbone cannot read, and name the words that it leaves out, on stderr."""
    for backbone in backbones:
        backbone.encode_text([instruction])
    strange = dict.fromkeys(word for backbone in backbones for word in backbone.unread(instruction))
    if strange:
        print(f"note: not understood: {', '.join(map(repr, strange))}; only words in letters a to z are read", file=sys.stderr)


def warn_unusual(unusual: np.ndarray, models: Sequence[Path]) -> None:
    """Say on stderr when clips (N,) are unlike what the VLPs were trained on: their scores then mean nothing."""
    far = unusual > UNUSUAL
    if far.any():
        print(
            f"warning: {far.sum()} of {len(far)} clips look like nothing that {', '.join(map(str, models))} was trained on, "
            "which is Meta-World from one camera, upright, with no text on it: do not trust their labels.  They are "
            f"{np.median(unusual[far]):.0f} times as far from its pictures as the strangest of its own tasks; the limit is "
            f"{UNUSUAL:.0f}.",
            file=sys.stderr,
        )


def load_scorers(config: AnnotateConfig, models: Sequence[Path], device: str, instruction: str) -> Sequence[FeatureScorer]:
    """The VLPs in the folders `models`, or without one the baseline that `config` names."""
    from robopref.preference.baselines.goal_image import Goals, read_goal
    from robopref.preference.baselines.load import load_baseline
    from robopref.preference.ensemble import load_members

    if models:
        return load_members(models, config.frames, device)
    goals = Goals([read_goal(config.baseline.goal)], {instruction: 0}) if config.baseline.goal else None
    return [load_baseline(config.labeller, config.baseline, config.frames, device, goals)]


def label_by_scores(
    config: AnnotateConfig, table: pd.DataFrame, score_a: np.ndarray, score_b: np.ndarray
) -> tuple[pd.DataFrame, np.ndarray]:
    """`table` with labels and mean scores from scores (P, M), and the log-odds of its labels (P,), 0 where they are ties.

    An ensemble adds the column `disagreement`, the share of its members against their majority.  With `config.abstain` there
    is a column `abstained`; pairs marked there hold 0.5, whatever the scorer thinks of them.
    """
    preference = log_odds(score_a, score_b, config.temperature)  # finer than the label, which saturates
    label = labels_from_scores(score_a, score_b, config.hard, config.tie_margin, config.temperature)
    preference = np.where(label == 0.5, 0.0, preference)
    columns: dict[str, np.ndarray] = {}
    if score_a.shape[1] > 1:
        columns["disagreement"] = disagreement(score_a, score_b)
    if config.abstain > 0:
        against = columns["disagreement"] if config.abstain_by == "disagreement" else None
        columns["abstained"] = least_sure(config.abstain, preference, against)
        label = np.where(columns["abstained"], 0.5, label)
    return table.assign(score_a=score_a.mean(axis=1), score_b=score_b.mean(axis=1), label=label, **columns), preference


def measure(
    table: pd.DataFrame, preference: np.ndarray, returns: np.ndarray, clusters: np.ndarray | None = None
) -> dict[str, Any]:
    """Agreement of signed preferences (P,), > 0 where b is preferred, with the true returns (P, 2) of a preferences table.

    clusters: (P, 2) which of two clusters the segments' episodes are in; with it the measures of clusters are among them.
    Of the pairs that have a label.  Where the labeller abstained, `abstained` says on how many pairs, and `left_out` how
    well they would have been labelled: if as well as the others, abstention is worth nothing.
    """
    truth = returns[:, 1] - returns[:, 0]
    kept = table.index.isin(labelled(table).index)
    found: dict[str, Any] = agreement(preference[kept], truth[kept], None if clusters is None else clusters[kept])
    if not kept.all():
        found |= {"abstained": int((~kept).sum()), "left_out": agreement(preference[~kept], truth[~kept])}
    return found


def summary(out: Path) -> str:
    """What `run` wrote, in words, with every measure of agreement where a true return was there, and what was skipped."""
    table = read_preferences(out)
    kept = labelled(table)
    found = f"{counted(len(kept), 'pair')}, {counted((kept['label'] == 0.5).sum(), 'tie')}"
    lines = [f"{out}: {found}, for {table['instruction'].iloc[0]!r}"]
    if len(kept) < len(table):
        gone = len(table) - len(kept)
        lines += [f"{gone} of {len(table)} pairs have no label: the labeller abstained, and policies leave them out."]
    if "unusual" in table:
        middle, most, far = table["unusual"].median(), table["unusual"].max(), (table["unusual"] > UNUSUAL).sum()
        told = [f"{x:.0f}" if x >= 10 else f"{x:.2g}" for x in (middle, most)]
        lines += [
            f"How unusual the pictures are: {told[0]} in the median, {told[1]} at most, where 1 is the strangest of the "
            f"training's own tasks; {counted(far, 'pair')} above {UNUSUAL:.0f}, the limit."
        ]
    if (measured := side_folder(out) / AGREEMENT).exists():
        row = read_json(measured)
        with as_written(measured, "label again, with --overwrite"):
            rows = {table["labeller"].iloc[0]: row} | ({"left out": row["left_out"]} if "left_out" in row else {})
            lines += [format_table(rows)]
            if "cluster_accuracy" in row:
                lines += [f"Cluster bit, knowing only which cluster is the better one: accuracy {row['cluster_accuracy']:.3f}."]
            lines += [f"{row['near_ties']} of {len(kept)} are near-ties: below {NEAR_TIE:.0%} of the largest true difference."]
    if (path := side_folder(out) / SKIPPED).exists():
        skipped = read_json(path)
        with as_written(path, "label again, with --overwrite"):
            pairs = f", and with them {skipped['pairs']} listed pairs" if skipped["pairs"] else ""
            count = f"{len(skipped['reasons'])} of {skipped['videos']} videos"
            lines += [f"{count} were skipped{pairs}; {path} says why."]
    return "\n".join(lines)
