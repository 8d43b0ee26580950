from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from robopref.configs.errors import RoboprefError
from robopref.datasets import download as module
from robopref.datasets.d4rl import load_offline, read_d4rl, write_d4rl
from robopref.datasets.download import DownloadError, download, verify

CONTENT = np.random.default_rng(0).bytes(300_000)
SUM = hashlib.sha256(CONTENT).hexdigest()


class Web:
    """What a server has, how it misbehaves, and what it was asked for."""

    def __init__(self) -> None:
        self.files = {"/a.bin": CONTENT}
        self.ranges = True
        self.tag = '"one"'
        self.cuts: list[int] = []  # bytes after which the next connections are cut
        self.length = True
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""


class Handler(BaseHTTPRequestHandler):
    web: Web

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        web, span = self.web, self.headers.get("Range")
        web.asked.append((self.path, span))
        content = web.files.get(self.path)
        if content is None:
            self.send_error(404, "Not Found")
            return
        start = 0
        if span and web.ranges and self.headers.get("If-Range", web.tag) == web.tag:
            start = int(span.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        self.send_header("ETag", web.tag)
        if web.length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = start + web.cuts.pop(0) if web.cuts else len(content)
        self.wfile.write(content[start:end])


@contextmanager
def serving() -> Iterator[Web]:
    web = Web()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"web": web}))
    web.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield web
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    with serving() as found:
        yield found


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_arrives_with_its_checksum_beside_it(web: Web, tmp_path: Path) -> None:
    path = download(f"{web.url}/a.bin", tmp_path / "sub" / "b.bin")
    assert path.read_bytes() == CONTENT and names(path.parent) == ["b.bin", "b.bin.sha256"]
    assert (path.parent / "b.bin.sha256").read_text() == f"{SUM}  b.bin\n"
    download(f"{web.url}/a.bin", path)
    assert len(web.asked) == 1


def test_a_cut_connection_goes_on_where_it_was_cut(web: Web, tmp_path: Path) -> None:
    web.cuts = [100_000, 54_096]
    path = download(f"{web.url}/a.bin", tmp_path / "a.bin", SUM)
    assert path.read_bytes() == CONTENT
    assert [span for _, span in web.asked] == [None, "bytes=95904-", "bytes=145904-"]


