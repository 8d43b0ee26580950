"""Which clips are compared: segments, random pairs, pairs across clusters, pairs from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robopref.configs.errors import RoboprefError
from robopref.datasets.clips import Segment
from robopref.preference.pairs import (
    cluster_episodes,
    cross_pairs,
    draw_segments,
    random_pairs,
)
from robopref.preference.pairs_file import listed_segments, listed_videos, read_pairs


class Episodes:
    """What pairs.py reads of an EpisodeStore: lengths, and observations that end at `ends`."""

    path = Path("made-up")

    def __init__(self, lengths, ends=None):
        self.index = pd.DataFrame({"episode": range(len(lengths)), "length": lengths})
        self.ends = ends

    def __len__(self):
        return len(self.index)

    def episode(self, number):
        class Episode:
            observations = np.linspace(np.zeros(3), self.ends[number], self.index["length"][number] + 1)

        return Episode


def test_segments_are_different_and_inside_their_episode():
    store = Episodes([49, 50, 60, 300])
    segments = draw_segments(store, 100, np.random.default_rng(0))
    assert len(set(segments)) == 100
    assert segments == sorted(segments, key=lambda s: (s.episode, s.start))
    lengths = store.index["length"]
    assert all(s.stop - s.start == 50 and s.start >= 0 and s.stop <= lengths[s.episode] for s in segments)
    assert draw_segments(store, 100, np.random.default_rng(0)) == segments


def test_all_segments_are_taken_when_there_are_fewer():
    segments = draw_segments(Episodes([49, 50, 52]), 100, np.random.default_rng(0))
    assert segments == [Segment(1, 0, 50), Segment(2, 0, 50), Segment(2, 1, 51), Segment(2, 2, 52)]
    assert draw_segments(Episodes([52, 50]), 9, np.random.default_rng(0), among=np.array([1])) == [Segment(1, 0, 50)]


def test_episodes_that_are_too_short_are_an_error():
    with pytest.raises(RoboprefError, match="no segment of 50 steps, the longest episode has 49"):
        draw_segments(Episodes([49, 12]), 1, np.random.default_rng(0))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 12), st.data())
def test_random_pairs_are_different_and_use_clips_evenly(clips, data):
    possible = clips * (clips - 1) // 2
    count = data.draw(st.integers(1, possible))
    pairs = random_pairs(clips, count, np.random.default_rng(count))
    assert pairs.shape == (count, 2) and (pairs[:, 0] != pairs[:, 1]).all()
    assert len({frozenset(pair) for pair in pairs.tolist()}) == count
    assert pairs.min() >= 0 and pairs.max() < clips


def test_a_first_round_of_random_pairs_uses_each_clip_once():
    pairs = random_pairs(200, 100, np.random.default_rng(0))
    assert sorted(pairs.ravel()) == list(range(200))
    uses = np.bincount(random_pairs(200, 1000, np.random.default_rng(0)).ravel())
    assert uses.min() >= 8


def test_order_is_random():
    pairs = random_pairs(200, 1000, np.random.default_rng(0))
    assert 400 < (pairs[:, 0] < pairs[:, 1]).sum() < 600
    pairs = cross_pairs(range(50), range(50, 100), 1000, np.random.default_rng(0))
    assert 400 < (pairs[:, 0] < pairs[:, 1]).sum() < 600


def test_cross_pairs_take_one_clip_from_each_side():
    pairs = cross_pairs([3, 4, 5], [10, 11], 6, np.random.default_rng(1))
    assert {frozenset(pair) for pair in pairs.tolist()} == {frozenset((a, b)) for a in (3, 4, 5) for b in (10, 11)}


def test_more_pairs_than_there_are_is_an_error():
    with pytest.raises(RoboprefError, match="46 pairs wanted, but 10 clips make 45"):
        random_pairs(10, 46, np.random.default_rng(0))
    with pytest.raises(RoboprefError, match="7 pairs wanted, but 3 and 2 clips make 6"):
        cross_pairs([0, 1, 2], [3, 4], 7, np.random.default_rng(0))
    with pytest.raises(RoboprefError, match="0 pairs wanted"):
        random_pairs(10, 0, np.random.default_rng(0))


def test_clusters_split_episodes_that_end_in_different_places():
    ends = [[5.0, 0, 1], [5.1, 0, 1], [-5, 0, 1], [5.2, 0, 1], [-5.1, 0, 1]]
    clusters = cluster_episodes(Episodes([60] * 5, np.array(ends)), np.random.default_rng(0))
    assert clusters[0] == clusters[1] == clusters[3] != clusters[2] == clusters[4]
    with pytest.raises(RoboprefError, match="at least two episodes"):
        cluster_episodes(Episodes([60], np.zeros((1, 3))), np.random.default_rng(0))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_listed_segments_keep_their_order(tmp_path, suffix):
    names = ["episode_a", "start_a", "stop_a", "episode_b", "start_b", "stop_b"]
    table = pd.DataFrame([[1, 5, 55, 0, 0, 50], [0, 0, 50, 1, 0, 50]], columns=names)
    path = tmp_path / f"pairs.{suffix}"
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    segments, pairs = listed_segments(read_pairs(path), Episodes([60, 60]), path)
    assert segments == [Segment(0, 0, 50), Segment(1, 0, 50), Segment(1, 5, 55)]
    np.testing.assert_array_equal(pairs, [[2, 0], [0, 1]])


def test_two_links_to_one_file_and_names_that_look_like_numbers_are_videos_of_their_own(inside):
    Path("blob").touch()
    for name in ("007", "8", "c.mp4"):
        Path(name).symlink_to("blob")
    Path("again").symlink_to(".")
    videos = [Path("007"), Path("8"), Path("c.mp4")]
    Path("pairs.csv").write_text(f"video_a,video_b\n007,8\nagain/8,{inside}/c.mp4\n")
    np.testing.assert_array_equal(listed_videos(read_pairs(Path("pairs.csv")), videos, Path("pairs.csv")), [[0, 1], [1, 2]])
    Path("pairs.csv").write_text("video_a,video_b\n007,blob\n")  # a blob is found by its only link alone
    np.testing.assert_array_equal(listed_videos(read_pairs(Path("pairs.csv")), videos[:1], Path("pairs.csv")), [[0, 0]])


def test_listed_videos_are_found_by_path(tmp_path):
    (tmp_path / "pairs.csv").write_text(f"video_a,video_b\n{tmp_path}/y.mp4,{tmp_path}/x.mp4\n")
    table = read_pairs(tmp_path / "pairs.csv")
    videos = [tmp_path / "x.mp4", tmp_path / "y.mp4"]
    np.testing.assert_array_equal(listed_videos(table, videos, tmp_path / "pairs.csv"), [[1, 0]])
    with pytest.raises(RoboprefError, match=r"y\.mp4 is not among the 1 videos given"):
        listed_videos(table, videos[:1], tmp_path / "pairs.csv")
    with pytest.raises(RoboprefError, match="it lists videos"):
        listed_segments(table, Episodes([60]), tmp_path / "pairs.csv")


HEAD = "episode_a,start_a,stop_a,episode_b,start_b,stop_b\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither CSV nor Parquet"),
        (HEAD, "holds no pair"),
        ("episode_a,start_a,stop_a,episode_b,start_b,stop\n0,0,50,1,0,50\n", "column 'stop_b' is missing"),
        (HEAD + "0,0,50,1,zero,50\n", "start_b in row 1 is .zero."),
        (HEAD + "0,0,50,1,0,50\n0,0,50,1,0,\n", "stop_b in row 2 is .nan."),
        (HEAD + "0,0,50,1,0.5,50\n", "start_b in row 1 is .*0.5"),
        (HEAD + "0,0,50,9999999999999999999,0,50\n", "episode_b in row 1 is '9999999999999999999'"),
        (HEAD + "1e300,0,50,1,0,50\n", r"episode_a in row 1 is '1e\+300'"),
        ("video_a,video_b\nx.mp4,\n", "video_b in row 1 is .nan."),
    ],
)
def test_a_wrong_pairs_file_is_named(tmp_path, text, message):
    (tmp_path / "pairs.csv").write_text(text)
    with pytest.raises(RoboprefError, match=rf"pairs\.csv: {message}"):
        read_pairs(tmp_path / "pairs.csv")


@pytest.mark.parametrize(
    ("row", "message"),
    [("0,0,50,2,0,50", "episode 2 is not in made-up"), ("0,0,50,1,20,70", "steps 20 to 70 are not in episode 1")],
)
def test_a_segment_that_is_not_in_the_data_is_named(tmp_path, row, message):
    (tmp_path / "pairs.csv").write_text(HEAD + row + "\n")
    with pytest.raises(RoboprefError, match=message):
        listed_segments(read_pairs(tmp_path / "pairs.csv"), Episodes([60, 60]), tmp_path / "pairs.csv")


def test_a_damaged_parquet_is_named(tmp_path):
    (tmp_path / "pairs.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(RoboprefError, match="neither CSV nor Parquet"):
        read_pairs(tmp_path / "pairs.parquet")
    with pytest.raises(RoboprefError, match="no such pairs file"):
        read_pairs(tmp_path / "gone.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"video_a;video_b;label\na.mp4;b.mp4;1\n", "separated by semicolons; save it with commas"),
        (b"video_a\tvideo_b\na.mp4\tb.mp4\n", "separated by tabs"),
        ("video_a,video_b\né.mp4,b.mp4\n".encode("utf-16"), "not UTF-8"),
        ("video_a,video_b\né.mp4,b.mp4\n".encode("latin-1"), "not UTF-8"),
        (b"video_a,video_b,label,label\na.mp4,b.mp4,1,0\n", "two columns are called 'label'"),
        (b"video_a,video_b\na.mp4,b.mp4,c.mp4\n", "more cells than there are columns"),
        (b"video_a,video_b\na.mp4,a.mp4\n", "row 1 pairs a clip with itself"),
        (b"video_a,video_b\na.mp4,b.mp4\nb.mp4,./x/../b.mp4\n", "row 2 pairs a clip with itself"),
        (b"episode_a,start_a,stop_a,episode_b,start_b,stop_b\n0,5,9,0,5,9\n", "row 1 pairs a clip with itself"),
        (b"episode_a,start_a,stop_a,episode_b,start_b,stop_b\nNA,5,9,0,5,9\n", "episode_a in row 1 is 'NA'"),
    ],
)
def test_what_a_spreadsheet_makes_of_a_pairs_file_is_named(tmp_path, text, message):
    (tmp_path / "pairs.csv").write_bytes(text)
    with pytest.raises(RoboprefError, match=rf"pairs\.csv: .*{message}"):
        read_pairs(tmp_path / "pairs.csv")


@pytest.mark.parametrize(
    ("text", "videos"),
    [
        (b"\xef\xbb\xbfvideo_a,video_b\r\na.mp4,b.mp4\r\n", [("a.mp4", "b.mp4")]),
        (b"video_a,video_b\nNA,null\n001,1\n", [("NA", "null"), ("001", "1")]),
        (b'video_a,video_b,\n"a, b.mp4",b.mp4,\n', [("a, b.mp4", "b.mp4")]),
        (b"video_a,video_b\na.mp4,b.mp4\na.mp4,b.mp4\nb.mp4,a.mp4\n", [("a.mp4", "b.mp4")] * 2 + [("b.mp4", "a.mp4")]),
        ("video_a,video_b\né.mp4,机械臂.mp4\n".encode(), [("é.mp4", "机械臂.mp4")]),
    ],
)
def test_names_are_read_as_they_are_and_rows_are_kept(tmp_path, text, videos):
    (tmp_path / "pairs.csv").write_bytes(text)
    table = read_pairs(tmp_path / "pairs.csv")
    assert list(table[["video_a", "video_b"]].itertuples(index=False, name=None)) == videos
