from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from films import ffmpeg, film, in_turn, plain
from PIL import Image, ImageFont

from robopref.configs.errors import RoboprefError
from robopref.embodied.decode import shown_pictures
from robopref.embodied.video import grid, overlay, read_video, wrap, write_video


def moving(count: int = 12, height: int = 96, width: int = 128) -> list[np.ndarray]:
    """Grey pictures with a red top-left corner and a white bar that moves right."""
    pictures = []
    for number in range(count):
        picture = np.full((height, width, 3), 90, np.uint8)
        picture[: height // 4, : width // 4] = (220, 20, 20)
        picture[height // 2 :, 8 * number : 8 * number + 8] = 255
        pictures.append(picture)
    return pictures


def test_what_is_written_is_read_back_upright_and_in_order(tmp_path: Path) -> None:
    pictures = moving()
    assert write_video(tmp_path / "a.mp4", pictures, fps=10) == 12
    back = list(read_video(tmp_path / "a.mp4"))
    assert len(back) == 12
    assert all(picture.shape == (96, 128, 3) and picture.dtype == np.uint8 for picture in back)
    corner = back[0][4:20, 4:28].mean((0, 1))
    assert corner[0] > 180 and corner[1] < 60, "the red corner left the top left"
    for sent, read in zip(pictures, back, strict=True):
        assert np.abs(sent.astype(int) - read).mean() < 6


def test_mp4_is_what_browsers_play(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving())
    data = (tmp_path / "a.mp4").read_bytes()
    assert data[4:8] == b"ftyp" and b"avc1" in data
    assert data.index(b"moov") < data.index(b"mdat"), "the index comes first, so that playing starts before the end is there"


def test_odd_sizes_grow_to_even_ones(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(3, 65, 83))
    assert next(read_video(tmp_path / "a.mp4")).shape == (66, 84, 3)


def test_an_interrupted_video_leaves_nothing_and_keeps_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    write_video(path, moving(3))
    before = path.read_bytes()

    def broken() -> Iterator[np.ndarray]:
        yield from moving(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, broken())
    assert path.read_bytes() == before
    assert [item.name for item in tmp_path.iterdir()] == ["a.mp4"]


def test_pictures_that_do_not_fit_together_are_named(tmp_path: Path) -> None:
    with pytest.raises(RoboprefError, match=r"a\.mp4: picture 1 is \(64, 64, 3\)"):
        write_video(tmp_path / "a.mp4", [*moving(1), *moving(1, 64, 64)])
    with pytest.raises(RoboprefError, match="no picture"):
        write_video(tmp_path / "a.mp4", [])
    assert not list(tmp_path.iterdir())


def test_full_disk_is_an_error_not_a_broken_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import resource

    noise = [np.random.default_rng(n).integers(0, 255, (256, 256, 3), np.uint8) for n in range(20)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))  # the encoder inherits it: writing stops at 50 kB
    try:
        with pytest.raises(RoboprefError, match=r"a\.mp4"):
            write_video(tmp_path / "a.mp4", noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_video_is_an_error_that_names_the_file(tmp_path: Path, keep: float) -> None:
    noise = [np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8) for n in range(20)]
    write_video(tmp_path / "whole.mp4", noise)
    data = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: int(keep * len(data))])
    with pytest.raises(RoboprefError, match=r"cut\.mp4"):
        list(read_video(tmp_path / "cut.mp4"))


