"""Where the episodes of flat rows end: flags, held against next observations, rows and the limit of steps.

Used by datasets.d4rl and datasets.minari_sets.  A flag that is wrong joins two episodes, and a learner would then be taught the
way from the end of one to the start of the other.  Three witnesses are asked (ours):

* next observations: where a row's is not the row that follows, an episode ended.  Vector environments that reset themselves may
  hand out the next episode's first observation instead; such a set's next observations witness nothing.
* jumps: a reset moves all numbers of an observation at once, which shows as a change that no step inside an episode has.
* the limit: an environment cuts episodes after so many steps.

What they agree on is repaired and said (`Ends.notes`), what they leave open is refused, and where they do not contradict the
flags the flags hold.  The thresholds come from episodes of Gymnasium's MuJoCo environments and from D4RL's door-human: there
resets stand out from all other changes by 1.2 to 6.7 or not at all, and a spike inside an episode by at most 2.8.

Axes: N rows, do numbers in an observation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from robopref.configs.errors import RoboprefError

SAME = 1e-4  # relative or absolute, by which an observation may differ from the one announced by the row before
BLOCK = 65_536  # rows looked at together
WIDE = 8_192  # the same in double precision
WORDS = {"false": False, "0": False, "0.0": False, "true": True, "1": True, "1.0": True}
A_GAP = 1.1  # times as large as the largest other change: that of equally frequent resets
STANDS_OUT = 1.5  # the same for several resets
ALONE = 3.0  # the same for a single change, and for changes that nothing else confirms
SURE, LIKELY = 3.0, 1.0  # deviations by which the mean rank of changes at resets, of 0 to 1, is above that of arbitrary rows
HIGHEST = 0.98  # rank that is enough where ends are too few for that
MANY = 4  # ends that a mean of ranks is taken of, and equal episodes that are no accident
FEW = 8  # rows; of fewer, most next observations may well be those of ends
REMEDY = "write timeouts that are true in the last row of every episode, even if there is only one"


@dataclass(frozen=True)
class Jumps:
    """Changes from row to row, and those of them that are above the widest gap in their order."""

    above: np.ndarray  # (k,) int64, the rows that they come after, rising
    ratio: float  # the smallest of them over the largest other
    sizes: np.ndarray  # (N - 1,) float64, the change after each row

    @property
    def rows(self) -> np.ndarray:
        """(k,) int64, `above` where it stands out from the others; else nothing."""
        return self.above[: len(self.above) * (self.ratio >= (STANDS_OUT if len(self.above) > 1 else ALONE))]


@dataclass(frozen=True)
class Rows:
    """Observations as they were recorded, and what is known about them beside flags."""

    where: Path  # in messages
    observations: np.ndarray  # (N, do) float32
    following: np.ndarray | None = None  # (N, do) float32, next observations
    limit: int | None = None  # steps after which an episode is cut
    joined: Sequence[int] | None = (
        None  # ends after which the next row goes on, by a writer whose flags hold; None: no such writer
    )

    @cached_property
    def broken(self) -> np.ndarray:
        """(N,) bool, where the observation announced by a row is not the one of the row after it."""
        broken = np.zeros(len(self.observations), bool)
        if self.following is not None:
            for start in range(0, len(broken) - 1, BLOCK):
                next_row = self.observations[start + 1 : start + 1 + BLOCK]
                announced = self.following[start : start + len(next_row)]
                broken[start : start + len(next_row)] = ~np.isclose(announced, next_row, rtol=SAME, atol=SAME).all(1)
        broken[list(self.joined or ())] = True
        return broken

    @cached_property
    def told(self) -> bool:
        """Whether next observations witness ends."""
        return bool(self.broken.any())

    @cached_property
    def jumps(self) -> Jumps:
        """None of them where the flags' writer is known."""
        if self.joined is not None:
            return Jumps(np.zeros(0, np.int64), 1.0, np.zeros(len(self.observations) - 1))
        return standing_out(change_sizes(self.observations))

    @cached_property
    def witnessed(self) -> np.ndarray:
        """(k,) int64, rows after which an episode ended by next observations, or else by jumps."""
        return np.flatnonzero(self.broken) if self.told else self.jumps.rows


@dataclass(frozen=True)
class Ends:
    """Where episodes end, and which repairs that took."""

    ends: np.ndarray  # (N,) bool, last rows of episodes
    terminals: np.ndarray  # (N,) bool
    paired: np.ndarray  # (N,) bool, rows that are transitions: all but ends, not terminal, whose next observation is unknown
    own: np.ndarray  # (N,) bool, terminal rows whose next observation is unknown, so that their own takes its place
    notes: list[str] = field(default_factory=list)  # what was repaired


