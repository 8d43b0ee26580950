"""The baselines by name: what each needs, and how it is made.  Who annotates and who compares come through here."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

from robopref.configs.baselines import BaselineConfig
from robopref.configs.chat import ChatConfig
from robopref.configs.errors import UsageError, nearest
from robopref.embodied.render import DEFAULT_CAMERA
from robopref.preference.backbone import parse_open_clip

if TYPE_CHECKING:
    from robopref.preference.baselines.clip_space import ClipSpace
    from robopref.preference.baselines.goal_image import GoalImage, Goals
    from robopref.preference.baselines.similarity import JointSpace, Measure
    from robopref.preference.features import FeatureScorer

BASELINES = ("goal-image", "cosine", "vlm-rm", "roboclip")
"""Those that score single clips."""
PAIRWISE = "rl-vlm-f"
"""The one that labels pairs (baselines/rl_vlm_f.py)."""
_KINDS = ("small", "contrastive", "open_clip")


def lacking(labeller: str, baseline: BaselineConfig, chat: ChatConfig) -> str | None:
    """What a labeller cannot do without and was not given, in words; None when it has all, or is none of the baselines."""
    if labeller == PAIRWISE and not chat.model:
        return f"--labeller {PAIRWISE} needs --chat.model NAME, a model that reads pictures"
    if labeller in BASELINES and not baseline.encoder:
        return f"--labeller {labeller} needs --baseline.encoder KIND:..., of {' or '.join(encoders(labeller))}"
    if labeller == "goal-image" and baseline.goal is None:
        return "--labeller goal-image needs --baseline.goal FILE, a picture of the finished task, or its frame bank"
    if not 0.0 <= baseline.alpha <= 1.0:
        return f"vlm-rm's alpha is {baseline.alpha}; it should be between 0 and 1"
    return None


def encoders(labeller: str) -> tuple[str, str]:
    """The kinds of encoder that a baseline can look through."""
    return ("small:FOLDER" if labeller == "goal-image" else "contrastive:FOLDER", "open_clip:NAME:WEIGHTS")


def files(labeller: str, config: BaselineConfig) -> dict[str, Path]:
    """Every file whose content the scores of a baseline depend on; weights that open_clip downloads go by their name."""
    found = {"goal": config.goal} if labeller == "goal-image" else {}
    kind, _, where = (config.encoder or "").partition(":")
    if kind in ("small", "contrastive"):
        found["encoder"] = Path(where) / "model.safetensors"  # the contrastive model's knows the digest of its backbone
    elif labeller in BASELINES and ":" in where:
        weights = parse_open_clip(where)[1]
        if weights is not None and Path(weights).is_file():
            found["encoder"] = Path(weights)
    return {name: path for name, path in found.items() if path is not None}


def constants(labeller: str, config: BaselineConfig) -> list[object]:
    """The settings, beside the encoder, that the scores of a baseline depend on."""
    match labeller:
        case "cosine":
            return [config.frames]
        case "vlm-rm":
            return [config.frames, config.neutral, config.alpha]
    return []


def load_baseline(labeller: str, config: BaselineConfig, frames: int, device: str, goals: Goals | None = None) -> FeatureScorer:
    """The baseline that scores clips of `frames` frames; goals: of goal-image.

    Raises UsageError for an encoder that it cannot look through, RoboprefError for weights that cannot be had.
    """
    if labeller == "goal-image":
        if goals is None:
            raise UsageError(f"goal-image needs a picture of the finished task: {lacking(labeller, config, ChatConfig())}")
        return load_goal_image(config.encoder or "", goals, frames, device)
    from robopref.preference.baselines.similarity import Similarity, cosine, goal_baseline, last_frame, mean_frame, whole_clip

    space = load_space(config.encoder or "", device)
    pool = last_frame if config.frames == "last" else mean_frame
    measure: Measure
    match labeller:
        case "cosine":
            measure = lambda clips, goals: pool(cosine(clips, goals))  # noqa: E731
        case "vlm-rm":
            neutral = space.embed_texts([config.neutral])[0]
            measure = lambda clips, goals: pool(goal_baseline(clips, goals, neutral, config.alpha))  # noqa: E731
        case "roboclip":
            measure = whole_clip
        case _:
            raise UsageError(f"There is no baseline {labeller!r}: {', '.join(BASELINES)}.{nearest(labeller, BASELINES)}")
    made_from = json.dumps([space.digest, labeller, *constants(labeller, config)])
    return Similarity(space, measure, hashlib.sha256(made_from.encode()).hexdigest(), frames)


def load_space(encoder: str, device: str) -> JointSpace:
    """The joint space `contrastive:FOLDER` or `open_clip:NAME:WEIGHTS`."""
    kind, _, where = encoder.partition(":")
    if kind == "contrastive" and where:
        from robopref.preference.baselines.contrastive import ContrastiveSpace

        return ContrastiveSpace(Path(where), device)
    if kind == "open_clip" and where:
        return load_clip(where, device)
    raise UsageError(f"Encoder {encoder!r} is none of {' or '.join(encoders('cosine'))}.{nearest(kind, _KINDS)}")


def load_goal_image(encoder: str, goals: Goals, frames: int, device: str) -> GoalImage:
    """Goal-image distance through `small:FOLDER` or `open_clip:NAME:WEIGHTS`."""
    from robopref.preference.baselines.goal_image import GoalImage

    kind, _, where = encoder.partition(":")
    if kind == "small" and where:
        from robopref.preference.small import SmallBackbone

        small = SmallBackbone.load(Path(where), device)
        return GoalImage(small, goals, DEFAULT_CAMERA, small.frame_size, frames)
    if kind == "open_clip" and where:
        clip = load_clip(where, device)
        return GoalImage(clip, goals, clip.camera, clip.frame_size, frames)
    raise UsageError(f"Encoder {encoder!r} is none of {' or '.join(encoders('goal-image'))}.{nearest(kind, _KINDS)}")


def load_clip(where: str, device: str) -> ClipSpace:
    """The joint space of a CLIP by name, `NAME:WEIGHTS` as in preference/backbone.py."""
    from robopref.preference.baselines.clip_space import ClipSpace
    from robopref.preference.open_clip import OpenClipBackbone

    name, weights, grid = parse_open_clip(where)
    if grid is not None:
        raise UsageError(f"open_clip:{where}: a picture is one vector here, not a grid of patches; leave out @{grid}")
    return ClipSpace(OpenClipBackbone(name, weights, device), device)
