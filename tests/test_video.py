from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from robopref.configs.errors import RoboprefError
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


def test_reading_may_stop_early(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", moving(200))
    pictures = read_video(tmp_path / "a.mp4")
    assert next(pictures).shape == (96, 128, 3)
    pictures.close()


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
