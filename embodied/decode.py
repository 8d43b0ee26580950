"""Video files as ffmpeg decodes them: pictures with the times at which they are shown, or one line that says what a file is.

The reading half of video.py.  Pictures are (H, W, 3) uint8, upright, of square pixels, and stream through one at a time.  Times
are whole ticks of the file's own clock, from its first picture on: they are compared with each other and with nothing else.
"""

from __future__ import annotations

import codecs
import fcntl
import os
import re
import select
import stat
import subprocess
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe

from robopref.configs.errors import RoboprefError

# Other pixels than square ones, as of DV and MPEG-2: the picture grows to what players show.  No such format goes beyond 4.
SQUARE = "scale=w='trunc(iw*clip(sar,1,4)+0.5)':h='trunc(ih/clip(sar,0.25,1)+0.5)'"
SNIFFED = 1024  # bytes; a video's are no text by then
CONTROL = bytes({*range(32), 127} - {*b"\t\n\v\f\r"})
ROOMY = 2**18  # bytes of the pipe for pictures, so that one of 224 px does not take three turns
PIPE = 2**16  # bytes that a pipe holds; ffmpeg stops when so many are not heard
LISTEN_EVERY = 50  # ms, while no picture comes
SHORTEST_HEADER, LONGEST_HEADER = 11, 64  # bytes before a PPM picture
STILL = ("image2", "ico", "alias_pix", "brender_pix", "fits")  # demuxers of single pictures, beside all that end in _pipe
MAY_MOVE = ("gif", "apng", "webp_anim", "jpegxl_anim")  # demuxers of formats that hold one picture or several
MOTION_JPEG = (".mjpeg", ".mjpg")  # pictures one after the other; those of a .jpg belong to one, as a telephone's depths do
STILL_BRANDS = ("avif", "heic", "heix", "heim", "heis", "mif1")  # in the MP4 header; avis, hevc and msf1 are sequences
LISTS = ("hls", "concat", "dash", "imf", "sdp")  # demuxers that open other files
DRAWN_TEXT = ("tty", "bin", "xbin", "adf", "idf")  # demuxers that draw letters
UNEXPECTED_END = ("ended prematurely", "partial file", "LZW decode failed")  # after which ffmpeg exits with 0 all the same
AFTERMATH = ("Task finished", "Terminating thread", "Error opening", "Error parsing", "Failed to set", "Nothing was written")
TS_PACKETS = (188, 192, 204)  # bytes: plain, with a time before each, with a checksum after each
OGG_PAGE = 65307  # bytes of the longest
REMEDY = "Copy or record it again, or leave it out."
STILL_PICTURE = "a still picture, no video; give a video, or leave it out."
PLAYLIST_ONLY = "a playlist, which only names videos; give these videos themselves."
TEXT = "text, no video; leave it out."

PPM = re.compile(rb"P6\n(\d+) (\d+)\n255\n")
# Threads of ffmpeg speak at once: what one says may stand after half a line of another, without a beginning of its own.
PICTURE = re.compile(r"(?<!: )\bn: *\d+ pts: *(\S+) +pts_time:\S+ +(?:duration: *(\d+))?")
FORMAT = re.compile(r"\[info\] Input #0, (.+), from '")
BRAND = re.compile(r"\[info\] +major_brand +: (\w+)")
STREAM = re.compile(r"\[info\] +Stream #0:(\d+)\S*: (Video|Audio|Subtitle)\b(.*)")
COMPLAINT = re.compile(r"(?:\[[^]]*\] )*\[(?:error|fatal)\] (.+)")
PLAYLIST = re.compile(r"#EXTM3U|ffconcat |\[playlist\]|file\s+\S|v=0\s|(?s:<\?xml.*)?<(?:MPD|smil|asx|playlist)\b", re.IGNORECASE)
SUBTITLES = re.compile(r"WEBVTT|\[Script Info\]|<SAMI>|\{\d+\}\{\d+\}|(?s:.{0,40}?)\d:\d\d[:,.]\d+.* --> ")


class Shown(NamedTuple):
    """A picture and the ticks from `start` up to `stop` at which it is shown; those of the first begin at 0."""

    picture: np.ndarray
    start: int
    stop: int