def test_no_video_is_an_error_too(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    for name in ("text.mp4", "absent.mp4"):
        with pytest.raises(RoboprefError, match=name):
            list(read_video(tmp_path / name))


def ffmpegs() -> list[psutil.Process]:
    """The ffmpegs that this process has started; it has other children, too: pools that other tests keep."""
    return [child for child in psutil.Process().children(recursive=True) if "ffmpeg" in child.name()]


def test_reading_may_stop_early(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(200))
    pictures = read_video(tmp_path / "a.mp4")
    assert next(pictures).shape == (96, 128, 3)
    assert ffmpegs()
    pictures.close()
    assert not ffmpegs()


def test_ffmpeg_is_gone_after_an_error_of_the_reader(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(200))

    def reader() -> None:
        for _ in read_video(tmp_path / "a.mp4"):
            assert ffmpegs()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reader()
    gc.collect()
    assert not ffmpegs()


def speaks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> Path:
    """Let a script be ffmpeg; returns a file that is for it."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!{sys.executable}\nimport sys, time\nsay, send = sys.stderr.write, sys.stdout.buffer.write\n{script}")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    (tmp_path / "a.mp4").write_bytes(bytes(99))
    return tmp_path / "a.mp4"


HEADER = r"say('[info] Input #0, mov, from a:\n[info]   Stream #0:0: Video: h264, 2x1\n[info] Stream mapping:\n');"
SHOWN = r"say('[Parsed_showinfo_0 @ 0x1] [info] n:   0 pts:      5 pts_time:0  duration:  7 duration_time:0 ');"
SENT = r"send(b'P6\n2 1\n255\nabcdef');"


def test_threads_of_ffmpeg_that_speak_at_once_are_understood(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = speaks(tmp_path, monkeypatch, HEADER + SHOWN + r"say('\n');" + SENT)
    assert [(shown.start, shown.stop) for shown in shown_pictures(path)] == [(0, 7)]
    path = speaks(
        tmp_path, monkeypatch, HEADER + "say('half a line ');" + SHOWN[:5] + SHOWN[SHOWN.index("n:") :] + r"say('\n');" + SENT
    )
    assert [(shown.start, shown.stop) for shown in shown_pictures(path)] == [(0, 7)]
    path = speaks(tmp_path, monkeypatch, HEADER + SHOWN + r"say('File ended prematurely\n\n');" + SENT)
    with pytest.raises(RoboprefError, match=r"a\.mp4: not a whole video, 1 pictures"):
        list(read_video(path))


@pytest.mark.timeout(60)
def test_however_much_ffmpeg_says_it_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storm = r"say('[h264 @ 0x1] [error] bad luck\n' * 50_000);"
    path = speaks(tmp_path, monkeypatch, storm + HEADER + SHOWN + r"say('\n');" + SENT + storm)
    assert [picture.tolist() for picture in read_video(path)] == [[[[97, 98, 99], [100, 101, 102]]]]
    path = speaks(tmp_path, monkeypatch, storm + "sys.exit(1)")
    with pytest.raises(RoboprefError, match=r"a\.mp4: not a whole video, 0 pictures could be read \(ffmpeg: bad luck\)"):
        list(read_video(path))


@pytest.mark.timeout(60)
def test_an_ffmpeg_that_sends_something_else_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = speaks(tmp_path, monkeypatch, HEADER + r"send(b'P6\n2 1\n65535\n' + bytes(10**7)); time.sleep(600)")
    with pytest.raises(RoboprefError, match="ffmpeg sends no RGB pictures"):
        list(read_video(path))
    path = speaks(tmp_path, monkeypatch, HEADER + SENT * 99 + "sys.stdout.flush(); time.sleep(600)")
    with pytest.raises(RoboprefError, match="ffmpeg does not say when"):
        list(read_video(path))


X264 = ("-c:v", "libx264", "-preset", "ultrafast")
ORANGE = "0xC08040"  # 192, 128, 64


@pytest.mark.timeout(60)  # pictures of 16 bits a channel were waited for without end
@pytest.mark.parametrize(
    ("pixels", "codec", "suffix"),
    [
        ("yuv420p", "libx264", "mp4"),
        ("yuv420p10le", "libx264", "mp4"),
        ("yuv422p10le", "prores_ks", "mov"),
        ("yuv444p12le", "libx265", "mp4"),
        ("yuv420p10le", "ffv1", "mkv"),
        ("gbrp16le", "ffv1", "mkv"),
        ("rgba64be", "png", "mov"),
        ("rgb48be", "png", "mov"),
        ("yuva444p", "ffv1", "mkv"),
        ("bgra", "rawvideo", "avi"),
        ("nv12", "rawvideo", "nut"),
        ("yuvj420p", "mjpeg", "avi"),
        ("pal8", "gif", "gif"),
    ],
)
def test_every_kind_of_pixels_is_read_as_rgb(tmp_path: Path, pixels: str, codec: str, suffix: str) -> None:
    path = plain(tmp_path / f"a.{suffix}", ORANGE, "-pix_fmt", pixels, "-c:v", codec)
    pictures = list(read_video(path))
    assert len(pictures) == 40
    for picture in pictures:
        assert picture.shape == (120, 160, 3) and picture.dtype == np.uint8
    assert np.abs(pictures[-1].mean((0, 1)) - [192, 128, 64]).max() < 5


@pytest.mark.timeout(60)
@pytest.mark.parametrize(("pixels", "codec"), [("gray", "ffv1"), ("gray10le", "ffv1"), ("gray16le", "ffv1"), ("ya16be", "png")])
def test_grey_is_read_as_rgb(tmp_path: Path, pixels: str, codec: str) -> None:
    pictures = list(read_video(plain(tmp_path / "a.mov", "0x808080", "-pix_fmt", pixels, "-c:v", codec, "-strict", "-2")))
    assert len(pictures) == 40 and np.abs(pictures[-1].astype(int) - 128).max() < 3


def test_rotation_is_applied(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving())
    ffmpeg("-display_rotation", "90", "-i", tmp_path / "a.mp4", "-c", "copy", tmp_path / "turned.mp4")
    for upright, turned in zip(read_video(tmp_path / "a.mp4"), read_video(tmp_path / "turned.mp4"), strict=True):
        np.testing.assert_array_equal(turned, np.rot90(upright))


@pytest.mark.parametrize(
    ("ratio", "shape"), [("2/1", (64, 192, 3)), ("1/2", (128, 96, 3)), ("12/11", (64, 105, 3)), ("1/1", (64, 96, 3))]
)
def test_pixels_that_are_not_square_are_made_so(tmp_path: Path, ratio: str, shape: tuple[int, int, int]) -> None:
    path = film(tmp_path / "a.mp4", "-vf", f"setsar={ratio}", "-pix_fmt", "yuv420p", *X264)
    assert {picture.shape for picture in read_video(path)} == {shape}


def test_a_video_that_changes_its_size_keeps_that_of_its_first_picture(tmp_path: Path) -> None:
    parts = [plain(tmp_path / f"{size}.h264", ORANGE, *X264, size=size, seconds=1) for size in ("96x64", "192x128")]
    (tmp_path / "a.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    pictures = list(read_video(tmp_path / "a.h264"))
    assert len(pictures) == 40 and {picture.shape for picture in pictures} == {(64, 96, 3)}
    assert np.abs(pictures[-1].astype(int) - [192, 128, 64]).max() < 6


def test_the_colours_of_a_terminal_do_not_hide_what_ffmpeg_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AV_LOG_FORCE_COLOR", "1")
    write_video(tmp_path / "a.mp4", moving())
    assert len(list(shown_pictures(tmp_path / "a.mp4"))) == 12


def test_each_picture_is_shown_until_the_next(tmp_path: Path) -> None:
    path = in_turn(tmp_path / "a.mp4", (2, 1, 1), "gt(N,0)*0.5+gt(N,1)*0.25+gt(N,2)*2", *X264)
    times = [(shown.start, shown.stop) for shown in shown_pictures(path)]
    tick = times[0][1] / 500  # a millisecond
    assert [round(start / tick) for start, _ in times] == [0, 500, 750, 2750]
    assert [stop for _, stop in times[:-1]] == [start for start, _ in times[1:]]


def test_the_last_picture_is_shown_as_long_as_the_file_says(tmp_path: Path) -> None:
    two = [Image.new("RGB", (32, 32), colour) for colour in ("red", "blue")]
    two[0].save(tmp_path / "a.gif", save_all=True, append_images=two[1:], duration=[1000, 8000], loop=0)
    assert [(shown.start, shown.stop) for shown in shown_pictures(tmp_path / "a.gif")] == [(0, 100), (100, 900)]


def test_a_cover_picture_is_not_the_video(tmp_path: Path) -> None:
    video = film(tmp_path / "v.mp4", *X264)
    cover = plain(tmp_path / "cover.jpg", "red", "-frames:v", 1)
    both = ("-i", cover, "-i", video, "-map", 0, "-map", 1, "-c", "copy")
    ffmpeg(*both, "-disposition:v:0", "attached_pic", tmp_path / "marked.mp4")
    ffmpeg(*both, tmp_path / "unmarked.mkv")
    ffmpeg("-i", video, "-attach", cover, "-metadata:s:t", "mimetype=image/jpeg", "-c", "copy", tmp_path / "attached.mkv")
    expected = np.stack(list(read_video(video)))
    for name in ("marked.mp4", "unmarked.mkv", "attached.mkv"):
        np.testing.assert_array_equal(np.stack(list(read_video(tmp_path / name))), expected, err_msg=name)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("gif", "gif"), ("apng", "apng"), ("webp", "libwebp_anim"), ("avif", "libaom-av1")]
)
def test_an_animated_picture_is_a_video_and_a_still_one_is_none(tmp_path: Path, suffix: str, codec: str) -> None:
    fast = ("-cpu-used", 8) if suffix == "avif" else ()
    assert len(list(read_video(film(tmp_path / f"a.{suffix}", "-c:v", codec, *fast)))) == 20
    film(tmp_path / f"b.{suffix}", "-frames:v", 1, "-c:v", codec, *fast)
    with pytest.raises(RoboprefError, match=rf"b\.{suffix}: a still picture, no video"):
        list(read_video(tmp_path / f"b.{suffix}"))


def test_a_file_of_jpegs_is_a_video_if_it_is_called_so(tmp_path: Path) -> None:
    film(tmp_path / "a.mjpeg", "-pix_fmt", "yuvj420p")
    assert len(list(read_video(tmp_path / "a.mjpeg"))) == 20
    (tmp_path / "a.mjpeg").rename(tmp_path / "a.jpg")  # a telephone writes a second picture into the file of the first
    with pytest.raises(RoboprefError, match=r"a\.jpg: a still picture, no video"):
        list(read_video(tmp_path / "a.jpg"))


def test_two_videos_in_one_file_are_refused(tmp_path: Path) -> None:
    video = film(tmp_path / "v.mp4", *X264)
    ffmpeg("-i", video, "-i", video, "-map", 0, "-map", 1, "-c", "copy", tmp_path / "two.mp4")
    with pytest.raises(RoboprefError, match=r"two\.mp4: holds 2 videos, streams 0, 1; .* -map 0:0 -c copy ONE\.mp4"):
        list(read_video(tmp_path / "two.mp4"))
    ffmpeg("-i", tmp_path / "two.mp4", "-map", "0:0", "-c", "copy", tmp_path / "ONE.mp4")
    assert len(list(read_video(tmp_path / "ONE.mp4"))) == 20


@pytest.mark.parametrize("suffix", ["mp3", "m4a", "flac", "wav"])
def test_sound_is_no_video(tmp_path: Path, suffix: str) -> None:
    cover = plain(tmp_path / "cover.jpg", "red", "-frames:v", 1)
    path = tmp_path / f"song.{suffix}"
    pictured = suffix != "wav"
    covered = ("-i", cover, "-map", 0, "-map", 1, "-c:v", "copy", "-disposition:v:0", "attached_pic") if pictured else ()
    ffmpeg("-f", "lavfi", "-i", "sine=duration=1", *covered, path)
    holds = "sound and a cover picture" if pictured else "sound"
    with pytest.raises(RoboprefError, match=rf"song\.{suffix}: holds {holds}, no video; give the video"):
        list(read_video(path))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "tiff", "webp"])
def test_a_still_picture_is_no_video(tmp_path: Path, suffix: str) -> None:
    plain(tmp_path / f"a.{suffix}", "red", "-frames:v", 1)
    with pytest.raises(RoboprefError, match=rf"a\.{suffix}: a still picture, no video"):
        list(read_video(tmp_path / f"a.{suffix}"))


TEXTS = {
    "list.m3u8": ("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nv.mp4\n#EXT-X-ENDLIST\n", "a playlist"),
    "list.m3u": ("\ufeff#EXTM3U\nv.mp4\n", "a playlist"),
    "list.ffconcat": ("ffconcat version 1.0\nfile v.mp4\n", "a playlist"),
    "list.txt": ("file 'v.mp4'\nfile 'v.mp4'\n", "a playlist"),
    "list.pls": ("[playlist]\nFile1=v.mp4\n", "a playlist"),
    "list.mpd": ('<?xml version="1.0"?>\n<!-- a -->\n<MPD profiles="a"></MPD>', "a playlist"),
    "list.mp4": ("#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nv.mp4\n#EXT-X-ENDLIST\n", "a playlist"),
    "a.srt": ("1\n00:00:00,000 --> 00:00:01,000\nhello\n", "subtitles"),
    "a.vtt": ("WEBVTT\n\n00:00.000 --> 00:01.000\nhi\n", "subtitles"),
    "a.ass": ("[Script Info]\nTitle: a\n", "subtitles"),
    "a.txt": ("what the robot did\n" * 99, "text"),
    "a.nfo": ("d\u00e9j\u00e0 vu " * 200, "text"),
    "a.svg": ('<svg xmlns="http://www.w3.org/2000/svg"/>', "text"),
    "pointer.mp4": ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "where Git LFS keeps a video"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_is_no_video_and_no_other_file_is_opened(tmp_path: Path, name: str) -> None:
    film(tmp_path / "v.mp4", *X264)
    text, what = TEXTS[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(RoboprefError, match=rf"{re.escape(name)}: {what}"):
        list(read_video(tmp_path / name))


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16", "utf-8-sig"])
def test_text_is_known_in_any_encoding(tmp_path: Path, encoding: str) -> None:
    video = film(tmp_path / "\u00e9t\u00e9.mp4", *X264)
    lists = {
        "a.m3u8": TEXTS["list.m3u8"][0].replace("v.mp4", video.name),
        "a.ffconcat": f"ffconcat version 1.0\nfile '{video}'\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text, encoding=encoding)
        with pytest.raises(RoboprefError, match=rf"{name}: a playlist"):
            list(read_video(tmp_path / name))
    (tmp_path / "a.txt").write_text("\u00e9t\u00e9\n" * 9, encoding=encoding)
    with pytest.raises(RoboprefError, match=r"a\.txt: text, no video"):
        list(read_video(tmp_path / "a.txt"))


def test_subtitles_in_a_container_are_no_video_and_do_no_harm_to_one(tmp_path: Path) -> None:
    video = film(tmp_path / "v.mp4", *X264)
    (tmp_path / "a.srt").write_text(TEXTS["a.srt"][0])
    ffmpeg("-i", tmp_path / "a.srt", tmp_path / "subtitles.mkv")
    with pytest.raises(RoboprefError, match=r"subtitles\.mkv: holds subtitles, no video"):
        list(read_video(tmp_path / "subtitles.mkv"))
    ffmpeg("-i", video, "-i", tmp_path / "a.srt", "-map", 1, "-map", 0, "-c:v", "copy", "-c:s", "mov_text", tmp_path / "both.mp4")
    assert len(list(read_video(tmp_path / "both.mp4"))) == 20


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("mp4", (*X264, "-movflags", "+faststart")),
        ("mp4", (*X264, "-movflags", "+frag_keyframe+empty_moov", "-g", 10)),
        ("mov", X264),
        ("mkv", X264),
        ("webm", ("-c:v", "libvpx")),
        ("ts", X264),
        ("avi", ("-c:v", "mpeg4")),
        ("flv", X264),
        ("gif", ()),
        ("webp", ("-c:v", "libwebp_anim")),
        ("ogv", ("-c:v", "libtheora")),
    ],
)
def test_a_file_that_was_cut_is_not_whole(tmp_path: Path, suffix: str, words: tuple[object, ...]) -> None:
    data = film(tmp_path / f"whole.{suffix}", *words, seconds=3).read_bytes()
    assert len(list(read_video(tmp_path / f"whole.{suffix}"))) == 60
    (tmp_path / f"cut.{suffix}").write_bytes(data[: len(data) * 7 // 10 | 1])  # within a packet, which has an even size
    with pytest.raises(RoboprefError, match=rf"cut\.{suffix}: not a whole video, \d+ pictures could be read .*[Cc]opy"):
        list(read_video(tmp_path / f"cut.{suffix}"))


@pytest.mark.parametrize(
    ("suffix", "words"),
    [
        ("mp4", (*X264, "-movflags", "+faststart")),
        ("mp4", (*X264, "-movflags", "+frag_keyframe+empty_moov", "-g", 10)),
        ("mov", ("-c:v", "mjpeg", "-c:a", "pcm_s16le", "-movflags", "+faststart")),
        ("mkv", X264),
        ("ts", X264),
        ("avi", ("-c:v", "mpeg4", "-c:a", "pcm_s16le")),
        ("flv", (*X264, "-c:a", "aac")),
    ],
)
def test_a_file_that_was_cut_within_its_sound_is_not_whole(tmp_path: Path, suffix: str, words: tuple[object, ...]) -> None:
    video = film(tmp_path / "v.mkv", *X264)
    loud = ("-f", "lavfi", "-i", "anoisesrc=duration=1.5:amplitude=1")  # and longer than the pictures
    ffmpeg("-i", video, *loud, *words, tmp_path / f"whole.{suffix}")
    assert len(list(read_video(tmp_path / f"whole.{suffix}"))) == 20
    data = (tmp_path / f"whole.{suffix}").read_bytes()
    for place in (0.4, 0.6, 0.8):
        (tmp_path / f"cut.{suffix}").write_bytes(data[: int(len(data) * place) | 1])
        with pytest.raises(RoboprefError, match=rf"cut\.{suffix}: not a whole video, \d+ pictures could be read"):
            list(read_video(tmp_path / f"cut.{suffix}"))


NAMES = (
    "2024-05-01T10:30:00.mp4",
    "-i.mp4",
    "-",
    "100%.mp4",
    "take %03d.mp4",
    "take [1].mp4",
    'it\'s "that" one.mp4',
    "file:a.mp4",
    "concat:a|b.mp4",
    "two\nlines.mp4",
    "\u00e9t\u00e9 \u5929.mp4",
    "back\\slash.mp4",
    "#1?a=b&c.mp4",
    os.fsdecode(b"caf\xe9.mp4"),
    "no suffix",
)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_is_read_here_and_by_its_whole_path(inside: Path, name: str) -> None:
    write_video(Path("a.mp4.partial"), moving(3))
    os.replace("a.mp4.partial", f"./{name}")
    assert len(list(read_video(Path(name)))) == len(list(read_video(inside / name))) == 3
    Path(name).write_bytes(b"")
    with pytest.raises(RoboprefError, match="empty, 0 bytes") as error:
        list(read_video(Path(name)))
    assert str(error.value).isprintable(), "one line, in letters that every terminal takes"


def test_what_cannot_be_opened_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    said = {
        "pipe.mp4": "a pipe or device, no file",
        "folder.mp4": r"is a folder; give its videos, such as .*folder\.mp4/\*\.mp4",
        "gone.mp4": "the file that this link leads to is gone",
        "loop.mp4": "cannot be opened",
        "absent.mp4": "there is no such video; correct the path",
        "a\0.mp4": "cannot be opened",
        "pipe.mp4/a.mp4": "cannot be opened",
    }
    for name, message in said.items():
        with pytest.raises(RoboprefError, match=message):
            list(read_video(tmp_path / name))
    with pytest.raises(RoboprefError, match="a pipe or device"):
        list(read_video(Path("/dev/zero")))
    write_video(tmp_path / "mine.mp4", moving(3))

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)  # root may read everything
    with pytest.raises(RoboprefError, match=r"mine\.mp4: may not be read; change its permissions"):
        list(read_video(tmp_path / "mine.mp4"))


@pytest.mark.parametrize("size", [224, 320])
def test_overlay_writes_in_its_bands_and_nowhere_else(size: int) -> None:
    picture = np.full((size, size, 3), 200, np.uint8)
    drawn = overlay(picture, "close the drawer", 12, 0.5, False)
    assert drawn.shape == picture.shape and drawn.dtype == np.uint8
    assert (picture == 200).all(), "the caller's picture stays as it was"
    changed = (drawn != picture).any((1, 2))
    assert changed[: size // 16].all() and changed[-size // 16 :].all()
    assert not changed[size // 4 : -size // 4].any()
    assert drawn[: size // 16].max() > 240, "white ink on the dark band"


def test_overlay_tells_step_score_and_success_apart() -> None:
    picture = np.full((224, 224, 3), 120, np.uint8)
    plain = overlay(picture, "close the drawer", 12, 0.5, False)
    others = [
        overlay(picture, "open the drawer", 12, 0.5, False),
        overlay(picture, "close the drawer", 13, 0.5, False),
        overlay(picture, "close the drawer", 12, 0.7, False),
        overlay(picture, "close the drawer", 12, None, False),
        overlay(picture, "close the drawer", 12, 0.5, True),
        overlay(picture, "close the drawer", 12, 0.5, False, title="cpl-vlp, goal 3"),
    ]
    assert all((plain != other).any() for other in others)


def test_long_empty_and_unbroken_instructions_fit() -> None:
    font = ImageFont.load_default(12)
    for text in ("", "word " * 300, "x" * 2000, "tab\tand\nline", "\u4f60\u597d"):
        lines = wrap(text, font, 200, lines=2)
        assert len(lines) <= 2 and all(font.getlength(line) <= 200 for line in lines)
        overlay(np.zeros((224, 224, 3), np.uint8), text, 0, None, False)
    assert wrap("push the drawer until it is shut", font, 90, 2) == ["push the drawer", "until it is shut"]
    assert wrap("word " * 300, font, 200, 2)[-1].endswith("...")


def test_grid_holds_the_last_picture_of_the_short_episode() -> None:
    short = [np.full((8, 8, 3), value, np.uint8) for value in (10, 20)]
    long = [np.full((8, 8, 3), value, np.uint8) for value in (30, 40, 50, 60)]
    pictures = list(grid([short, long, long], columns=2, gap=2))
    assert len(pictures) == 4 and pictures[0].shape == (18, 18, 3)
    assert [int(picture[0, 0, 0]) for picture in pictures] == [10, 20, 20, 20]
    assert [int(picture[0, 10, 0]) for picture in pictures] == [30, 40, 50, 60]
    assert [int(picture[10, 0, 0]) for picture in pictures] == [30, 40, 50, 60]
    assert (pictures[0][10:, 10:] == 0).all(), "an empty place is black"


def test_grid_of_nothing_is_an_error() -> None:
    for sequences in ([], [[]]):
        with pytest.raises(RoboprefError, match="grid"):
            list(grid(sequences))
