"""Runs Spin on protocol.pml: it writes a checker in C, which is compiled and visits every state.

search(folder, {"SLOTS": 2})              # bounds and controls are -D NAME=VALUE
search(folder, {"NO_UNIQUE": 1}).broken   # the promise of the assertion that failed, or None
"""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

MODEL = Path(__file__).with_name("protocol.pml")
PROGRAMS = ("spin", "gcc")
TABLES = ("after_submit", "after_lookup", "status")
DEPTH_MAX = 1_000_000
SEARCH_S = 300
_TRAIL_LINES = 80

Defines = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Search:
    """What a search of all states came to.

    `broken` is the promise that an assertion of the model names, or Spin's own word for the fault;
    None if there is none. `trail` tells, then, how it comes to that. `unreached` are statements
    that no run ever takes. `seconds` of one core: translation, compilation and search.
    """

    states: int
    depth: int
    seconds: float
    broken: str | None
    trail: str
    unreached: tuple[str, ...]


def lacking() -> str | None:
    """One line that says what is missing to check the model, None if nothing is."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if not missing:
        return None
    names = " and ".join(missing)
    return f"{names} not found: the protocol model needs them (apt-get install spin gcc libc6-dev)"


def rows(folder: Path, defines: Defines = MappingProxyType({})) -> list[list[str]]:
    """The tables that the model decides by, as words."""
    said = _spin(folder, {**defines, "TABLES": 1}).splitlines()
    return [words for words in map(str.split, said) if words[:1] and words[0] in TABLES]


def search(
    folder: Path, defines: Defines, *, endless: bool = False, thorough: bool = False
) -> Search:
    """Visit every state within the bounds, in an empty folder; stops at the first fault.

    `endless` looks for runs without an end in place of broken assertions. `thorough` compiles for
    speed, which a small search does not repay.
    """
    before = _core_s()
    _spin(folder, defines, "-a")
    kind = ["-DNP"] if endless else ["-DSAFETY"]
    # no partial-order reduction: every statement is global, so it would leave out nothing
    compiler = ["gcc", "-O2" if thorough else "-O0", "-w", "-DNOREDUCE", "-DNOFAIR", *kind]
    _run(folder, [*compiler, "-o", "pan", "pan.c"])
    options = [f"-m{DEPTH_MAX}", "-w24", *(["-l"] if endless else [])]
    said = _run(folder, ["./pan", *options])
    seconds = _core_s() - before
    errors = _number(r"errors: (\d+)", said)
    incomplete = "max search depth too small" in said or "Search not completed" in said
    assert errors or not incomplete, said
    trail = _spin(folder, defines, "-t", "-p") if errors else ""
    return Search(
        states=_number(r"(\d+) states, stored", said),
        depth=_number(r"depth reached (\d+)", said),
        seconds=seconds,
        broken=_fault(said, trail) if errors else None,
        trail="\n".join(trail.splitlines()[-_TRAIL_LINES:]),
        unreached=tuple(
            line.strip()
            for line in re.findall(r"^\t\S+\.pml:\d+, state .*$", said, re.MULTILINE)
            if not line.endswith('"-end-"')
        ),
    )


def _fault(said: str, trail: str) -> str:
    """The promise in the comment behind the assertion that failed, or what Spin calls it."""
    failed = re.search(r"protocol\.pml:(\d+), Error: assertion violated", trail)
    if failed is None:
        told = re.search(r"^pan:\d+: (.*?)(?: \(at depth .*)?$", said, re.MULTILINE)
        return told[1] if told else said
    line = MODEL.read_text(encoding="utf-8").splitlines()[int(failed[1]) - 1]
    promise = re.search(r"/\* (P\d+) \*/", line)
    return promise[1] if promise else line.strip()


def _spin(folder: Path, defines: Defines, *options: str) -> str:
    shutil.copy(MODEL, folder)
    given = [f"-D{name}={value}" for name, value in defines.items()]
    return _run(folder, ["spin", *options, *given, MODEL.name])


def _run(folder: Path, command: list[str]) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=SEARCH_S)
    said = done.stdout + done.stderr
    if done.returncode != 0 and "assertion violated" not in said:
        raise AssertionError(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return said


def _number(pattern: str, said: str) -> int:
    found = re.search(pattern, said)
    assert found is not None, said
    return int(found[1])


def _core_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
