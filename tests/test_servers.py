"""Clients of servers that misbehave: the table of servers.py, and what it rests on."""

from __future__ import annotations

import sys
import time
import urllib.error
import urllib.request

import pytest
import servers
from servers import CASES, try_all

from robopref.configs.web import Bounds, Excess, described, open_bounded, reason_of, shown

if sys.platform != "linux":
    pytest.skip("forks, and ends what hangs", allow_module_level=True)

TOGETHER = 20
GROUPS = {
    f"{client}-{start // TOGETHER}": cases[start : start + TOGETHER]
    for client in dict.fromkeys(here.client for here in CASES)
    for cases in [[here for here in CASES if here.client == client]]
    for start in range(0, len(cases), TOGETHER)
}


def test_no_server_has_two_names():
    assert len({here.id for here in CASES}) == len(CASES) >= 90


@pytest.mark.parametrize("name", GROUPS)
def test_a_client_ends_as_it_should(name):
    """The right result, or one line that names the address; nothing left, no key told, no traceback and no hang."""
    rows = zip(GROUPS[name], try_all(GROUPS[name]), strict=True)
    wrong = [f"{here.id}: {row['end']}, not {here.end}; {row['told']}" for here, row in rows if row["end"] != here.end]
    assert not wrong, "\n".join(wrong)


def test_no_client_takes_much_memory():
    """The largest answers that are read as a whole."""
    large = [
        here for here in CASES if here.name in ("an answer of nine million letters", "an endless line", "weights without end")
    ]
    assert len(large) == 3 and all(row["memory_mb"] < 80 for row in try_all(large))


def test_an_address_of_this_machine_is_no_place_for_others_to_lead_to():
    ours, theirs = Bounds(1), Bounds(1)
    for address in ("127.0.0.1", "192.0.2.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0"):
        ours.reached(address)
    for address in ("192.0.2.1", "10.0.0.1", "2001:db8::1"):
        theirs.reached(address)
    for address in ("127.0.0.2", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1%eth0"):
        with pytest.raises(Excess, match="leads to an address of this machine"):
            theirs.reached(address)


def test_a_redirect_to_this_machine_is_not_asked():
    asked = []
    moved = servers.Case("", "", lambda talk: talk.head and asked.append(talk.path), "")
    bounds = Bounds(10**6)
    bounds.reached("192.0.2.1")
    with servers.serving(moved) as url, pytest.raises(Excess, match="leads to an address of this machine"):
        open_bounded(urllib.request.Request(f"{url}/x"), 1.0, bounds, redirects=True)
    time.sleep(0.05)
    assert asked == []


def test_pace_is_taken_over_a_window(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    bounds = Bounds(10**6, seconds=400.0, pace=10.0)
    assert bounds.wait(30.0) == 30.0
    now[0] += 100
    assert bounds.wait(30.0) == 20.0  # to the window's end
    bounds.came(1200)
    now[0] += 20
    assert bounds.wait(30.0) == 30.0
    bounds.came(1199)
    now[0] += 120
    with pytest.raises(Excess, match="less than 10 bytes a second came"):
        bounds.wait(30.0)
    now[0] += 160
    with pytest.raises(Excess, match="no end of it after 400 s"):
        bounds.wait(30.0)


def test_heads_may_be_an_eighth_of_bodies_and_a_mebibyte():
    bounds = Bounds(10**8)
    bounds.came(2**20)
    with pytest.raises(Excess, match="no end of its headers"):
        bounds.came(1)
    bounds.took(2**20)
    bounds.came(2**20)
    with pytest.raises(Excess, match="more than 100000000 bytes of it"):
        bounds.took(10**8)


@pytest.mark.parametrize(
    ("head", "size", "words"),
    [
        (b"", 0, "nothing, 0 bytes"),
        (b"x", 1, "text, 1 byte"),
        (b" \n<!doctype HTML>", 512, "an HTML page, 512 bytes"),
        (b"<html lang=en>", 9, "an HTML page, 9 bytes"),
        (b'<?xml version="1.0"?>', 9, "XML, 9 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\n", 130, "a pointer of git-lfs, not the file it points to, 130 bytes"),
        (b"\x1f\x8b\x08", 9, "gzip data, 9 bytes"),
        (b"\x89HDF\r\n\x1a\n", 9, "damaged HDF5, 9 bytes"),
        (b"\xff\x00", 2, "unknown data, 2 bytes"),
    ],
)
def test_what_came_is_said(head, size, words):
    assert described(head, size) == words


def test_an_address_is_shown_without_what_may_be_secret():
    assert shown("https://me:word@host/a.hdf5?token=x#y") == "https://host/a.hdf5?..."
    assert shown("http://host:8/a/{name}.hdf5") == "http://host:8/a/{name}.hdf5"


def test_reasons_are_words_of_this_machine():
    assert reason_of(urllib.error.URLError(ConnectionRefusedError(111, "Connection refused"))) == "Connection refused"
    assert reason_of(OSError("Tunnel connection failed: 407 word-of-a-proxy")) == "the proxy answers 407"
