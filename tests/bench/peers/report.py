"""The tables of docs/benchmarks.md, also printed: machine and settings, figures, goals."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from tests.bench.peers import entrant, peer_env
from tests.bench.peers.contest import Entrant, Ground, Results
from tests.bench.peers.goals import OURS, Outcome

DOCUMENT = peer_env.ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- figures: generated -->", "<!-- figures: end -->"
SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "shared_buffers", "max_wal_size")
QUIET_CORES = 0.1


def rendered(document: str, tables: str) -> str:
    """The document with its tables made anew."""
    before, _, rest = document.partition(BEGIN)
    _, _, after = rest.partition(END)
    assert rest, f"{DOCUMENT.name} has no {BEGIN}"
    return f"{before}{BEGIN}\n\n{tables}\n\n{END}{after}"


def tables(
    settings: str, entrants: Sequence[Entrant], results: Results, outcomes: Sequence[Outcome]
) -> str:
    """All of it."""
    made = (settings, figures_table(entrants, results), cpu_table(entrants, results))
    return "\n\n".join((*made, goals_table(outcomes)))


def settings_table(place: Ground, results: Results, *, count: int, repeat: int) -> str:
    """What it was measured on."""
    asked = place.query(
        f"""SELECT name, current_setting(name) FROM pg_settings
        WHERE name IN ({", ".join(f"'{name}'" for name in SETTINGS)})"""
    )
    kept = dict(asked)
    rows = {
        "processor": f"{os.cpu_count()} cores, {_processor()}",
        "memory": f"{_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release().split('-')[0]}, "
        f"{_file_system(place.data_dir)} file system, Python {platform.python_version()}",
        "Postgres": f"{place.server.version}; "
        + ", ".join(f"{name} {kept[name]}" for name in SETTINGS),
        "runs": f"{repeat} × up to {count:,} decisions, interleaved",
        "the machine was": _quiet(results),
    }
    return _table(("measured on", ""), list(rows.items()))


def _quiet(results: Results) -> str:
    used = [value for figures in results.values() for value in figures.get(entrant.OTHERS, ())]
    cores = statistics.median(used) if used else 0.0
    how = "quiet" if cores <= QUIET_CORES else "**busy**, so that only CPU times mean much"
    return f"{how}: other programs used {cores:.1f} cores (median over the runs)"


def figures_table(entrants: Sequence[Entrant], results: Results) -> str:
    """Medians, with the smallest and the largest value."""
    names = {name: None for figures in results.values() for name in figures}
    names.pop(entrant.OTHERS, None)
    head = ("figure", *(one.label for one in entrants))
    rows = [
        (f"`{name}`", *(_spread(results[one.name].get(name, [])) for one in entrants))
        for name in names
    ]
    return _table(head, rows)


def cpu_table(entrants: Sequence[Entrant], results: Results) -> str:
    """CPU time beside Torghut's: what a busy machine says nearly as well as a quiet one."""
    rows = []
    for what, name in (("intake", entrant.INTAKE_CPU), ("full path", entrant.PATH_CPU)):
        ours = results.get(OURS, {}).get(name, [])
        pairs = [list(zip(results[one.name].get(name, []), ours, strict=False)) for one in entrants]
        ratios = [[theirs / own for theirs, own in some] for some in pairs]
        rows.append((what, *(_number(statistics.median(r)) if r else "–" for r in ratios)))
    return _table(("CPU time, Torghut = 1", *(one.label for one in entrants)), rows)


def goals_table(outcomes: Sequence[Outcome]) -> str:
    """Each goal, what is wanted and what was measured."""
    rows = [
        (
            one.goal.says,
            one.goal.wanted,
            "–" if one.value is None else _number(one.value) + (" ×" if one.goal.of else ""),
            one.word,
        )
        for one in outcomes
    ]
    return _table(("goal", "wanted", "measured", ""), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("  |", " |") for line in lines)


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{_number(middle)} ({_number(least)}–{_number(most)})"


def _number(value: float) -> str:
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


# ---------------------------------------------------------------------- the machine


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _file_system(folder: Path) -> str:
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text("utf-8").splitlines():
        _, where, what, *_ = line.split()
        if folder.resolve().is_relative_to(where) and len(where) >= len(best):
            best, kind = where, what
    return kind
