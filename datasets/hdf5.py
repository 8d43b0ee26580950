"""HDF5 files that may be damaged: whatever h5py stumbles over is one line, and no more is read than a file can hold.

Used by datasets.d4rl, datasets.minari_sets and datasets.episodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py

from robopref.configs.errors import RoboprefError, one_line

SMALL = 2**20  # bytes that a data set may claim whatever is there: one that was never written reads as zeros
PACKED = 1032  # times as many bytes as are there: what deflate, the closest of the usual filters, can pack


@contextmanager
def reading(path: str | Path, remedy: str) -> Iterator[None]:
    """Turn what h5py raises, which is of many kinds, into a RoboprefError that names `path`.

    The block should only read: a fault of ours in it would be told as one of the file.
    """
    try:
        yield
    except RoboprefError:
        raise
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, MemoryError) as error:
        raise RoboprefError(f"{path}: truncated, damaged or not HDF5 ({one_line(error)}). {remedy}") from error


def found(group: h5py.Group, name: str) -> Any:
    """The data set or group that is called `name`; None where there is none, also where a link leads to nothing.

    RoboprefError for what lies in another file, which whoever wrote this one may have chosen, and for a data set that claims more
    than its file can hold, before memory is asked for.
    """
    if leads_elsewhere(group, name):
        there = Path(group.file.filename)
        raise RoboprefError(f"{there}: {name} leads to another file, which is not read; copy it into this one")
    item = group.get(name)
    if not isinstance(item, h5py.Dataset) or item.nbytes <= SMALL:
        return item
    size = item.file.id.get_filesize()
    held = (
        size
        if item.chunks is None or not item.id.get_create_plist().get_nfilters()
        else max(size, PACKED * item.id.get_storage_size())
    )
    if item.nbytes > held:
        rows = f"{item.shape[0]} rows" if item.shape else "one row"
        raise RoboprefError(
            f"{Path(item.file.filename)}: {str(item.name).removeprefix('/')} claims {rows}, {item.nbytes} bytes, and the file of "
            f"{size} bytes cannot hold them; get it again, or point to another"
        )
    return item


def leads_elsewhere(group: h5py.Group, name: str) -> bool:
    """Whether an external link, or a data set whose numbers are in other files, stands at `name` or above it."""
    item: Any = group
    for part in name.split("/"):
        if not isinstance(item, h5py.Group):
            return False
        if isinstance(item.get(part, getlink=True), h5py.ExternalLink):
            return True
        item = item.get(part)
    if isinstance(item, h5py.Group | h5py.Dataset) and item.file.filename != group.file.filename:  # by a link to such a link
        return True
    return isinstance(item, h5py.Dataset) and bool(item.external or item.is_virtual)
