"""Torghut beside its peers: `python -m tests.bench.peers [--repeat 5] [--count 20000] [--only …]`.

Prints the tables, and a whole comparison writes them into docs/benchmarks.md. About a quarter of an
hour with the defaults on a quiet machine of two cores.
"""

from __future__ import annotations

import argparse
import sys

from tests.bench.peers import contest, goals, report


def main() -> None:
    """Run the contest."""
    names = [entrant.name for entrant in contest.ENTRANTS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench.peers", description=__doc__)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--count", type=int, default=20_000, help="decisions of the fastest")
    parser.add_argument("--only", choices=names, action="append", help="writes nothing then")
    given = parser.parse_args()
    entrants = [one for one in contest.ENTRANTS if not given.only or one.name in given.only]
    with contest.ground() as place:
        results = contest.hold(
            place,
            entrants,
            count=given.count,
            repeat=given.repeat,
            tell=lambda line: print(line, file=sys.stderr, flush=True),
        )
        settings = report.settings_table(place, results, count=given.count, repeat=given.repeat)
    made = report.tables(settings, entrants, results, goals.judge(results))
    print(made)
    if not given.only:
        text = report.DOCUMENT.read_text("utf-8")
        report.DOCUMENT.write_text(report.rendered(text, made), "utf-8")


if __name__ == "__main__":
    main()
