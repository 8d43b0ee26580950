"""What a chat keeps, hides and waits for; servers.py has the servers that misbehave."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from chat_stub import KEY, Endpoint, serving

from robopref.configs.chat import ChatConfig
from robopref.configs.errors import RoboprefError, UsageError
from robopref.preference.chat import Chat, Completion, read_completion, sound, used


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving() as running:
        yield running


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"answer": 3}', '{"answer": null}', "{"])
def test_a_kept_answer_that_is_none_is_named(endpoint, tmp_path, content):
    chat = Chat(ChatConfig("any", endpoint.url), tmp_path)
    chat.ask(["well?"])
    (kept,) = tmp_path.glob("*.json")
    kept.write_text(content)
    with pytest.raises(RoboprefError, match=rf"{kept.name}.*delete it"):
        chat.ask(["well?"])


def test_kept_counts_are_counts(endpoint, tmp_path):
    chat = Chat(ChatConfig("any", endpoint.url), tmp_path)
    assert chat.complete(["well?"]) == Completion("0", True, 11, 7)
    (kept,) = tmp_path.glob("*.json")
    kept.write_text(json.dumps({"answer": "0", "whole": False, "tokens_in": -5, "tokens_out": "7"}))
    assert chat.complete(["well?"]) == Completion("0", False, 0, 0)


def test_a_word_for_a_key_may_be_in_an_answer(endpoint, tmp_path, monkeypatch):
    """Servers that ask for no key are given any word: it is no secret, and code must not lose its letters."""
    endpoint.answer = lambda body: "x = 1  # none"
    for number, key in enumerate(("x", "none", KEY)):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        assert Chat(ChatConfig("any", endpoint.url), tmp_path / str(number)).ask(["well?"]) == "x = 1  # none"


def test_no_wait_is_longer_than_what_is_left(endpoint, tmp_path):
    endpoint.trouble, waits = ["429:40"] * 9, []
    config = ChatConfig("any", endpoint.url, timeout=2.0)
    chat = Chat(config, tmp_path, waits.append)
    assert chat.total == 60 and Chat(ChatConfig("any", endpoint.url, total=7.0), tmp_path).total == 7
    endpoint.trouble = ["429:40", "429:61"]
    with pytest.raises(RoboprefError, match=r"it answers 429 Too Many Requests; check .*, or raise chat.total \(60 s\)"):
        chat.ask(["well?"])
    assert waits == [40.0]
    endpoint.trouble = ["500"] * 9
    with pytest.raises(RoboprefError) as failure:
        Chat(ChatConfig("any", endpoint.url, attempts=2), tmp_path, waits.append).ask(["well?"])
    assert "chat.total" not in str(failure.value)


def test_a_long_stream_does_not_run_into_the_timeout(endpoint, tmp_path, monkeypatch):
    """Longer than `timeout` in all, with no silence that long."""
    monkeypatch.setattr("chat_stub.Handler.reply", slowly)
    endpoint.answer = lambda body: "x" * 40
    began = time.monotonic()
    assert Chat(ChatConfig("any", endpoint.url, stream=True, timeout=0.4), tmp_path).ask(["well?"]) == "x" * 40
    assert time.monotonic() - began > 0.6


def slowly(handler, status, body, headers=None):
    handler.send_response(status)
    handler.end_headers()
    for line in body.splitlines(keepends=True):
        handler.wfile.write(line)
        time.sleep(0.03)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 11, "completion_tokens": 7.0}, (11, 7)),
        ({"prompt_tokens": -11, "completion_tokens": 7.5}, (0, 7)),
        ({"prompt_tokens": True, "completion_tokens": "7"}, (0, 0)),
        ({"prompt_tokens": float("nan"), "completion_tokens": float("-inf")}, (0, 0)),
        ({"prompt_tokens": 10**30, "completion_tokens": [7]}, (0, 0)),
        ([11, 7], (0, 0)),
        (None, (0, 0)),
    ],
)
def test_nothing_lowers_what_was_spent(usage, counts):
    assert used({"usage": usage}) == counts


def test_text_that_files_take():
    assert sound("a\ud83d\ude00b") == "a\N{GRINNING FACE}b"
    assert sound("a\ud83db\0") == "a\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    assert read_completion(b'{"choices": [{"message": {"content": null}}]}') == Completion("")


@pytest.mark.parametrize(
    "url", ["http://a..b/v1", "http://h:99999/v1", "http://h:0/v1", "http://[::1/v1", "http://h\xe9/v1", "http://:8/"]
)
def test_no_address_is_refused_before_anything_is_asked(url, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with pytest.raises(UsageError, match=r"chat.base_url: write http\(s\)://HOST"):
        Chat(ChatConfig("any", url), tmp_path)
