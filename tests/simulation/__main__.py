"""Plays seeds: `python -m tests.simulation --seed 7 --trace`, or `--seeds 10000`."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.simulation.run import Simulation
from torghut.storage import embedded, migrate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from there on")
    parser.add_argument("--trace", action="store_true", help="print what happens")
    parser.add_argument("--url", help="a migrated database of its own (default: a throw-away one)")
    given = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="torghut-simulation-"))
    home.chmod(0o711)
    try:
        url = given.url
        if url is None:
            url = embedded.start(home / "pg", database="simulation", durable=False).url
            migrate.upgrade(url)
        return play(url, given.seed, given.seeds, trace=given.trace)
    finally:
        if given.url is None:
            embedded.stop(home / "pg")
        shutil.rmtree(home, ignore_errors=True)


def play(url: str, first: int, count: int, *, trace: bool) -> int:
    """Play and report; 1 if a promise was broken."""
    failed = 0
    began = time.perf_counter()
    with Simulation(url) as simulation:
        cpu_s = simulation.cpu_s
        for seed in range(first, first + count):
            told = simulation.run(seed)
            if trace:
                print("\n".join(told.trace))
            if told.violations or trace:
                print(f"{told}, digest {told.digest[:16]}", flush=True)
            failed += bool(told.violations)
        cpu_s = simulation.cpu_s - cpu_s
    seconds = time.perf_counter() - began
    print(f"{count} seeds in {seconds:.1f} s, {cpu_s:.1f} s of CPU; {failed} with violations")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
