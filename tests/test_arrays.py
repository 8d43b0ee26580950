"""Clips and instructions as a user has them, and what a VLP makes of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.datasets.videos import fit
from robopref.policies.benchmarks.annotate import untrained_vlp
from robopref.preference.arrays import as_clips, as_instructions
from robopref.preference.features import encode_clips
from robopref.preference.vlp import VLPScorer


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return VLPScorer.load(untrained_vlp(tmp_path_factory.mktemp("vlp")))


@pytest.fixture(scope="module")
def clips():
    coarse = np.random.default_rng(0).integers(0, 256, (3, 9, 8, 8, 3), np.uint8)
    return coarse.repeat(8, 2).repeat(8, 3)


def test_what_is_in_the_right_form_is_not_touched(clips):
    assert as_clips(clips, 8, 64) is clips


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, np.int64, np.uint16])
def test_scores_are_those_of_the_bytes_whatever_the_kind_of_number(scorer, clips, kind):
    expected = scorer.score(clips, ["close the drawer"] * 3)
    given = clips.astype(kind) / kind(255) if np.issubdtype(kind, np.floating) else clips.astype(kind)
    np.testing.assert_array_equal(scorer.score(given, "close the drawer"), expected)
    assert len(set(expected)) == 3, "and not of three black films"


@given(st.integers(1, 40), st.integers(1, 90), st.integers(1, 90))
@settings(max_examples=25, deadline=None)
def test_any_length_and_size_becomes_a_clip(length, height, width):
    film = np.random.default_rng(length).integers(0, 256, (length, height, width, 3), np.uint8)
    (clip,) = as_clips([film], 8, 64)
    assert clip.shape == (9, 64, 64, 3) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip[0], fit(film[0], 64))
    np.testing.assert_array_equal(clip[-1], fit(film[-1], 64))
    if length != 9:
        np.testing.assert_array_equal(clip[1], clip[0])


def test_films_of_different_lengths_are_scored_together_as_alone(scorer, clips):
    films = [clips[0], np.concatenate([clips[1], clips[2]]), clips[2][:4]]
    together = scorer.score(films, ["open it", "close it", "open it"])
    alone = [scorer.score([film], said)[0] for film, said in zip(films, ("open it", "close it", "open it"), strict=True)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype(np.float32), r"clip 0 is 9x64x64x3 float32 with values from 0 to 255: clips are frames"),
        (lambda x: x / 255 - 0.5, "float64 with values from -0.5 to 0.5"),
        (lambda x: np.full(x.shape, np.nan), "values from nan to nan"),
        (lambda x: x.astype(np.int32) - 1, "int32 with values from -1 to 254"),
        (lambda x: x > 9, "bool with values from 0 to 1"),
        (lambda x: x.transpose(0, 1, 4, 2, 3), r"clip 0 is 9x3x64x64 uint8: clips are frames"),
        (lambda x: x[..., :1], "clip 0 is 9x64x64x1 uint8"),
        (lambda x: x[0], "clip 0 is 64x64x3 uint8"),
        (lambda x: x[:, :0], "clip 0 is 0x64x64x3 uint8"),
        (lambda x: x[:0], "no clip"),
    ],
)
def test_everything_else_is_one_line(clips, change, message):
    with pytest.raises(RoboprefError, match=message):
        as_clips(change(clips), 8, 64)


def test_instructions_are_one_for_all_or_one_a_clip(scorer, clips):
    assert as_instructions("close it", 2) == ["close it"] * 2 and as_instructions(("a", "b"), 2) == ["a", "b"]
    with pytest.raises(RoboprefError, match="2 instructions for 3 clips"):
        scorer.score(clips, ["close it", "open it"])


def test_an_encoder_takes_bytes_alone(scorer, clips):
    with pytest.raises(RoboprefError, match="frames of float64 are no pictures"):
        encode_clips(clips / 255, scorer.backbone)
