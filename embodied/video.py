"""Video files and what is written on their pictures.

Comes after rendering: pictures in, one mp4 out that every browser plays.  Pictures are (H, W, 3) uint8, upright (row 0
is the top), and stream through one at a time, so that a long video needs no more memory than a short one.
"""

from __future__ import annotations

import subprocess
import tempfile
from bisect import bisect_right
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image, ImageDraw, ImageFont

from robopref.configs.errors import RoboprefError
from robopref.configs.files import atomic_file
from robopref.embodied.decode import decoded

SHADE = (12, 16, 24, 190)  # lets the scene through and keeps the text readable even on a white picture
INK = (255, 255, 255, 255)
FAINT = (205, 212, 224, 255)
GOOD = (74, 222, 128, 255)
CRF = "20"  # x264's scale; below 18 nobody sees a difference, above 24 the small text smears


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int = 20) -> int:
    """Encode `frames` as H.264 into `path` and return how many there were; odd sizes grow by one pixel.

    The file appears under its name only when it is whole.  imageio-ffmpeg brings the encoder; its own writer is not
    used because it does not look at ffmpeg's exit status, and so leaves a broken file when the disk is full.
    """
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise RoboprefError(f"{path}: there is no picture to write; the episode is empty.")
    height, width, _ = first.shape
    with atomic_file(path) as aside, tempfile.TemporaryFile() as complaints:
        command = [get_ffmpeg_exe(), "-y", "-v", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
        command += ["-s", f"{width}x{height}", "-r", str(fps), "-i", "-", "-an", "-c:v", "libx264", "-crf", CRF]
        command += ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2"]  # yuv420p has one colour for 2 x 2 pixels
        command += ["-pix_fmt", "yuv420p", "-movflags", "+faststart", "-f", "mp4", str(aside)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=complaints) as encoder:
            try:
                count = _feed(encoder.stdin, path, chain([first], stream))
            except BaseException:
                encoder.kill()
                raise
        if encoder.returncode != 0:
            raise RoboprefError(f"{path}: not written, ffmpeg says: {_tail(complaints)}. Is the disk full?")
    return count


def _feed(sink: IO[bytes] | None, path: Path, frames: Iterable[np.ndarray]) -> int:
    """Send every picture to the encoder; a broken pipe is left to the encoder's exit status to explain."""
    assert sink is not None
    count, shape = 0, None
    try:
        for frame in frames:
            shape = shape or frame.shape
            if frame.shape != shape or frame.dtype != np.uint8:
                raise RoboprefError(
                    f"{path}: picture {count} is {frame.shape} {frame.dtype}, the first was {shape}; "
                    "all must be (H, W, 3) uint8 of one size."
                )
            sink.write(np.ascontiguousarray(frame).data)
            count += 1
    except BrokenPipeError:
        return count
    finally:
        with suppress(BrokenPipeError):
            sink.close()
    return count


def read_video(path: Path) -> Generator[np.ndarray]:
    """The pictures of any video that ffmpeg reads, upright, one (H, W, 3) uint8 at a time.

    Raises `RoboprefError` for a file that is no video, and for a missing, empty, truncated or corrupted one: after the last
    good picture at the latest.
    """
    with closing(decoded(Path(path))) as pictures:
        for picture, _, _ in pictures:
            yield picture


def _tail(complaints: IO[bytes], limit: int = 200) -> str:
    """The last line that ffmpeg wrote, shortened."""
    complaints.seek(0)
    lines = complaints.read().decode("utf-8", "replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    return said[-1][:limit] if said else "nothing"


def overlay(
    frame: np.ndarray,
    instruction: str,
    step: int,
    score: float | None,
    success: bool | None,
    *,
    title: str = "",
    score_name: str = "score",
) -> np.ndarray:
    """A copy of `frame` (H, W, 3) that says above what is asked, and below step, score and success.

    success: None where the world knows none.  title: a line above the instruction, such as policy and goal.  Text grows with
    the picture and is made for 224 to 320 pixels; an instruction that needs more than two lines is shortened.
    """
    height, width, _ = frame.shape
    size = max(10, round(min(height, width) * 0.05))
    font, margin, line = typeface(size), size // 2, round(size * 1.3)
    canvas = Image.fromarray(frame).convert("RGBA")
    shade = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(shade)

    wording = wrap(instruction, font, width - 2 * margin, lines=2)
    above = [(title, FAINT)] * bool(title) + [(text, INK) for text in wording]
    draw.rectangle((0, 0, width, len(above) * line + margin), fill=SHADE)
    for row, (text, colour) in enumerate(above):
        draw.text((margin, margin // 2 + row * line), text, font=font, fill=colour)

    top = height - line - margin
    middle = top + (height - top) // 2
    draw.rectangle((0, top, width, height), fill=SHADE)
    draw.text((margin, middle), f"step {step}", font=font, fill=INK, anchor="lm")
    if score is not None:
        number = f"{score:.2f}" if abs(score) < 100 else f"{score:.0f}"
        draw.text((width // 2, middle), f"{score_name} {number}", font=font, fill=INK, anchor="mm")
    if success is None:
        return np.asarray(Image.alpha_composite(canvas, shade).convert("RGB"))
    # Shape and word say it too, for those who cannot tell green from grey.
    word, colour = ("success", GOOD) if success else ("not yet", FAINT)
    left = width - margin - draw.textlength(word, font=font)
    draw.text((left, middle), word, font=font, fill=colour, anchor="lm")
    radius = size // 4
    centre = left - 2 * radius - 1
    dot = (centre - radius, middle - radius, centre + radius, middle + radius)
    draw.ellipse(dot, fill=colour if success else None, outline=colour)
    return np.asarray(Image.alpha_composite(canvas, shade).convert("RGB"))


def wrap(text: str, font: ImageFont.FreeTypeFont, width: float, lines: int) -> list[str]:
    """`text` in at most `lines` lines of `width` pixels, broken between words if possible; "..." ends what is cut."""
    rest = " ".join(text[: 10 * int(width)].split())  # nobody can read more, and measuring long text is slow
    done: list[str] = []

    def fitting(line: str, room: float) -> int:
        return bisect_right(range(len(line) + 1), room, key=lambda n: font.getlength(line[:n])) - 1

    while rest and len(done) < lines:
        cut = fitting(rest, width)
        if cut < len(rest):
            blank = rest.rfind(" ", 0, cut + 1)
            cut = blank if blank > 0 else max(cut, 1)
        done.append(rest[:cut])
        rest = rest[cut:].lstrip()
    if rest and done:
        done[-1] = done[-1][: fitting(done[-1], width - font.getlength("..."))].rstrip() + "..."
    return done


@lru_cache(maxsize=8)
def typeface(size: int) -> ImageFont.FreeTypeFont:
    """Pillow's own, `size` pixels high, so that no machine lacks it."""
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RoboprefError("Pillow was built without FreeType and cannot write on pictures: reinstall it with pip.")
    return font


def grid(sequences: Sequence[Sequence[np.ndarray]], columns: int | None = None, gap: int = 4) -> Iterator[np.ndarray]:
    """Play several episodes side by side, in rows of `columns` (default: as square as it gets).

    sequences: one list of (H, W, 3) pictures each, all of one size; one that ends early holds its last picture.
    """
    if not sequences or not all(len(sequence) for sequence in sequences):
        raise RoboprefError("A grid video needs at least one episode, and at least one picture of each.")
    columns = columns or int(np.ceil(np.sqrt(len(sequences))))
    rows = -(-len(sequences) // columns)
    height, width, _ = sequences[0][0].shape
    for moment in range(max(len(sequence) for sequence in sequences)):
        picture = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), np.uint8)
        for number, sequence in enumerate(sequences):
            row, column = divmod(number, columns)
            top, left = row * (height + gap), column * (width + gap)
            picture[top : top + height, left : left + width] = sequence[min(moment, len(sequence) - 1)]
        yield picture
