"""Files of rewards get names that differ on every file system, and stay readable."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robopref.preference.prof.names import names_of, same


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["mine.py", "other/reward.py"], ["mine", "reward"]),
        (["a/reward.py", "b/reward.py"], ["a-reward", "b-reward"]),
        (["a/x/reward.py", "b/x/reward.py", "mine.py"], ["a-x-reward", "b-x-reward", "mine"]),
        (["reward.py", "reward.py", "mine.py"], ["reward", "reward-2", "mine"]),  # the same file
        (["a/reward.py", "a/Reward.py"], ["reward", "Reward-2"]),  # one file on macOS
        (["a/é.py", "a/e\u0301.py"], ["é", "e\u0301-2"]),  # likewise
        (["a/x.py", "a/x.py", "a/x-2.py"], ["x", "x-2", "x-2-2"]),
        (["a/x-2.py", "a/x.py", "a/x.py"], ["x-2", "x", "x-3"]),
        (["write-0.py", "write-9.py"], ["write-0-2", "write-9"]),  # the first is taken
        (["a\nb.py", ".x.py", "[red],*.py", "....py"], ["a_b", "x", "[red],_", "_"]),
        ([f"run{n}/reward.py" for n in range(100)], [f"run{n}-reward" for n in range(100)]),
    ],
)
def test_names(paths, names):
    assert names_of([Path(path) for path in paths], {"write-0", "write-1"}) == names


WORDS = st.text(st.sampled_from("aAéxß-2. /\n:ﬁ"), min_size=1, max_size=8)


@given(st.lists(WORDS | st.text(min_size=200, max_size=250), max_size=8))
def test_names_are_different_and_short_whatever_the_files_are_called(words):
    names = names_of([Path(word.replace("\0", "")) for word in words], ["a"])
    assert len({same(name) for name in [*names, "a"]}) == len(names) + 1
    assert all(name and len(name.encode()) < 140 and name.isprintable() and "/" not in name for name in names)
    assert names == names_of([Path(word.replace("\0", "")) for word in words], ["a"])