def read_flags(values: np.ndarray, what: str) -> tuple[np.ndarray, bool]:
    """(N,) bool from numbers 0 and 1 or words, and whether they were words; RoboprefError that begins with `what` for others."""
    if values.dtype.kind in "SUO":
        words = np.array([value.decode(errors="replace") if isinstance(value, bytes) else str(value) for value in values])
        words = np.char.lower(np.char.strip(words))
        flags, wrong = np.isin(words, [word for word, true in WORDS.items() if true]), ~np.isin(words, list(WORDS))
    elif values.dtype.kind in "biuf":
        flags, wrong = values == 1, ~((values == 0) | (values == 1))
    else:
        raise RoboprefError(f"{what} are of type {values.dtype}: write them as true and false, or 1 and 0")
    if wrong.any():
        row = int(wrong.argmax())
        raise RoboprefError(f"{what} hold {values[row]!s} in row {row}: write them as true and false, or 1 and 0")
    return flags, values.dtype.kind in "SUO"


def find_ends(rows: Rows, terminals: np.ndarray, timeouts: np.ndarray | None) -> Ends:
    """The ends of all episodes from flags (N,) bool; timeouts: None where there are none.

    Without next observations the last row of an episode that was cut has none; with them, the same holds where they are the next
    episode's first.  RoboprefError, beginning with rows.where, where flags and witnesses leave open where episodes end.
    """
    flagged = terminals if timeouts is None else terminals | timeouts
    check_order(rows, flagged)
    notes, count = [], int(flagged[:-1].sum())
    if step := offset(rows, terminals, count, None):
        terminals = moved(terminals, step)
        notes.append(f"terminals are one row {said(step)}: moved to where episodes end")
    if timeouts is not None and (step := offset(rows, timeouts, count, None if terminals[:-1].any() else rows.limit)):
        timeouts = moved(timeouts, step)
        notes.append(f"timeouts are one row {said(step)}: moved to where episodes end")
    if timeouts is not None and timeouts.any():
        cuts, more = with_timeouts(rows, terminals, timeouts)
    else:
        cuts, more = without_timeouts(rows, terminals, never=timeouts is not None)
    notes += more
    ends = terminals | cuts | rows.broken
    ends[-1] = True  # also where the last episode is incomplete
    if rows.following is None:
        return Ends(ends, terminals, ~ends | terminals, terminals, notes)
    flagless, ended = timeouts is None or not timeouts.any(), bool(terminals[-1])
    cut = cuts & ~terminals
    if flagless and rows.told:  # cut by the limit alone, and next observations are right elsewhere
        cut[:-1] &= np.isin(np.arange(len(cut) - 1), rows.jumps.rows)
    lost = first_of_next(rows, cut, last=not ended, certain=flagless)  # the file's end is a cut, whatever its flag says
    own = first_of_next(rows, terminals, last=ended, certain=False)
    for marks, kind, dealt in ((lost, "cut", "are no transitions"), (own, "terminal", "keep their own observation instead")):
        if marks.any():
            what = f"next_observations of {int(marks.sum())} {kind} rows are the next episode's first"
            notes.append(f"{what}: these rows {dealt}")
    return Ends(ends, terminals, ~lost, own, notes)


def check_order(rows: Rows, flagged: np.ndarray) -> None:
    """RoboprefError for next observations that are hardly ever the next row although no flag says so."""
    going_on = ~flagged[:-1]
    wrong = int((rows.broken[:-1] & going_on).sum())
    if len(flagged) >= FEW and 2 * wrong > going_on.sum():
        raise RoboprefError(
            f"{rows.where}: next_observations of {wrong} rows are not the row after, and no flag ends an episode there: they are "
            "of other rows or in another order; write them anew, or leave next_observations out"
        )


def offset(rows: Rows, marks: np.ndarray, flagged: int, limit: int | None) -> int:
    """-1 or 1 where flags (N,), moved by so many rows, stand where episodes end, and none does as it is; else 0.

    flagged: rows with flags of any kind.  limit: also by the number of steps, which no episode exceeds, in a set of cut episodes.
    """
    inside, last = np.flatnonzero(marks[:-1]), len(marks) - 1
    # jumps in many other places are not those of resets
    witnessed = rows.witnessed if rows.told or len(rows.jumps.rows) <= 2 * flagged + 2 else rows.witnessed[:0]
    if not len(inside) or np.isin(inside, witnessed).any():
        return 0
    for step in (-1, 1):
        there = inside + step
        there = there[(there >= 0) & (there < last)]
        if len(there) and np.isin(there, witnessed).all():
            return step
        if (
            len(there) >= MANY
            and not rows.told
            and confirmed(rows.jumps, there, SURE)
            and not confirmed(rows.jumps, inside, LIKELY)
        ):
            return step
    if limit is not None and limit > 2 and len(inside) > 1 and rows.joined is None:
        phase = inside % limit
        return -1 if (phase == 0).all() else 1 if (phase == limit - 2).all() else 0
    return 0


