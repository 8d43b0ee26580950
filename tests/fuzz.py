"""Every reader of fuzz_data.py and fuzz_models.py on damaged copies of good files, and a table of what became of them.

    python tests/fuzz.py --copies 200 --seed 0

A reader may refuse a copy in one line or read it as it was; the other columns are faults (fuzzing.py),
which are told on the terminal too.
"""

# ruff: noqa: E402 (threads are counted when numpy and torch are imported)
from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):  # a fork has no other threads
    os.environ.setdefault(name, "1")

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import fuzz_data
import fuzz_models
from fuzzing import FAULTS, OUTCOMES, campaign

from robopref.configs.files import atomic_file

READERS = fuzz_data.READERS | {f"{name} (models)" if name in fuzz_data.READERS else name: reader
                               for name, reader in fuzz_models.READERS.items()}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--copies", type=int, default=200, help="damaged copies a reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("docs/results/reliability/readers.csv"))
    parser.add_argument("--reader", choices=READERS, nargs="*", default=list(READERS), help="default: all")
    asked = parser.parse_args()
    rows, faults = [], 0
    for name in asked.reader:
        with tempfile.TemporaryDirectory() as folder:
            tally = campaign(name, READERS[name], asked.copies, asked.seed, Path(folder, "campaign"))
        rows.append(
            {"reader": name, "seed": asked.seed, "copies": asked.copies} | {kind: tally.counts[kind] for kind in OUTCOMES}
        )
        faults += sum(tally.counts[kind] for kind in FAULTS)
        print(f"{name}: {', '.join(f'{count} {kind}' for kind, count in sorted(tally.counts.items()))}", flush=True)
        for fault in tally.faults:
            print(f"    {fault}", flush=True)
    with atomic_file(asked.out) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
