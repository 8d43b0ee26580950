"""Video files of unusual kinds, made by the ffmpeg that reads them."""

from __future__ import annotations

import subprocess
from pathlib import Path

from imageio_ffmpeg import get_ffmpeg_exe

COLOURS = ("red", "green", "blue")


def ffmpeg(*words: object) -> None:
    command = [get_ffmpeg_exe(), "-y", "-nostdin", "-v", "error", *map(str, words)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def film(path: Path, *words: object, size: str = "96x64", rate: object = 20, seconds: object = 1) -> Path:
    """A test pattern that moves; words: how it is encoded."""
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=size={size}:rate={rate}:duration={seconds}", *words, path)
    return path


def plain(path: Path, colour: str, *words: object, size: str = "160x120", seconds: object = 2) -> Path:
    """One colour all over."""
    ffmpeg("-f", "lavfi", "-i", f"color={colour}:size={size}:rate=20:duration={seconds}", *words, path)
    return path


def in_turn(path: Path, counts: tuple[int, int, int], times: str, *words: object) -> Path:
    """So many pictures in red, in green and in blue; times: ffmpeg's expression for the second at which picture N begins."""
    sources = [word for colour in COLOURS for word in ("-f", "lavfi", "-i", f"color={colour}:size=64x64:rate=20:duration=9")]
    cut = "".join(f"[{n}:v]trim=end_frame={count},setpts=PTS-STARTPTS[{n}];" for n, count in enumerate(counts))
    graph = f"{cut}[0][1][2]concat=n=3:v=1,setpts='({times})/TB'"
    ffmpeg(*sources, "-filter_complex", graph, "-fps_mode", "vfr", "-enc_time_base", "1/1000", *words, path)
    return path
