"""Video files as clips: which pictures are taken, how they are cut and resized, and what a damaged file says."""

from __future__ import annotations

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.datasets import videos
from robopref.datasets.videos import find_videos, video_clip
from robopref.embodied.video import write_video


def film(path, count, step=2):
    """A video whose picture i has the grey value 10 + step * i."""
    write_video(path, (np.full((64, 64, 3), 10 + step * i, np.uint8) for i in range(count)))
    return path


def numbers(clip, step=2):
    """Which picture of `film` each frame is."""
    return ((clip.astype(float).mean((1, 2, 3)) - 10) / step).round().astype(int).tolist()


def test_frames_are_spread_from_the_first_to_the_last(tmp_path):
    clip = video_clip(film(tmp_path / "a.mp4", 71), frames=8, size=32)
    assert clip.shape == (8, 32, 32, 3) and clip.dtype == np.uint8
    assert numbers(clip) == [0, 10, 20, 30, 40, 50, 60, 70]


def test_a_short_video_repeats_pictures(tmp_path):
    assert numbers(video_clip(film(tmp_path / "a.mp4", 3, step=60), frames=8), step=60) == [0, 0, 1, 1, 1, 1, 2, 2]
    assert numbers(video_clip(film(tmp_path / "b.mp4", 1), frames=4)) == [0, 0, 0, 0]


def test_a_long_video_is_thinned_while_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "MOST_KEPT", 16)
    chosen = np.array(numbers(video_clip(film(tmp_path / "a.mp4", 101), frames=6)))
    assert chosen[0] == 0 and chosen[-1] == 100
    assert np.abs(chosen - np.linspace(0, 100, 6)).max() <= 100 / 16 + 1


def test_the_centred_square_is_kept(tmp_path):
    picture = np.zeros((48, 96, 3), np.uint8)
    picture[:, 24:72] = 200  # the square; black beside it
    write_video(tmp_path / "wide.mp4", [picture] * 4)
    clip = video_clip(tmp_path / "wide.mp4", frames=2, size=16)
    assert clip[:, :, 2:-2].min() > 190


def test_pictures_stay_upright(tmp_path):
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[:32] = (250, 0, 0)  # red above
    write_video(tmp_path / "a.mp4", [picture] * 3)
    clip = video_clip(tmp_path / "a.mp4", frames=2, size=16)
    assert clip[0, 2, 8, 0] > 200 > 50 > clip[0, 13, 8, 0]


@pytest.mark.parametrize("damage", ["empty", "truncated", "noise", "text", "flipped"])
def test_a_damaged_file_is_named(tmp_path, damage):
    rng = np.random.default_rng(0)
    path = tmp_path / "clip.mp4"
    # Noise does not compress, so the file is large and its middle is picture data.
    write_video(path, (rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(60)))
    whole = path.read_bytes()
    middle = len(whole) // 2
    content = {
        "empty": b"",
        "truncated": whole[:middle],
        "noise": rng.bytes(5000),
        "text": b"this is no video at all\n" * 50,
        "flipped": whole[:middle] + bytes(3000) + whole[middle + 3000 :],
    }
    path.write_bytes(content[damage])
    with pytest.raises(RoboprefError, match=r"clip\.mp4"):
        video_clip(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RoboprefError, match=r"gone\.mp4"):
        video_clip(tmp_path / "gone.mp4")


def test_patterns_are_expanded_once_and_sorted(tmp_path):
    for name in ("b.mp4", "a.mp4", "c.txt"):
        (tmp_path / name).touch()
    assert [p.name for p in find_videos([f"{tmp_path}/*.mp4", f"{tmp_path}/a.mp4"])] == ["a.mp4", "b.mp4"]
    with pytest.raises(RoboprefError, match="no such video"):
        find_videos([f"{tmp_path}/*.avi"])
    with pytest.raises(RoboprefError, match="is a folder"):
        find_videos([str(tmp_path)])
