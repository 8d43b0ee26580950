"""`python docs/results/tables [--write]`: compare the numbers of README.md and docs with the CSVs, or write them anew."""

from __future__ import annotations

import sys

import marks


def main(argv: list[str]) -> int:
    """0 when all numbers are what the CSVs say; with --write the files are brought to it first."""
    if argv not in ([], ["--write"]):
        print(__doc__, file=sys.stderr)
        return 2
    for path in marks.files() if argv else []:
        old = path.read_text(encoding="utf-8")
        try:
            new = marks.rewritten(old)
        except ValueError as error:
            print(f"{path.relative_to(marks.ROOT)}: {error}", file=sys.stderr)
            continue
        if new != old:
            path.write_text(new, encoding="utf-8")
            print(f"{path.relative_to(marks.ROOT)} written")
    wrong = [problem for path in marks.files() for problem in marks.problems(path, path.read_text(encoding="utf-8"))]
    print("\n".join(map(str, wrong)) or "all numbers are what the CSVs say", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