def test_a_later_call_goes_on_too(web: Web, tmp_path: Path) -> None:
    web.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"100000 bytes arrived in .*a.bin.partial, then next to none"):
        download(f"{web.url}/a.bin", tmp_path / "a.bin")
    assert names(tmp_path) == ["a.bin.partial", "a.bin.partial.json"]
    web.asked.clear()
    assert download(f"{web.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    assert web.asked == [("/a.bin", "bytes=95904-")] and names(tmp_path) == ["a.bin", "a.bin.sha256"]


def test_a_server_without_ranges_sends_all_again(web: Web, tmp_path: Path) -> None:
    web.ranges, web.cuts = False, [100_000]
    assert download(f"{web.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT


@pytest.mark.parametrize("ranges", [True, False])
def test_a_file_that_changed_meanwhile_is_begun_anew(web: Web, tmp_path: Path, ranges: bool) -> None:
    web.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        download(f"{web.url}/a.bin", tmp_path / "a.bin")
    web.files["/a.bin"], web.tag, web.ranges = CONTENT[::-1], '"two"', ranges
    assert download(f"{web.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT[::-1]


def test_a_mirror_finishes_what_another_began_if_the_size_is_the_same(web: Web, tmp_path: Path) -> None:
    web.cuts = [100_000, 0, 0, 0]
    with pytest.raises(DownloadError):
        download(f"{web.url}/a.bin", tmp_path / "a.bin")
    with serving() as mirror:
        mirror.tag = '"of the mirror"'
        assert download(f"{mirror.url}/a.bin", tmp_path / "a.bin", SUM).read_bytes() == CONTENT
        assert mirror.asked == [("/a.bin", "bytes=95904-")]
        mirror.files["/a.bin"] = CONTENT[:200_000]
        web.cuts = [100_000, 0, 0, 0]
        with pytest.raises(DownloadError):
            download(f"{web.url}/a.bin", tmp_path / "b.bin")
        assert download(f"{mirror.url}/a.bin", tmp_path / "b.bin").read_bytes() == CONTENT[:200_000]
        mirror.files["/a.bin"] = CONTENT[::-1]
        web.cuts = [100_000, 0, 0, 0]
        with pytest.raises(DownloadError):
            download(f"{web.url}/a.bin", tmp_path / "c.bin")
        assert download(f"{mirror.url}/a.bin", tmp_path / "c.bin").read_bytes() == CONTENT[::-1]  # of that size, but another


def test_a_whole_file_that_was_not_renamed_is_recognised(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "_check", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            download(f"{web.url}/a.bin", tmp_path / "a.bin")
    assert download(f"{web.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT
    assert web.asked[-1] == ("/a.bin", "bytes=295904-")


def test_a_file_of_unknown_length_ends_with_the_connection(web: Web, tmp_path: Path) -> None:
    web.length = False
    assert download(f"{web.url}/a.bin", tmp_path / "a.bin").read_bytes() == CONTENT


def test_other_bytes_than_promised_are_thrown_away(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=f"sends another file: its sha256 is {SUM}, expected {'0' * 64}"):
        download(f"{web.url}/a.bin", tmp_path / "a.bin", "0" * 64)
    assert names(tmp_path) == []


def test_the_recorded_checksum_counts_later(web: Web, tmp_path: Path) -> None:
    path = download(f"{web.url}/a.bin", tmp_path / "a.bin")
    path.write_bytes(b"changed")
    with pytest.raises(RoboprefError, match=f"a.bin: sha256 is .*, expected {SUM}; delete it and get it again"):
        download(f"{web.url}/a.bin", path)
    path.unlink()
    web.files["/a.bin"] = b"changed on the server too"
    with pytest.raises(DownloadError, match=rf"expected {SUM} \(of an earlier download; delete .*a.bin.sha256 if this is"):
        download(f"{web.url}/a.bin", path)
    (tmp_path / "a.bin.sha256").write_text("nonsense")
    with pytest.raises(RoboprefError, match=r"a.bin.sha256: holds no SHA-256"):
        download(f"{web.url}/a.bin", path)


def test_a_given_checksum_counts_more_than_the_recorded_one(web: Web, tmp_path: Path) -> None:
    path = download(f"{web.url}/a.bin", tmp_path / "a.bin")
    (tmp_path / "a.bin.sha256").write_text(f"{'1' * 64}  a.bin\n")
    verify(path, SUM.upper())
    with pytest.raises(RoboprefError, match=f"expected {'1' * 64}"):
        verify(path)


def test_refusals_and_no_network_are_told_apart(web: Web, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"/none.bin answers 404 Not Found"):
        download(f"{web.url}/none.bin", tmp_path / "a.bin")
    with serving() as gone:
        pass
    with pytest.raises(DownloadError, match=r"cannot be reached \(.*refused"):
        download(f"{gone.url}/a.bin", tmp_path / "a.bin")
    with pytest.raises(RoboprefError, match="only http and https"):
        download(f"file://{tmp_path}/a.bin", tmp_path / "a.bin")
    assert names(tmp_path) == []


def test_two_at_once_fetch_it_once(web: Web, tmp_path: Path) -> None:
    found: list[bytes] = []
    work = [
        threading.Thread(target=lambda: found.append(download(f"{web.url}/a.bin", tmp_path / "a.bin").read_bytes()))
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert found == [CONTENT] * 4 and len(web.asked) == 1 and names(tmp_path) == ["a.bin", "a.bin.sha256"]


def test_a_full_disk_is_named(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(RoboprefError, match=r"a.bin.partial could not be written .*free some space"):
        download(f"{web.url}/a.bin", tmp_path / "a.bin")


def test_a_name_is_fetched_from_a_mirror(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = write_d4rl(tmp_path / "x.hdf5", read_d4rl(Path(__file__).parent / "data" / "door-human-v0.hdf5").take([0, 2]))
    web.files |= {"/d4rl/hand_dapg_v1/door-human-v1.hdf5": whole.read_bytes(), "/door-expert-v1.hdf5": whole.read_bytes()}
    monkeypatch.setenv("ROBOPREF_D4RL_URL", f"{web.url}/d4rl")
    data = load_offline("door-human-v1", tmp_path / "kept")
    assert data.name == "door-human-v1" and data.lengths.tolist() == [299, 299]
    assert names(tmp_path / "kept") == ["door-human-v1.hdf5", "door-human-v1.hdf5.sha256"]
    load_offline("door-human-v1", tmp_path / "kept")
    assert len(web.asked) == 1
    load_offline("door-expert-v1", tmp_path / "kept", mirror=f"{web.url}/{{name}}.hdf5")
    assert web.asked[-1][0] == "/door-expert-v1.hdf5"


def test_a_name_that_cannot_be_had_says_where_it_belongs(web: Web, tmp_path: Path) -> None:
    url = re.escape(f"{web.url}/gym_mujoco_v2/hopper_medium-v2.hdf5")
    said = f"{url} answers 404.*belongs in {tmp_path} as hopper-medium-v2.hdf5.*ROBOPREF_D4RL_URL"
    with pytest.raises(RoboprefError, match=said):
        load_offline("hopper-medium-v2", tmp_path, mirror=web.url)
