"""`[intakes.NAME]` in a daemon, and what is wrong with one stops the start with one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import requests

from tests.factories import decision_json
from tests.outbox.test_settings import loaded
from tests.services.rig import eventually
from tests.streams.lines import line, server_of
from torghut import bootstrap
from torghut.config import Settings
from torghut.domain.errors import ConfigError
from torghut.serving import serving
from torghut.streams import opening
from torghut.streams.opening import check_clients

WRONG = [
    ('[intakes.a]\nkind = "kafka"', "[intakes.a] kind: is no kind of stream; set it to redis or"),
    ("[intakes.a]\nstream = 'x'", "[intakes.a] kind: is missing"),
    ('[intakes.A]\nkind = "redis"', "[intakes.A]: is no name for a stream"),
    ('[intakes.a]\nkind = "redis"', "[intakes.a] url: is missing"),
    ('[intakes.a]\nkind = "redis"\nurl = "nats://hidden@h"', "[intakes.a] url: must be an address"),
    ('[intakes.a]\nkind = "nats"\nurl = "nats://h"\ngroup = "a.b"', "[intakes.a] group: "),
    ('[intakes.a]\nkind = "redis"\nurl = "redis://h"\nstart = "now"', "[intakes.a] start: is not"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_table_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(monkeypatch, tmp_path, text)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value) and "hidden" not in str(error.value)


def test_secrets_and_missing_clients(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = loaded(
        monkeypatch, tmp_path, '[intakes.r]\nkind = "redis"\nurl = "redis://:pass-word@h:1/0"'
    )
    table = settings.intakes["r"]
    assert "pass-word" in table.secrets() and "pass-word" not in repr(settings) + table.place()
    check_clients(settings.intakes)
    monkeypatch.setattr(opening, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"\[intakes.r\] kind.*torghut\[redis\]"):
        check_clients(settings.intakes)


def test_a_message_becomes_an_order(database_url: str, tmp_path: Path) -> None:
    """Wired: settings, daemon, stream, executor; `/healthz` counts its loop."""
    with server_of("redis") as server:
        lined = line("redis", server, "signals")
        settings = Settings(
            home=tmp_path,
            database_url=database_url,
            http_port=0,
            intakes={"signals": lined.table()},
            decision_ttl_s=1e9,
        )
        with bootstrap.running_daemon(settings) as daemon, serving(daemon) as url:
            assert daemon.wait_owner(60)
            lined.send(decision_json(), "no decision")
            eventually(lambda: len(lined.replies()) == 2)
            hash_ = lined.replies()[0]["decision_hash"]

            def status() -> str:
                answer = requests.get(f"{url}/v1/decisions/{hash_}", timeout=10)
                return str(answer.json()["status"])

            eventually(lambda: status() in ("submitted", "closed"))
            assert requests.get(f"{url}/healthz", timeout=10).ok
            assert "intake-signals" in {loop.name for loop in daemon.intakes.loops}
            metrics = requests.get(f"{url}/metrics", timeout=10).text
            for result in ("created", "invalid"):
                named = f'torghut_intake_messages_total{{intake="signals",result="{result}"}} 1.0'
                assert named in metrics
            assert lined.left() == 0
