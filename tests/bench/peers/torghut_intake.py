"""Torghut's intake by the library, as a program calls it that has decisions: no HTTP.

The decisions are parsed before the clock starts, as the rows of the others are made.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta

from tests.bench.peers import work
from tests.bench.peers.entrant import Race, batches, main
from torghut.clock import utc_now
from torghut.domain.decisions import parse_decision
from torghut.services.intake import IntakeDesk
from torghut.storage import migrate
from torghut.storage.database import Database
from torghut.storage.rows import IntakeResult


def intake(race: Race) -> Mapping[str, float]:
    """Batches of new decisions, then the same batches again."""
    migrate.upgrade(race.url)
    ttl = timedelta(days=3650)
    rows = [
        parse_decision(json.loads(payload), account="bench", ttl=ttl)
        for _, payload in work.decisions(race.count)
    ]
    database = Database(race.url)
    desk = IntakeDesk(database, utc_now, lambda _accounts: None)

    def accept() -> set[IntakeResult]:
        answers = [a for some in batches(rows) for a in desk.accept(some, source="bench")]
        assert len(answers) == race.count
        return {answer.result for answer in answers}

    with race.window() as fresh:
        first = accept()
    with race.window() as again:
        second = accept()
    with race.window() as once_more:
        third = accept()
    database.close()
    assert first == {IntakeResult.CREATED}
    assert second == third == {IntakeResult.REPLAYED}
    race.expect(trade_decisions=race.count, events=race.count)
    return race.intake(race.count, fresh) | race.duplicates(race.count, again, once_more)


if __name__ == "__main__":
    main({"intake": intake})
