"""Preferences on disk: round trip, equal bytes, and a clear error for whatever is wrong with a file."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robopref.configs.errors import RoboprefError
from robopref.datasets.preferences import COLUMNS, Origin, labelled, read_origin, read_preferences, write_preferences
from robopref.preference.pairs_file import read_pairs


@pytest.fixture
def pairs():
    segment = {"episode": 3, "start": 10, "stop": 60, "video": None}
    other = {"episode": 0, "start": 0, "stop": 50, "video": None}
    video = {"episode": None, "start": None, "stop": None, "video": "x.mp4"}
    rows = [
        {f"{key}_{side}": value for side, clip in zip("ab", clips, strict=True) for key, value in clip.items()}
        for clips in ((segment, other), (video, video | {"video": "y.mp4"}))
    ]
    table = pd.DataFrame(rows).assign(
        pair_id=[0, 1],
        kind="segment",
        task="drawer-close",
        instruction="close the drawer",
        label=[0.25, 1.0],
        score_a=[0.5, np.nan],
        score_b=[-0.5, np.nan],
        labeller="vlp",
        split="train",
    )
    return table[list(COLUMNS)]


def test_pairs_come_back_as_they_were(tmp_path, pairs):
    write_preferences(tmp_path / "labels.parquet", pairs)
    back = read_preferences(tmp_path / "labels.parquet")
    assert tuple(back.columns) == COLUMNS
    assert back["episode_a"].tolist() == [3, pd.NA] and back["episode_a"].dtype == "Int64"
    assert back["video_b"].isna().tolist() == [True, False]
    np.testing.assert_array_equal(back["label"], [0.25, 1.0])
    np.testing.assert_array_equal(back["score_b"], [-0.5, np.nan])


def test_equal_pairs_give_equal_bytes_and_leave_nothing_else(tmp_path, pairs):
    for name in ("one", "two"):
        write_preferences(tmp_path / f"{name}.parquet", pairs)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    write_preferences(tmp_path / "two.parquet", read_preferences(tmp_path / "one.parquet"))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.parquet", "two.parquet"]


def test_abstention_and_disagreement_are_kept_where_there_are_any(tmp_path, pairs):
    marked = pairs.assign(abstained=[False, True], disagreement=[0.1, 0.4], label=[0.25, 0.5], note="not ours")
    for columns in ({"abstained"}, {"disagreement"}, {"abstained", "disagreement"}, set()):
        other = {"abstained", "disagreement"} - columns
        write_preferences(tmp_path / "labels.parquet", marked.drop(columns=list(other)))
        back = read_preferences(tmp_path / "labels.parquet")
        assert set(back.columns) == set(COLUMNS) | columns
        assert labelled(back)["pair_id"].tolist() == ([0] if "abstained" in columns else [0, 1])
        for name in columns:
            assert back[name].tolist() == marked[name].tolist()


@pytest.mark.parametrize("size", [0, 3, 200, -1])
def test_a_truncated_file_is_named(tmp_path, pairs, size):
    path = tmp_path / "labels.parquet"
    write_preferences(path, pairs)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(RoboprefError, match=r"labels\.parquet: not a whole Parquet file"):
        read_preferences(path)


def test_no_bit_of_the_pages_changes_in_silence(tmp_path, pairs):
    path = tmp_path / "p.parquet"
    write_preferences(path, pairs)
    whole, before = path.read_bytes(), read_preferences(path)
    end = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")  # where the footer begins
    noticed = 0
    for place in range(4, end, 7):
        rotten = bytearray(whole)
        rotten[place] ^= 1 << place % 8
        path.write_bytes(rotten)
        try:
            pd.testing.assert_frame_equal(read_preferences(path), before)
        except RoboprefError as error:
            noticed += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert noticed > 0.4 * (end - 4) / 7


def test_files_without_checksums_are_read_and_their_text_is_checked(tmp_path, pairs):
    path = tmp_path / "p.parquet"
    write_preferences(path, pairs)
    table, plain = pq.read_table(path), tmp_path / "plain.parquet"
    pq.write_table(table, plain, compression="none")
    pd.testing.assert_frame_equal(read_preferences(plain), read_preferences(path))
    text = pairs["instruction"].iloc[0].encode()
    plain.write_bytes(plain.read_bytes().replace(text, b"\xff" * len(text)))
    with pytest.raises(RoboprefError, match=r"plain.parquet: not a whole Parquet file .*UTF"):
        read_preferences(plain)


def test_a_name_may_be_of_bytes_that_are_no_text(tmp_path, pairs):
    path = tmp_path / os.fsdecode(b"l\xff.parquet")
    origin = Origin("vlp", "close the drawer")
    write_preferences(path, pairs[:1], origin)
    assert read_preferences(path)["label"].tolist() == [0.25] and read_origin(path) == origin
    assert len(read_pairs(path)) == 1


def test_a_file_of_another_kind_is_named(tmp_path, pairs):
    path = tmp_path / "labels.parquet"
    path.write_text("pair_id,label\n0,1\n")
    with pytest.raises(RoboprefError, match="not a whole Parquet file"):
        read_preferences(path)
    for read in (read_preferences, read_origin):
        with pytest.raises(RoboprefError) as caught:
            read(tmp_path / "label.parquet")
        assert str(caught.value) == (
            f"{tmp_path / 'label.parquet'} does not exist. Did you mean '{path}'? `robopref annotate` makes files of labels"
        )
        with pytest.raises(RoboprefError, match="is a folder, not a preferences file"):
            read(tmp_path)
    pq.write_table(pa.Table.from_pandas(pairs.drop(columns="label")), path)
    with pytest.raises(RoboprefError, match="column 'label' is missing"):
        read_preferences(path)
    pq.write_table(pa.Table.from_pandas(pairs.assign(label=["yes", "no"])), path)
    with pytest.raises(RoboprefError, match=r"column 'label' is .*string, expected double"):
        read_preferences(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"label": [0.5, 1.5]}, "pair 1 has a label outside"),
        ({"label": [np.nan, 1.0]}, "pair 0 has a label outside"),
        ({"kind": ["segment", "guess"]}, "pair 1 is of a kind other than"),
        ({"instruction": ["", "x"]}, "pair 0 has no instruction"),
        ({"pair_id": [7, 7]}, "pair 7 has the number of another"),
        ({"stop_a": pd.array([10, None], dtype="Int64")}, "pair 0 has a clip a that is neither"),
        ({"start_b": pd.array([-1, None], dtype="Int64")}, "pair 0 has a clip b that is neither"),
        ({"video_b": ["z.mp4", "y.mp4"]}, "pair 0 has a clip b that is neither"),
        ({"video_a": [None, None]}, "pair 1 has a clip a that is neither"),
        ({"abstained": [True, False]}, "pair 0 was abstained on, yet has a label"),
        ({"abstained": [False, None]}, "pair 1 does not say whether it was abstained on"),
        ({"disagreement": [np.nan, 0.6]}, "pair 1 has a disagreement outside"),
    ],
)
def test_a_pair_that_makes_no_sense_is_neither_written_nor_read(tmp_path, pairs, changes, message):
    path = tmp_path / "labels.parquet"
    with pytest.raises(RoboprefError, match=message):
        write_preferences(path, pairs.assign(**changes))
    assert not path.exists()
    pq.write_table(pa.Table.from_pandas(pairs.assign(**changes)), path)
    with pytest.raises(RoboprefError, match=rf"labels\.parquet: {message}"):
        read_preferences(path)


def test_no_pair_at_all_is_an_error(tmp_path, pairs):
    with pytest.raises(RoboprefError, match="holds no pair"):
        write_preferences(tmp_path / "labels.parquet", pairs.iloc[:0])


def test_a_column_of_the_wrong_type_is_not_written(tmp_path, pairs):
    with pytest.raises(RoboprefError, match="wrong type"):
        write_preferences(tmp_path / "labels.parquet", pairs.assign(score_a=["high", "low"]))


def test_a_file_says_what_its_labels_are_about(pairs, tmp_path):
    origin = Origin("vlp", "close the drawer", {"model": "aa"}, "bb", "metaworld/drawer-close")
    for name in ("one", "two"):
        write_preferences(tmp_path / f"{name}.parquet", pairs, origin)
    write_preferences(tmp_path / "silent.parquet", pairs)
    assert read_origin(tmp_path / "one.parquet") == origin and read_origin(tmp_path / "silent.parquet") is None
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    pd.testing.assert_frame_equal(read_preferences(tmp_path / "one.parquet"), read_preferences(tmp_path / "silent.parquet"))
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "one.parquet").read_bytes()[:-9])
    with pytest.raises(RoboprefError, match=r"cut\.parquet: not a whole Parquet file"):
        read_origin(tmp_path / "cut.parquet")
    damaged = pq.read_table(tmp_path / "one.parquet").replace_schema_metadata({"robopref": b'{"labeler": "x"}'})
    pq.write_table(damaged, tmp_path / "damaged.parquet")
    with pytest.raises(RoboprefError, match=r"damaged\.parquet: not a whole Parquet file of labels"):
        read_origin(tmp_path / "damaged.parquet")