def shown_pictures(path: Path) -> Generator[Shown]:
    """The pictures of `decoded` with their times, each shown until the next; the last as long as the file says it lasts.

    Pictures without a time, or with one before their predecessor's, are taken to follow it as its predecessor did.
    """
    held: np.ndarray | None = None
    start, step, shortest = 0, 1, 0
    said: int | None = None
    lasts: int | None = None
    with closing(decoded(path)) as pictures:
        for picture, time, length in pictures:
            if held is not None:
                if time is not None and said is not None and time >= said:
                    step = time - said
                shortest = min(shortest or step, step or shortest)
                yield Shown(held, start, start + step)
                start += step
            held, said, lasts = picture, time, length
    if held is not None:
        yield Shown(held, start, start + (lasts or shortest or 1))


def decoded(path: Path) -> Generator[tuple[np.ndarray, int | None, int | None]]:
    """Pictures of a video file, the time of each and how long it lasts, in ticks; None where the file does not say.

    The stream is the first that is neither a cover picture nor a single one beside others.  Raises `RoboprefError` for a file
    that holds several such streams or none, and for one that is missing, empty, truncated or corrupted: after the last good
    picture at the latest.
    """
    check_file(path)
    with _ffmpeg(path, "V:0") as decoder:  # of all streams that are no cover pictures, the first
        first = decoder.picture()
        _refuse(path, decoder)
        if len(decoder.videos) < 2:
            yield from _pictures(path, decoder, first)
            return
    with _ffmpeg(path, str(_moving(path, decoder.videos))) as decoder:
        yield from _pictures(path, decoder, decoder.picture())


def check_file(path: Path) -> None:
    """Raise `RoboprefError` unless `path` is a file that can be opened and is neither empty nor text.

    ffmpeg would wait for ever at a pipe, open the files that a playlist names, and draw text as pictures.
    """
    name = legible(path)
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise RoboprefError(f'{name} is a folder; give its videos, such as "{name}/*.mp4".')
        if not stat.S_ISREG(mode):
            raise RoboprefError(f"{name}: a pipe or device, no file; write what comes out of it to a file, and give that.")
        with path.open("rb") as file:
            head = file.read(SNIFFED)
    except FileNotFoundError:
        gone = "the file that this link leads to is gone" if path.is_symlink() else "there is no such video"
        raise RoboprefError(f"{name}: {gone}; correct the path.") from None
    except PermissionError:
        raise RoboprefError(f"{name}: may not be read; change its permissions, or leave it out.") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RoboprefError(f"{name}: cannot be opened ({reason}); correct the path, or leave it out.") from None
    if not head:
        raise RoboprefError(f"{name}: empty, 0 bytes. {REMEDY}")
    text = _text(head)
    if text is None or text.startswith("YUV4MPEG2 "):
        return
    if PLAYLIST.match(text.lstrip()):
        raise RoboprefError(f"{name}: {PLAYLIST_ONLY}")
    if SUBTITLES.match(text.lstrip()):
        raise RoboprefError(f"{name}: subtitles, no video; give the video that they belong to.")
    if text.startswith("version https://git-lfs"):
        raise RoboprefError(f"{name}: where Git LFS keeps a video, not the video; fetch it with `git lfs pull`.")
    raise RoboprefError(f"{name}: {TEXT}")


def legible(path: Path) -> str:
    """The path on one line and in letters that every output takes: what is not printable is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(path))


def _text(head: bytes) -> str | None:
    """What a file that begins with `head` says, if it is text, in whichever encoding: other files hold control characters."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return head.decode("utf-16", "replace")
    return None if head.translate(None, CONTROL) != head else head.decode("utf-8-sig", "replace")


