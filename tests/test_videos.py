"""Video files as clips: which pictures are taken, how they are cut and resized, and what a damaged file says."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from films import COLOURS, in_turn
from films import film as moving
from PIL import Image

from robopref.configs.errors import RoboprefError
from robopref.datasets import videos
from robopref.datasets.videos import check_video, find_videos, video_clip
from robopref.embodied.decode import Shown
from robopref.embodied.video import read_video, write_video


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


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "gif", "avi"])
@pytest.mark.parametrize("rate", ["30", "24000/1001", "40"])
@pytest.mark.parametrize(("count", "frames"), [(3, 8), (61, 9), (62, 5), (90, 16)])
def test_at_a_constant_rate_pictures_are_counted(tmp_path, monkeypatch, suffix, rate, count, frames):
    """Whatever the clock of the container rounds to; and with nine frames some lie in the middle between two pictures."""
    words = {"mkv": ("-c:v", "ffv1"), "avi": ("-c:v", "ffv1")}.get(suffix, ())
    path = moving(tmp_path / f"a.{suffix}", "-frames:v", count, *words, size="16x16", rate=rate, seconds=9)
    pictures = np.stack(list(read_video(path)))
    chosen = [round(place) for place in np.linspace(0, count - 1, frames)]
    np.testing.assert_array_equal(video_clip(path, frames, 16), pictures[chosen])
    monkeypatch.setattr(videos, "MOST_KEPT", 64)
    if count > 64:
        chosen[:-1] = [2 * round(place / 2) for place in np.linspace(0, count - 1, frames)][:-1]
    np.testing.assert_array_equal(video_clip(path, frames, 16), pictures[chosen])


def colours(clip):
    """Which of red, green and blue each frame is."""
    return [COLOURS[channel][0] for channel in clip.mean((1, 2)).argmax(1)]


LONG_GREEN = "if(lt(N,20),N*0.05,if(eq(N,20),1,9+(N-21)*0.05))"  # 1 s red, 8 s green in one picture, 1 s blue


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "libx264"),
        ("mkv", "libx264"),
        ("webm", "libvpx"),
        ("ts", "libx264"),
        ("flv", "libx264"),
        ("avi", "mpeg4"),
        ("gif", "gif"),
        ("webp", "libwebp_anim"),
    ],
)
def test_a_picture_counts_as_long_as_it_is_shown(tmp_path, suffix, codec):
    path = in_turn(tmp_path / f"a.{suffix}", (20, 1, 20), LONG_GREEN, "-c:v", codec)
    assert "".join(colours(video_clip(path))) == "rggggggb"


def test_a_first_and_a_last_picture_count_as_long_as_they_are_shown(tmp_path):
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    for name, lengths, expected in (
        ("first", [8000, 500, 500], "rrrrrrrb"),
        ("last", [500, 500, 8000], "rbbbbbbb"),
        ("short", [4000, 4000, 20], "rrrrgggb"),
        ("even", [500, 500, 500], "rrggggbb"),
    ):
        pictures[0].save(tmp_path / f"{name}.gif", save_all=True, append_images=pictures[1:], duration=lengths)
        assert "".join(colours(video_clip(tmp_path / f"{name}.gif", size=16))) == expected, name


def test_two_pictures_count_as_long_as_they_are_shown(tmp_path):
    pictures = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime")]
    for lengths, expected in ([1000, 1000], "rrrrgggg"), ([7000, 1000], "rrrrrrrg"), ([1000, 7000], "rggggggg"):
        pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=lengths)
        assert "".join(colours(video_clip(tmp_path / "a.gif", size=16))) == expected


@pytest.mark.parametrize("seed", range(5))
def test_a_long_video_of_a_varying_rate_is_thinned_by_time(monkeypatch, seed):
    rng = np.random.default_rng(seed)
    stops = rng.choice([1, 2, 40, 4000], 3000, p=[0.5, 0.4, 0.09, 0.01]).cumsum()
    starts, length = np.append(0, stops[:-1]), int(stops[-1])
    sizes = []

    def shown_pictures(path):
        for number, (start, stop) in enumerate(zip(starts.tolist(), stops.tolist(), strict=True)):
            yield Shown(np.frombuffer(number.to_bytes(3, "big"), np.uint8).reshape(1, 1, 3), start, stop)

    def every(kept, step):
        thinned = thin(kept, step)
        sizes.append((len(kept), len(thinned)))
        return thinned

    thin = videos._every
    monkeypatch.setattr(videos, "shown_pictures", shown_pictures)
    monkeypatch.setattr(videos, "check_file", lambda path: None)
    monkeypatch.setattr(videos, "_every", every)
    clip = video_clip(Path("a.mp4"), 33, 1)
    chosen = [int.from_bytes(frame.tobytes(), "big") for frame in clip]
    assert sizes and all(before == 512 and after <= 257 for before, after in sizes)
    assert chosen[0] == 0 and chosen[-1] == 2999
    margin = min(stops[0], stops[-1] - starts[-1]) / 2
    moments = np.linspace(margin, length - margin, 33)
    off = [max(starts[number] - moment, moment - stops[number], 0) for number, moment in zip(chosen, moments, strict=True)]
    assert max(off) <= length / 256
    assert np.mean(np.array(off) == 0) > 0.6, "most moments are within long pictures, and those are met"


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
    for pattern in (f"{tmp_path}/*.avi", "", f"{tmp_path}/a.mp4/*"):
        with pytest.raises(RoboprefError, match="no such video"):
            find_videos([pattern])
    with pytest.raises(RoboprefError, match="is a folder"):
        find_videos([str(tmp_path)])
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(RoboprefError, match=r"folder\.mp4 is a folder; give its videos, such as .*folder\.mp4/\*\.mp4"):
        find_videos([f"{tmp_path}/*.mp4"])


def test_two_spellings_of_a_path_are_one_video_and_two_links_to_a_file_are_two(inside):
    Path("films").mkdir()
    Path("films/a.mp4").touch()
    Path("again").symlink_to("films")
    Path("films/b.mp4").symlink_to("a.mp4")
    spellings = ["films/a.mp4", "./films//a.mp4", str(inside / "films/a.mp4"), "films/../films/a.mp4", "again/a.mp4"]
    assert find_videos(spellings) == [Path("films/a.mp4")]
    assert find_videos([*spellings, "films/*"]) == [Path("films/a.mp4"), Path("films/b.mp4")]


def test_what_exists_is_taken_before_what_a_pattern_matches(inside):
    here = ("take [1].mp4", "take[1].mp4", "take1.mp4", "a*.mp4", "ab.mp4", "what?.mp4", "whats.mp4")
    for name in (*here, "seeds=[0]/x.mp4", "seeds=0/y.mp4", "deep/1.mp4", "deep/er/2.mp4", "deep/er/[x]/3.mp4", "deep/.4.mp4"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()

    def found(pattern):
        return [str(path) for path in find_videos([pattern])]

    for name in ("take [1].mp4", "take[1].mp4", "a*.mp4", "what?.mp4"):
        assert found(name) == [name]
    assert found("[a]*.mp4") == ["a*.mp4", "ab.mp4"]
    assert found("seeds=[0]/*.mp4") == ["seeds=[0]/x.mp4"]
    assert found(f"{inside}/seeds=[0]/*.mp4") == [f"{inside}/seeds=[0]/x.mp4"]
    Path("take[1].mp4").unlink()
    assert found("take[1].mp4") == ["take1.mp4"]
    assert found("deep/**/*.mp4") == ["deep/1.mp4", "deep/er/2.mp4", "deep/er/[x]/3.mp4"]
    assert found("**/[x]/*.mp4") == found("**/[[]x]/*.mp4") == ["deep/er/[x]/3.mp4"]
    assert found("deep/.*.mp4") == ["deep/.4.mp4"]


@pytest.mark.parametrize("use", [video_clip, check_video])
def test_a_shard_of_several_episodes_is_no_clip(inside, use):
    shard = Path("set/videos/observation.images.top/chunk-000/file-003.mp4")
    shard.parent.mkdir(parents=True)
    film(shard, 3)
    info = Path("set/meta/info.json")
    info.parent.mkdir()
    Path("mine.mp4").symlink_to(shard)
    refused = r"{}\.mp4: a shard of a LeRobot dataset, which holds several episodes .*cut it into one video an episode"
    for content in ({"codebase_version": "v3.0"}, {"codebase_version": "v4.1"}, {"codebase_version": None}, {}, [], None):
        info.unlink(missing_ok=True)  # then, and where the file says nothing, known by its name
        if content is not None:
            info.write_text(json.dumps(content))
        for path, name in ((shard, "file-003"), (inside / shard, "file-003"), (Path("mine.mp4"), "mine")):
            with pytest.raises(RoboprefError, match=refused.format(name)):
                use(path)


def test_an_episode_of_an_older_lerobot_dataset_and_others_are_clips(tmp_path):
    for version, name in (
        ("v2.1", "videos/chunk-000/observation.images.top/episode_000003.mp4"),
        ("v2.0", "videos/top/chunk-000/file-003.mp4"),
        ("v3.0", "elsewhere/file-003.mp4"),
        (None, "chunk-000/file-003.mp4"),
    ):
        path = tmp_path / f"{version}" / name
        path.parent.mkdir(parents=True)
        if version is not None:
            (tmp_path / version / "meta").mkdir()
            (tmp_path / version / "meta" / "info.json").write_text(json.dumps({"codebase_version": version}))
        check_video(film(path, 3))
        assert video_clip(path).shape == (8, 64, 64, 3)


def test_a_name_that_no_parquet_file_can_hold_is_refused(tmp_path):
    path = film(tmp_path / "a.mp4", 3).rename(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    with pytest.raises(RoboprefError, match=r"caf\\udce9\.mp4: its name is not UTF-8, so no file of labels can hold it; rename"):
        check_video(path)
    assert video_clip(path, 3).shape == (3, 64, 64, 3)
