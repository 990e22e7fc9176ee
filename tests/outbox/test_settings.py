"""`[sinks.NAME]`: what is wrong stops the start with one line, and secrets are shown nowhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from torghut import config
from torghut.config import Settings
from torghut.domain.errors import ConfigError
from torghut.sinks import opening
from torghut.sinks.opening import check_clients

SECRET = "a-secret-of-the-two-sides"
HOOK = f'kind = "webhook"\nurl = "https://u:pass-word@h.example/hidden?q=1"\nsecret = "{SECRET}"'


def loaded(monkeypatch: pytest.MonkeyPatch, folder: Path, text: str) -> Settings:
    path = folder / "torghut.toml"
    path.write_text(text, encoding="utf-8")
    for name in [n for n in os.environ if n.startswith(("TORGHUT_", "APCA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORGHUT_CONFIG", str(path))
    return config.load()


WRONG = [
    ('[sinks.a]\nkind = "kafka"', "[sinks.a] kind: is no kind of sink"),
    ("[sinks.a]\nchannel = 'x'", "[sinks.a] kind: is missing"),
    ('[sinks.A]\nkind = "log"', "[sinks.A]: is no name"),
    ('[sinks.a]\nkind = "log"\nurl = "x"', "[sinks.a] url: is not a known setting"),
    ('[sinks.a]\nkind = "log"\nstream = "file"', "[sinks.a] stream: input should be"),
    ('[sinks.a]\nkind = "webhook"\nurl = "https://h.example"', "[sinks.a] secret: is missing"),
    (f'[sinks.a]\nkind = "webhook"\nurl = "ftp://h/{SECRET}"\nsecret = "{SECRET}"',
     "[sinks.a] url: must be an address that begins"),
    ('[sinks.a]\nkind = "webhook"\nurl = "https://h"\nsecret = "short"', "[sinks.a] secret: "),
    (f'[sinks.a]\nkind = "redis"\nurl = "http://{SECRET}@h"',
     "[sinks.a] url: must be an address that begins"),
    ('[sinks.a]\nkind = "nats"\nurl = "nats://h"\nsubject = "a.>"', "[sinks.a] subject: "),
    ('[sinks.a]\nkind = "notify"\nchannel = "a; DROP"', "[sinks.a] channel: "),
    ('[sinks.a]\nkind = "rabbitmq"\nurl = "amqp://h"\ntimeout_s = 0', "[sinks.a] timeout_s: "),
    ("sinks = 1", "TORGHUT_SINKS: "),
]  # fmt: skip


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_a_wrong_table_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        loaded(monkeypatch, tmp_path, text)
    assert str(error.value).startswith(said)
    assert "\n" not in str(error.value)
    assert SECRET not in str(error.value) and "short" not in str(error.value)


def test_a_client_that_is_not_installed_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = loaded(monkeypatch, tmp_path, '[sinks.r]\nkind = "redis"\nurl = "redis://h"')
    check_clients(settings.sinks)
    monkeypatch.setattr(opening, "find_spec", lambda _: None)
    with pytest.raises(ConfigError, match=r"\[sinks.r\] kind.*torghut\[redis\]"):
        check_clients(settings.sinks)


def test_secrets_are_found_and_not_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = f"""
    [sinks.hook]
    {HOOK}
    [sinks.red]
    kind = "redis"
    url = "redis://:p%40ss-word@h.example:6379/0"
    [sinks.nat]
    kind = "nats"
    url = "nats://tok-en@one.example:4222,nats://two.example:4222"
    """
    settings = loaded(monkeypatch, tmp_path, text)
    hidden = {s for sink in settings.sinks.values() for s in sink.secrets()}
    assert hidden >= {SECRET, "pass-word", "/hidden", "q=1", "p@ss-word", "p%40ss-word", "tok-en"}
    shown = repr(settings) + "".join(sink.place() for sink in settings.sinks.values())
    assert not [secret for secret in hidden if secret in shown]
    assert settings.sinks["nat"].place() == "one.example:4222,two.example:4222 TORGHUT"


@pytest.mark.parametrize("words", [["run"], ["outbox", "--json"], ["outbox"]])
def test_commands_keep_the_secrets(database_url: str, tmp_path: Path, words: list[str]) -> None:
    """`run` with a wrong table ends with 78 and one line; `outbox` shows where, not with what."""
    wrong = '\n[sinks.wrong]\nkind = "nothing"\n' if words == ["run"] else ""
    file = tmp_path / "torghut.toml"
    file.write_text(f"[sinks.hook]\n{HOOK}\n{wrong}", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "torghut", *words],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "COLUMNS": "200",
            "TORGHUT_CONFIG": str(file),
            "TORGHUT_DATABASE_URL": database_url,
        },
        capture_output=True,
        text=True,
        timeout=120,
    )
    output = done.stdout + done.stderr
    assert not [s for s in (SECRET, "pass-word", "hidden") if s in output], output
    if words == ["run"]:
        assert (done.returncode, len(done.stderr.splitlines())) == (78, 1), output
        assert "[sinks.wrong] kind" in done.stderr
        return
    assert done.returncode == 0, output
    if "--json" in words:
        row: dict[str, Any] = json.loads(done.stdout)
        assert (row["sink"], row["kind"], row["to"]) == ("hook", "webhook", "h.example")
        assert (row["delivered"], row["lag_events"], row["last_error"]) == (0, None, None)
    else:
        assert "h.example" in done.stdout and "not begun" in done.stdout