class _Decoder:
    """A running ffmpeg: takes what it sends and hears what it says, so that it never waits for either."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        assert isinstance(process.stdout, FileIO) and process.stderr is not None
        self.path, self.process = path, process
        self.format, self.brand = "", ""
        self.kinds: Counter[str] = Counter()
        self.videos: list[int] = []  # numbers of the streams that are no cover pictures
        self.complaints: deque[str] = deque(maxlen=20)  # the last one that says something is among so many
        self.cut = False
        self.status: int | None = None
        self._opened = False  # whether the header has been said to its end
        self._times: deque[tuple[int | None, int | None]] = deque()  # of pictures that have not been taken yet
        self._line = b""  # said, but not to its end
        self._header = SHORTEST_HEADER  # bytes of the last picture's
        self._stdout, self._stderr = process.stdout, process.stderr
        os.set_blocking(self._stderr.fileno(), False)
        with suppress(AttributeError, OSError):  # not on macOS; not where this user's pipes are too large already
            fcntl.fcntl(self._stdout, fcntl.F_SETPIPE_SZ, ROOMY)
        self._pipe = select.poll()
        self._pipe.register(self._stdout, select.POLLIN)

    def picture(self) -> tuple[np.ndarray, int | None, int | None] | None:
        """The next picture, when it is shown and how long; None when there is none, or only a part of it."""
        header = bytearray()
        while (found := PPM.match(header)) is None and len(header) < LONGEST_HEADER:
            more = bytearray(self._header if not header else 1)
            if self._fill(memoryview(more)) < len(more):
                break
            header += more
        if found is None and len(header) >= LONGEST_HEADER:
            raise RoboprefError(f"{legible(self.path)}: ffmpeg sends no RGB pictures; install imageio-ffmpeg again.")
        if found is None:
            self._end()
            return None
        self._header, width, height = len(header), int(found[1]), int(found[2])
        picture = np.empty((height, width, 3), np.uint8)
        if self._fill(picture.reshape(-1).data) < picture.size:
            self._end()
            return None
        if not self._times:
            self._listen()  # it is said before the picture is sent
        if not self._times:
            raise RoboprefError(
                f"{legible(self.path)}: ffmpeg does not say when its pictures are shown; install imageio-ffmpeg again."
            )
        return picture, *self._times.popleft()

    def complaint(self, limit: int = 200) -> str:
        """The last thing that ffmpeg complained about, and not what followed from it, shortened."""
        telling = [line for line in self.complaints if not line.startswith(AFTERMATH)] or list(self.complaints)
        return telling[-1][:limit] if telling else "nothing"

    def _end(self) -> None:
        """Hear the rest of what ffmpeg says, which has sent everything, and wait for its exit status."""
        os.set_blocking(self._stderr.fileno(), True)
        self._hear(self._stderr.read())
        self.status = self.process.wait()

    def _fill(self, room: memoryview) -> int:
        """Wait for as many bytes as `room` has place for; how many came, fewer when no more are sent."""
        count = 0
        while count < len(room):
            while not self._pipe.poll(LISTEN_EVERY):
                self._listen()
            taken = self._stdout.readinto(room[count:])
            if not taken:
                break
            count += taken
        return count

    def _listen(self) -> None:
        """Take in what has been said so far."""
        with suppress(BlockingIOError):
            self._hear(os.read(self._stderr.fileno(), PIPE))

    def _hear(self, said: bytes) -> None:
        *lines, self._line = (self._line + said).split(b"\n")
        for line in lines:
            self._understand(line.decode("utf-8", "replace").rstrip())

    def _understand(self, line: str) -> None:
        # A line of the header may hold a title, which may hold anything.
        self.cut |= not line.startswith("[info]") and any(words in line for words in UNEXPECTED_END)
        if found := PICTURE.search(line):
            time, lasts = found.groups()
            self._times.append((int(time) if time.lstrip("-").isdigit() else None, int(lasts) if lasts else None))
        elif found := COMPLAINT.match(line):
            self.complaints.append(found[1])
        elif self._opened:
            return
        elif line.startswith(("[info] Stream mapping", "[info] Output #0")):
            self._opened = True
        elif found := FORMAT.match(line):
            self.format = found[1]
        elif (found := BRAND.match(line)) and not self.brand:
            self.brand = found[1]
        elif found := STREAM.match(line):
            number, kind, about = int(found[1]), found[2], found[3]
            cover = kind == "Video" and "(attached pic)" in about
            self.kinds["Cover" if cover else kind] += 1
            if kind == "Video" and not cover and number not in self.videos:  # one of two programs is listed twice
                self.videos.append(number)


@contextmanager
def _ffmpeg(path: Path, stream: str) -> Iterator[_Decoder]:
    """ffmpeg that decodes `stream` of `path`, killed however the block is left.

    PPM carries each picture's size; ffmpeg has by then applied the rotation that telephones write into the header, and it
    scales the pictures of a video that changes its size to that of the first.  `file:` keeps a colon in a name from being a
    protocol's and a dash from being an option's.
    """
    command = [get_ffmpeg_exe(), "-hide_banner", "-nostats", "-v", "level+info", "-xerror", "-i", f"file:{path}"]
    command += ["-map", f"0:{stream}", "-vf", f"showinfo=checksum=0,{SQUARE}", "-fps_mode", "passthrough"]
    command += ["-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"]
    pipe, plain = subprocess.PIPE, os.environ | {"AV_LOG_FORCE_NOCOLOR": "1"}  # colours would be among the words
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, env=plain, bufsize=0) as process:
        try:
            yield _Decoder(path, process)
        finally:
            process.kill()


def _refuse(path: Path, decoder: _Decoder) -> None:
    """Raise `RoboprefError` for what ffmpeg decodes, or would, and is no video."""
    name = legible(path)
    single = decoder.format.endswith("_pipe") and path.suffix.lower() not in MOTION_JPEG
    if single or decoder.format in STILL or decoder.brand in STILL_BRANDS:
        raise RoboprefError(f"{name}: {STILL_PICTURE}")
    if decoder.format in LISTS:
        raise RoboprefError(f"{name}: {PLAYLIST_ONLY}")
    if decoder.format in DRAWN_TEXT:
        raise RoboprefError(f"{name}: {TEXT}")
    if decoder.format and not decoder.videos:
        found = [("Audio", "sound"), ("Subtitle", "subtitles"), ("Cover", "a cover picture")]
        holds = " and ".join(word for kind, word in found if decoder.kinds[kind]) or "neither pictures nor sound"
        raise RoboprefError(f"{name}: holds {holds}, no video; give the video itself, or leave it out.")


def _pictures(
    path: Path, decoder: _Decoder, first: tuple[np.ndarray, int | None, int | None] | None
) -> Iterator[tuple[np.ndarray, int | None, int | None]]:
    """All pictures of `decoder`, of which the first has been taken; raises `RoboprefError` unless it ends well."""
    count, found = 0, first
    while found is not None:
        yield found
        count += 1
        found = decoder.picture()
    missing = _lacks_its_end(path, decoder.format)
    if decoder.status != 0 or count == 0 or decoder.cut or missing:
        why = "its end is missing" if missing else f"ffmpeg: {decoder.complaint()}"
        raise RoboprefError(f"{legible(path)}: not a whole video, {count} pictures could be read ({why}). {REMEDY}")
    if count == 1 and (decoder.format in MAY_MOVE or decoder.format.endswith("_pipe")):
        raise RoboprefError(f"{legible(path)}: {STILL_PICTURE}")


def _lacks_its_end(path: Path, container: str) -> bool:
    """Whether a file ends before its own sizes say, of which ffmpeg says nothing unless it is within a picture."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if container == "mpegts":
            return all(size % packet for packet in TS_PACKETS)
        if container == "avi":
            return size + 1 < 8 + int.from_bytes(file.read(8)[4:], "little")  # 1: where the last chunk lacks its padding
        if container == "flv":  # a tag, its size, a tag, its size
            file.seek(max(size - 4, 0))
            last = int.from_bytes(file.read(4), "big")
            file.seek(max(size - 4 - last, 0))
            return last != 11 + int.from_bytes(file.read(4)[1:], "big")  # 11: what comes before the data of a tag
        if container == "ogg":
            file.seek(max(size - OGG_PAGE, 0))
            page = file.read()
            page = page[page.rfind(b"OggS") :]
            lengths = page[27 : 27 + page[26]] if len(page) > 26 else b""
            return len(page) < 27 + len(lengths) + sum(lengths)
        at = 0
        while "mp4" in container and at + 8 <= size:  # from one box of the file to the next
            file.seek(at)
            head = file.read(16)
            length = int.from_bytes(head[8:] if head[:4] == b"\0\0\0\1" else head[:4], "big")
            if head[4:8] == b"mdat" and at + length > size:
                return True
            if length < 8:  # up to the end, or no box
                break
            at += length
    return False


def _moving(path: Path, videos: Sequence[int]) -> int:
    """The one of several video streams that holds more than one picture; `RoboprefError` if that is not one.

    Some containers cannot mark a cover picture as one, and an animated AVIF begins with a still one.
    """
    command = [get_ffmpeg_exe(), "-v", "error", "-i", f"file:{path}", "-map", "0:V", "-c", "copy", "-f", "framecrc", "-"]
    counts: Counter[int] = Counter()
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:  # a packet each, without decoding it: the number of its stream, its time, ...
                if line[:1].isdigit():
                    counts[videos[int(line.split(b",")[0])]] += 1
        except BaseException:
            process.kill()
            raise
    moving = [number for number in videos if counts[number] > 1]
    if len(moving) == 1:
        return moving[0]
    name, several = legible(path), moving or videos
    raise RoboprefError(
        f"{name}: holds {len(several)} videos, streams {', '.join(map(str, several))}; write the one that counts to a file of "
        f'its own: ffmpeg -i "{name}" -map 0:{several[0]} -c copy ONE{path.suffix}'
    )