def moved(marks: np.ndarray, step: int) -> np.ndarray:
    """Flags (N,) one row earlier (step -1; what stood in row 0 came from the end) or later (step 1)."""
    out = np.roll(marks, step)
    if step > 0:
        out[0], out[-1] = False, out[-1] or marks[-1]
    return out


def said(step: int) -> str:
    """How flags are wrong that must be moved by `step`."""
    return "late" if step < 0 else "early"


def with_timeouts(rows: Rows, terminals: np.ndarray, timeouts: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(N,) bool, cuts by timeouts some of which are true, and notes."""
    flagged = terminals | timeouts
    if rows.told:
        unsaid = int((rows.broken & ~flagged)[:-1].sum())
        return timeouts, [f"{unsaid} episodes end by next_observations where no flag is true"] if unsaid else []
    found, length = unflagged(rows, terminals, timeouts)
    known = int(flagged[:-1].sum())
    if not len(found) or (length is None and not known):
        return timeouts, []
    if length is None and len(found) > known and rows.jumps.ratio < ALONE:
        raise RoboprefError(f"{rows.where}: {like_resets(found)}, where no flag ends an episode: {REMEDY}")
    cuts = timeouts.copy()
    cuts[found] = True
    return cuts, [f"{like_resets(found)}, where no flag ends an episode: cut there"]


def without_timeouts(rows: Rows, terminals: np.ndarray, never: bool) -> tuple[np.ndarray, list[str]]:
    """(N,) bool, cuts where timeouts are missing or never true, and notes."""
    count, name = len(terminals), "timeouts are never true" if never else "no timeouts"
    cuts, by_limit = np.zeros(count, bool), limit_rows(rows, terminals)
    if rows.told:
        unsaid = int((rows.broken & ~terminals)[:-1].sum())
        if never:
            by_limit[:-1] &= np.isin(np.arange(count - 1), rows.jumps.rows)
        return by_limit, [f"{name}, but {unsaid} episodes end by next_observations: cut there"] if never and unsaid else []
    if rows.joined is not None:
        return cuts, []
    at = np.flatnonzero(by_limit[:-1])
    found, length = unflagged(rows, terminals, cuts)
    if length is not None and (never or not np.array_equal(found, at)):
        cuts[found] = True
        cuts[-1] = count - 1 - np.flatnonzero((cuts | terminals)[:-1])[-1] == length
        return cuts, [f"{name}, but {like_resets(found)}: cut there, after {length}"]
    others = np.setdiff1d(found, at)
    wide = rows.limit is None or (len(others) > 1 and rows.jumps.ratio >= ALONE)
    if len(others) and (wide or (len(at) and not confirmed(rows.jumps, at, SURE))):
        apart = "not equally far apart" if rows.limit is None else f"not after the {rows.limit} steps of an episode"
        raise RoboprefError(f"{rows.where}: {name}, but {like_resets(others)}, {apart}: {REMEDY}")
    if len(at):
        return by_limit, [f"{name}, although episodes have {rows.limit} steps: cut after so many"] if never else []
    if rows.limit is not None or terminals.any():
        return cuts, []
    if not never and rows.following is None:
        raise RoboprefError(
            f"{rows.where}: nothing in it says where episodes end: no terminal, no timeouts, no next_observations, and "
            f"{rows.where.stem} is no name of D4RL; give the name, or the steps of an episode as `limit`"
        )
    return cuts, [f"no flag ends an episode: read as one of {count} rows"]


def limit_rows(rows: Rows, terminals: np.ndarray) -> np.ndarray:
    """(N,) bool, the last of every `rows.limit` rows after a start, as `d4rl` cuts."""
    if rows.limit is None:
        return np.zeros(len(terminals), bool)
    number = np.arange(len(terminals))
    begins = np.concatenate([[0], np.flatnonzero((terminals | rows.broken)[:-1]) + 1])
    step = number - begins[np.searchsorted(begins, number, side="right") - 1]
    found: np.ndarray = step % rows.limit == rows.limit - 1
    return found


def unflagged(rows: Rows, terminals: np.ndarray, timeouts: np.ndarray) -> tuple[np.ndarray, int | None]:
    """(k,) int64, jumps without a flag (N,), and the steps of cut episodes if all have the same with cuts there.

    None where nothing jumps at some flag, since resets are then no jumps.
    """
    jumps, known = rows.jumps, np.flatnonzero((terminals | timeouts)[:-1])
    found = np.setdiff1d(jumps.above, known)
    if not len(found) or not np.isin(known, jumps.above).all():
        return known[:0], None
    cuts = np.union1d(found, np.flatnonzero((timeouts & ~terminals)[:-1]))
    length = equal_length(len(terminals), np.flatnonzero(terminals[:-1]), cuts, 2 if len(jumps.rows) else MANY)
    spikes = not len(jumps.rows) or (np.diff(found) == 1).any()  # one step after the other, as no two resets are
    return (known[:0] if length is None and spikes else found), length


def equal_length(count: int, terminals: np.ndarray, cuts: np.ndarray, least: int) -> int | None:
    """The steps of every episode that is cut, where all have the same, no other has more, and there are `least` or more of them.

    count: N; terminals, cuts: numbers of rows, without the last one.
    """
    ends = np.union1d(terminals, cuts)
    lengths = np.diff(ends, prepend=-1)
    last, length = count - 1 - ends[-1], int(lengths[np.isin(ends, cuts)][0])
    same = int((lengths[np.isin(ends, cuts)] == length).sum())
    if same < len(cuts) or max(last, lengths.max()) > length or same + (last == length) < least:
        return None
    return length


def confirmed(jumps: Jumps, at: np.ndarray, deviations: float) -> bool:
    """Whether changes at these rows (k,), k > 0, are those of resets: larger than others, even if some steps change as much."""
    ordered, sizes = np.sort(jumps.sizes), jumps.sizes[at]
    ranks = (np.searchsorted(ordered, sizes) + np.searchsorted(ordered, sizes, side="right")) / (2 * len(ordered))
    by_chance = 0.5 + deviations * np.sqrt(1 / 12 / len(at))  # of a mean of uniform numbers
    return bool(np.isin(at, jumps.rows).all() or ranks.mean() >= min(by_chance, HIGHEST))


def first_of_next(rows: Rows, marks: np.ndarray, last: bool, certain: bool) -> np.ndarray:
    """(N,) bool, of the ends `marks` those whose next observation is the next episode's first: the next row, after a reset.

    Where nothing looks like one, the world went on and the next observation is right; certain: but not there.  No row follows the
    last one, which is an end of this kind if `last` says so, and is taken to be as the others are if those are all alike.
    """
    found = marks & ~rows.broken
    at = np.flatnonzero(found[:-1])
    if not len(at) or not (certain or rows.joined is not None or confirmed(rows.jumps, at, LIKELY)):
        return np.zeros(len(marks), bool)
    found[-1] = last and len(at) == marks[:-1].sum()
    return found


def change_sizes(observations: np.ndarray) -> np.ndarray:
    """(N - 1,) float64: by how much an observation (N, do) changes to the next: the root mean square of each number's change over
    its mean change.

    Numbers that rest in most steps (a gripper, a latch, a contact) change inside episodes as at resets, and are left out where
    there are others.
    """
    steps = len(observations) - 1
    total, moving = np.zeros(observations.shape[1]), np.zeros(observations.shape[1])
    blocks = [slice(start, min(start + WIDE, steps)) for start in range(0, steps, WIDE)]

    def change(block: slice) -> np.ndarray:
        return np.abs(np.diff(observations[block.start : block.stop + 1].astype(np.float64), axis=0))

    for block in blocks:
        total += (by := change(block)).sum(0)
        moving += (by > 0).sum(0)
    used = moving > steps / 2
    if not used.any():
        used = moving > 0
    if not used.any():
        return np.zeros(steps)
    mean = total[used] / steps
    return np.concatenate([np.sqrt(np.square(change(block)[:, used] / mean).mean(1)) for block in blocks])


def standing_out(sizes: np.ndarray) -> Jumps:
    """The changes (N - 1,) above the widest gap in their order, of which there may be a quarter: resets are few."""
    ordered = np.sort(sizes)[::-1]
    most = len(ordered) // 4
    if not most or not ordered[0]:
        return Jumps(np.zeros(0, np.int64), 1.0, sizes)
    ratios = ordered[:most] / np.maximum(ordered[1 : most + 1], 1e-9 * ordered[0])
    place = int(ratios.argmax())
    above = sizes >= ordered[place] if ratios[place] >= A_GAP else np.zeros(len(sizes), bool)
    return Jumps(np.flatnonzero(above), float(ratios[place]), sizes)


def like_resets(found: np.ndarray) -> str:
    """Jumps in words."""
    shown = ", ".join(map(str, found[:3].tolist())) + (", ..." if len(found) > 3 else "")
    return f"observations jump as at a reset after {len(found)} rows ({shown})"
