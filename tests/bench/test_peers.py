"""The comparison itself: the floor and Torghut run it in small, and what is made of figures holds.

The other peers need packages that the tests do not have; `make bench` runs them.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.bench.peers import contest, entrant, floor, goals, peer_env, report, work
from tests.bench.peers.contest import ENTRANTS, Results, figures_of
from tests.bench.peers.entrant import Race, percentile
from tests.bench.peers.goals import GOALS, Goal

COUNT = 600


@pytest.fixture(scope="module")
def place() -> Iterator[contest.Ground]:
    """A server with the durability of production."""
    with contest.ground() as ground:
        yield ground


def only(*names: str) -> list[contest.Entrant]:
    return [one for one in ENTRANTS if one.name in names]


def test_floor_and_torghut_run_and_are_reported(place: contest.Ground) -> None:
    """Every phase of both, rows counted by the programs themselves, and the tables of it."""
    entrants = only("floor", "Torghut")
    told: list[str] = []
    results = contest.hold(place, entrants, count=COUNT, repeat=1, tell=told.append, bench=False)
    measured = {entrant.INTAKE, entrant.DUPLICATES, entrant.DUPLICATE_WAL, entrant.INTAKE_CPU}
    assert measured <= results["Torghut"].keys()
    assert measured | {entrant.PATH, entrant.START_P99} <= results["floor"].keys()
    for figures in results.values():
        assert all(value >= 0 for values in figures.values() for value in values)
    assert "1/1 path: floor" in told
    settings = report.settings_table(place, results, count=COUNT, repeat=1)
    assert "fsync on, synchronous_commit on, full_page_writes on" in settings
    made = report.tables(settings, entrants, results, goals.judge(results))
    assert "| `intake_rows_per_s` |" in made
    assert re.search(r"^\| intake \| 0\.\d+ \| 1 \|$", made, re.M), (
        made
    )  # the floor's CPU time, ours
    assert "| full path, to DBOS | ≥ 30 × | – | not measured |" in made


def test_rows_that_do_not_add_up_end_the_run(place: contest.Ground) -> None:
    """Control: a decision that never went the whole way is found."""
    url = place.fresh_database()
    race = Race(url, place.server.pid, 3)
    race.connection.execute(work.TABLES)
    with race.window() as window:
        pass
    with pytest.raises(SystemExit, match="verdicts has 0 rows, 3 expected"):
        race.path(window)
    race.connection.close()


def test_a_program_that_fails_ends_the_run() -> None:
    """Its words are passed on."""
    with pytest.raises(SystemExit, match=r"tests\.bench\.peers\.floor(.|\n)*usage"):
        figures_of([sys.executable, "-m", "tests.bench.peers.floor", "sleep"])


def test_the_handlers_write_once_however_often_they_run(place: contest.Ground) -> None:
    """The statements of the peers, twice for one decision."""
    with psycopg.connect(place.fresh_database(), autocommit=True) as connection:
        connection.execute(work.TABLES)
        cursor = psycopg.RawCursor(connection)
        ((hash_, payload),) = work.parsed(1)
        for _ in range(2):
            outcome, checks = work.judge(payload)
            cursor.execute(work.INTENT, [hash_, outcome, checks, work.order_of(payload)])
            order, status = work.submit(hash_)
            cursor.execute(work.OUTCOME, [hash_, order, status, work.event_of(order, status)])
        for table in work.WRITTEN:
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (1,), table
        stored = "SELECT outcome, jsonb_array_length(checks) FROM verdicts"
        assert connection.execute(stored).fetchone() == ("approved", work.CHECKS)


# ---------------------------------------------------------------------- what is made of figures


def test_goals_are_judged_by_the_median_of_the_ratios() -> None:
    """Each repetition by itself: one that was disturbed does not decide."""
    to_floor = Goal("", entrant.INTAKE, 0.5, of=("floor", entrant.INTAKE))
    latency = Goal("", entrant.START_P99, at_most=10)
    unknown = Goal("", "no_such_figure", 1)
    results: Results = {
        "Torghut": {entrant.INTAKE: [60, 5, 60], entrant.START_P99: [9, 11, 11]},
        "floor": {entrant.INTAKE: [100, 100, 100]},
    }
    judged = goals.judge(results, (to_floor, latency, unknown))
    assert [(one.value, one.word) for one in judged] == [
        (0.6, "pass"),
        (11, "falls short"),
        (None, "not measured"),
    ]


def test_a_percentile_is_a_value_that_was_seen() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99)) == (50, 99)
    assert percentile([7.0], 99) == 7


def test_what_the_goals_name_of_others_is_measured() -> None:
    """A misspelt figure would be `not measured` for ever."""
    known = {one.name for one in ENTRANTS}
    assert all(goal.of[0] in known and goal.of[1] in entrant.UNITS for goal in GOALS if goal.of)


def test_the_document_keeps_what_people_wrote() -> None:
    """Only the part between the markers is made anew."""
    text = report.DOCUMENT.read_text("utf-8")
    before, after = text.split(report.BEGIN)[0], text.split(report.END)[1]
    made = report.rendered(text, "| new |")
    assert made == f"{before}{report.BEGIN}\n\n| new |\n\n{report.END}{after}"
    with pytest.raises(AssertionError, match="has no"):
        report.rendered("nothing to fill in", "| new |")


def test_the_document_names_what_is_compared() -> None:
    text = report.DOCUMENT.read_text("utf-8")
    for one in ENTRANTS:
        assert one.label in text, one.label


# ---------------------------------------------------------------------- the pins


def test_every_pin_has_hashes_and_no_address() -> None:
    """pip is told to insist on hashes; where packages come from is the installer's setting."""
    text = peer_env.REQUIREMENTS.read_text("utf-8")
    pins = re.split(r"\n(?=\S)", text.strip())
    assert len(pins) > 10
    assert [pin for pin in pins if not re.match(r"[\w-]+==\S+ .*\\\n +--hash=sha256:", pin)] == []
    assert "://" not in text


def test_the_peers_stay_out_of_the_products_environment() -> None:
    """Neither the product's pins nor its environment know them."""
    constraints = (peer_env.ROOT / "constraints.txt").read_text("utf-8")
    packages = [one.package for one in ENTRANTS if one.package]
    assert packages
    assert [name for name in packages if re.search(rf"^{name}==", constraints, re.M)] == []
    assert not peer_env.FOLDER.is_relative_to(peer_env.ROOT / ".venv")


def test_the_floor_uses_no_part_of_ours() -> None:
    """What is compared with Torghut is made without it."""
    for module in (floor, work, entrant):
        assert "torghut." not in Path(str(module.__file__)).read_text("utf-8")
    for one in ENTRANTS:
        if one.package:
            source = Path(str(work.__file__)).with_name(f"{one.module}.py")
            assert "torghut." not in source.read_text("utf-8")
