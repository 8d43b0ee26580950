"""Several VLPs asked at once: each clip is drawn once, and encoded once for all members that share a backbone.

Between the command (preference/annotate.py) and scores chunk by chunk (preference/scoring.py); labellers.py makes labels of
the members' scores.

Axes: N clips, M members, T frames after the opening.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robopref.configs.errors import RoboprefError, UsageError
from robopref.preference.backbone import Backbone
from robopref.preference.features import FeatureScorer, encode_clips
from robopref.preference.vlp import VLPScorer


class Ensemble:
    """Scorers that look at clips of one camera and one size; a `Scorer` that gives a column a member."""

    def __init__(self, members: Sequence[FeatureScorer]) -> None:
        self.members = list(members)

    def score(self, clips: np.ndarray, instructions: list[str]) -> np.ndarray:
        """clips (N, 1 + T, H, W, 3) uint8, instructions (N) -> f(v | l) of every member, (N, M)."""
        features: dict[str, np.ndarray] = {}
        for member in self.members:
            if member.backbone.digest not in features:
                features[member.backbone.digest] = encode_clips(clips, member.backbone)
        scores = [member.score_features(features[member.backbone.digest], instructions) for member in self.members]
        return np.stack(scores, axis=1)


def load_members(folders: Sequence[Path], frames: int, device: str = "cpu") -> list[VLPScorer]:
    """The VLPs in `folders`, each of which reads clips of `frames` frames; equal backbones are held once.

    RoboprefError naming the folder when one cannot be read or reads other clips, UsageError when two hold the same weights.
    """
    members: list[VLPScorer] = []
    backbones: dict[str, Backbone] = {}
    seen: dict[str, Path] = {}
    for folder in folders:
        vlp = VLPScorer.load(folder, device)
        if vlp.frames != frames:
            raise RoboprefError(f"{folder} reads {vlp.frames} frames a clip, not {frames}; set --frames {vlp.frames}.")
        if vlp.digest in seen:
            raise UsageError(f"--model: {seen[vlp.digest]} and {folder} hold the same weights; name each VLP once")
        seen[vlp.digest] = folder
        vlp.backbone = backbones.setdefault(vlp.backbone.digest, vlp.backbone)
        members.append(vlp)
    return members


def by_view(members: Sequence[FeatureScorer]) -> list[Ensemble]:
    """The members in groups that see the same pictures, so that each group's clips are drawn once."""
    groups: dict[tuple[str, int], list[FeatureScorer]] = {}
    for member in members:
        groups.setdefault((member.camera, member.frame_size), []).append(member)
    return [Ensemble(group) for group in groups.values()]
