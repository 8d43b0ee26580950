"""RL-VLM-F against a chat endpoint on this machine: what it asks, what it makes of answers, and what may go wrong between."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest
from chat_stub import KEY, Endpoint, pictures, serving, texts

from robopref.configs import cli
from robopref.configs.chat import ChatConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.configs.files import read_json
from robopref.datasets.preferences import read_preferences
from robopref.datasets.videos import video_clip
from robopref.embodied.video import write_video
from robopref.preference.baselines.rl_vlm_f import compare, label_pairs, read_answer
from robopref.preference.chat import Chat, retry_after

DARK, BRIGHT = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 200, np.uint8)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    with serving() as running:
        yield running


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def chat(endpoint: Endpoint, tmp_path: Path, waits: list[float]) -> Chat:
    return Chat(ChatConfig("looker", endpoint.url, timeout=0.3, total=600, attempts=4), tmp_path / "answers", waits.append)


def brightest(body: dict) -> str:
    """A model that looks, says how bright each picture is, and judges by what was said."""
    shown = pictures(body)
    if shown:
        return " and ".join(f"brightness {picture.mean():.0f}" for picture in shown)
    first, second = (float(words.split()[0]) for words in texts(body)[0].split("brightness ")[1:])
    return "-1" if first == second else str(int(second > first))


def test_two_stages_decide_a_pair(chat, endpoint):
    endpoint.answer = brightest
    assert compare(chat, DARK, BRIGHT, "close the drawer") == 1.0
    assert compare(chat, BRIGHT, DARK, "close the drawer") == 0.0
    assert compare(chat, DARK, DARK, "close the drawer") == 0.5
    look, judge = endpoint.asked[:2]
    np.testing.assert_array_equal(pictures(look), [DARK, BRIGHT])  # in that order, not a pixel lost
    assert "close the drawer" in texts(look)[-1] and "close the drawer" in texts(judge)[0]
    assert not pictures(judge) and "brightness 0 and brightness 200" in texts(judge)[0]  # the answer rests on words alone
    assert look["model"] == judge["model"] == "looker" and look["temperature"] == 0
    assert endpoint.keys == {f"Bearer {KEY}"} and set(endpoint.paths) == {"/v1/chat/completions"}


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        ("0", 0.0), ("1", 1.0), ("-1", 0.5), (" 1\n", 1.0), ("**1**", 1.0), ("1.", 1.0), ("The second.\n\n1", 1.0), ("0\n0", 0.0),
        ("", 0.5), ("2", 0.5), ("10", 0.5), ("the first", 0.5), ("I say 1", 0.5), ("0\n1", 0.5), ("0 or 1", 0.5),
        ("\N{MINUS SIGN}1", 0.5), ("1. The drawer is shut.", 0.5), ("0.5", 0.5),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_a_tie(answer, label):
    assert read_answer(answer) == label


def test_pairs_are_judged_by_their_last_frames(chat, endpoint):
    endpoint.answer = brightest
    clips = np.stack([np.stack([BRIGHT, BRIGHT, DARK]), np.stack([DARK, DARK, BRIGHT])])  # (2, 1 + T, H, W, 3)
    labels = label_pairs(chat, np.array([[0, 1], [1, 0]]), lambda numbers: clips[list(numbers)], "shut it")
    assert labels.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("trouble", ["429", "408", "500", "503", "cut", "half", "hang", "html", "other", "parts"])
def test_what_passes_is_asked_again(chat, endpoint, waits, trouble):
    endpoint.trouble = [trouble, trouble]
    endpoint.answer = lambda body: "fine"
    assert chat.ask(["well?"]) == "fine"
    assert len(endpoint.asked) == 3 and waits == [1.0, 2.0]


def test_the_server_says_how_long_to_wait_within_reason(chat, endpoint, waits):
    endpoint.trouble = ["429:7", "503:0", "429:86400"]
    assert chat.ask(["well?"]) == "0"
    assert waits == [7.0, 0.0, 60.0]


def test_retry_after_is_a_number_or_a_date():
    def header(value: str) -> Message:
        headers = Message()
        headers["Retry-After"] = value
        return headers

    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < retry_after(header(soon), 1.0) <= 30
    assert retry_after(header("Wed, 21 Oct 2015 07:28:00 GMT"), 1.0) == 0.0
    assert retry_after(header("2.5"), 1.0) == 2.5
    assert retry_after(header("-3"), 1.0) == 0.0
    assert retry_after(header("soon"), 4.0) == retry_after(Message(), 4.0) == 4.0


@pytest.mark.parametrize(
    ("trouble", "requests", "message"),
    [
        (["503"] * 9, 4, "it answers 503 Service Unavailable; check"),
        (["cut"] * 9, 4, "no whole answer came"),
        (["html"] * 9, 4, "no chat completion"),
        (["401"], 1, "it answers 401 Unauthorized; check chat.base_url, chat.model and the key in OPENAI_API_KEY"),
        (["404"], 1, "it answers 404 Not Found"),
        (["redirect"], 1, "it answers 302 Found"),
    ],
)
def test_what_stays_is_an_error_without_the_key(chat, endpoint, trouble, requests, message):
    endpoint.trouble = trouble
    with pytest.raises(RoboprefError, match=message) as failure:
        chat.ask(["well?"])
    assert KEY not in str(failure.value) and "\n" not in str(failure.value)
    assert len(endpoint.paths) == requests and "/elsewhere" not in " ".join(endpoint.paths)  # the key follows no redirect
    assert not list(chat.answers.glob("*"))


def test_nobody_listening_is_an_error(tmp_path, waits):
    with serving() as gone:
        url = gone.url
    with pytest.raises(RoboprefError, match="no whole answer came"):
        Chat(ChatConfig("looker", url, attempts=2), tmp_path, waits.append).ask(["well?"])
    assert waits == [1.0]


def test_nothing_is_asked_twice_and_no_file_holds_the_key(chat, endpoint):
    endpoint.answer = lambda body: f"I was asked with {KEY}"
    assert chat.ask(["well?", DARK]) == chat.ask(["well?", DARK]) == "I was asked with [key]"
    assert len(endpoint.asked) == 1
    chat.ask(["well?", BRIGHT])
    assert len(endpoint.asked) == 2  # another picture is another question
    kept = list(chat.answers.glob("*"))
    assert len(kept) == 2 and not any(KEY in path.read_text() for path in kept)
    assert read_json(kept[0])["question"] == ["well?"]


def test_silence_is_kept_as_an_answer(chat, endpoint):
    endpoint.answer = lambda body: None
    assert compare(chat, DARK, BRIGHT, "shut it") == compare(chat, DARK, BRIGHT, "shut it") == 0.5
    assert len(endpoint.asked) == 2


def test_temperature_can_be_left_to_the_endpoint(endpoint, tmp_path):
    Chat(ChatConfig("looker", endpoint.url, temperature=None), tmp_path).ask(["well?"])
    assert "temperature" not in endpoint.asked[0]


@pytest.mark.parametrize("value", [None, "", "  ", "two\nlines", "schlüssel"])
def test_a_missing_or_impossible_key_is_named_but_not_shown(monkeypatch, tmp_path, value):
    monkeypatch.delenv("OPENAI_API_KEY")
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(RoboprefError, match="MY_KEY holds no usable key") as failure:
        Chat(ChatConfig("looker", key_variable="MY_KEY"), tmp_path)
    assert not value or not value.strip() or value not in str(failure.value)


@pytest.mark.parametrize(
    "url",
    ["ftp://host/v1", "host/v1", "http://", "https://user:secret@host/v1", "https://host/v1?key=secret", "https://host/v 1"],
)
def test_an_address_is_no_place_for_secrets(tmp_path, url):
    with pytest.raises(UsageError, match=r"chat\.base_url: write http") as failure:
        Chat(ChatConfig("looker", url), tmp_path)
    assert "secret" not in str(failure.value)


def test_annotation_goes_on_where_it_was_and_keeps_no_key(endpoint, tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(3):
        picture = rng.integers(0, 80 * (number + 1), (64, 64, 3), dtype=np.uint8)
        write_video(tmp_path / f"{number}.mp4", (picture // (5 - shown) for shown in range(5)))
    command = ["annotate", "--videos", f"{tmp_path}/*.mp4", "--instruction", "light the lamp", "--labeller", "rl-vlm-f"]
    command += ["--pairs", "3", "--out", str(tmp_path / "labels.parquet"), "--chat.base-url", endpoint.url]
    assert cli.main(command) == 2
    assert "rl-vlm-f needs --chat.model NAME" in capsys.readouterr().err

    command += ["--chat.model", "looker"]
    endpoint.answer, endpoint.trouble = brightest, ["", "", "", "401"]
    assert cli.main(command) == 1
    failed = capsys.readouterr()
    assert "401 Unauthorized" in failed.err and not (tmp_path / "labels.parquet").exists()
    assert cli.main(command) == 0
    done = capsys.readouterr()
    assert len(endpoint.asked) == 2 * 3 + 1  # only what was refused came twice
    assert cli.main(command) == 0 and len(endpoint.asked) == 7  # finished

    table = read_preferences(tmp_path / "labels.parquet")
    ends = {str(tmp_path / f"{number}.mp4"): video_clip(tmp_path / f"{number}.mp4", 2, 256)[-1].mean() for number in range(3)}
    expected = [float(ends[b] > ends[a]) for a, b in zip(table["video_a"], table["video_b"], strict=True)]
    assert table["label"].tolist() == expected and (table["labeller"] == "rl-vlm-f").all() and table["score_a"].isna().all()
    assert not any(KEY.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in failed.out + failed.err + done.out + done.err
    assert read_json(tmp_path / "labels.run" / "manifest.json")["config"]["chat"]["key_variable"] == "OPENAI_API_KEY"
