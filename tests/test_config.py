"""Settings: each wrong value stops the start with exit 78 and one line; secrets never show."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from torghut import cli, config
from torghut.config import DATA_URL, LIVE_HOST, PAPER_HOST, risk_policy
from torghut.domain.errors import EXIT_CONFIG, ConfigError
from torghut.domain.limits import LIMITS, LIVE_LIMITS, Scope

CANARY = "canary-5f1d0c"
KEYS = {"APCA_API_KEY_ID": "PK" + CANARY, "APCA_API_SECRET_KEY": "SK" + CANARY}
ALPACA = {"TORGHUT_BROKER": "alpaca", **KEYS}
LIVE_RISK = {
    "TORGHUT_RISK__MAX_ORDERS_PER_MINUTE": "10",
    "TORGHUT_RISK__MAX_DAILY_LOSS": "1000",
}
LIVE = {
    **ALPACA,
    **LIVE_RISK,
    "TORGHUT_TRADING_MODE": "live",
    "TORGHUT_LIVE_TRADING_ENABLED": "true",
    "TORGHUT_LIVE_ACCOUNT_NUMBER": "123456789",
}
Env = Callable[[Mapping[str, str]], None]


@pytest.fixture
def env(monkeypatch: pytest.MonkeyPatch) -> Env:
    """Sets the environment: nothing of ours but what is given."""
    for name in list(os.environ):
        if name.startswith(("TORGHUT_", "APCA_")) and name != "TORGHUT_TEST_RUN_HOME":
            monkeypatch.delenv(name)

    def give(values: Mapping[str, str]) -> None:
        monkeypatch.delenv("TORGHUT_TEST_RUN_HOME", raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return give


@pytest.fixture
def refused(
    env: Env, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Mapping[str, str]], str]:
    """Runs a command that is refused: exit 78 and one line, which is returned."""

    def run(values: Mapping[str, str]) -> str:
        env(values)
        monkeypatch.setattr(sys, "argv", ["torghut", "migrate"])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        output = capsys.readouterr()
        assert caught.value.code == EXIT_CONFIG
        assert output.out == ""
        assert output.err.startswith("torghut: ") and output.err.count("\n") == 1, output.err
        assert CANARY not in output.err
        return output.err

    return run


# ---------------------------------------------------------------------- each setting

WRONG = [
    ("TORGHUT_BROKER", ["", "ib", "ALPACA "]),
    ("TORGHUT_ACCOUNT", ["", "a" * 65]),
    ("TORGHUT_TRADING_MODE", ["", "demo", "Live"]),
    ("TORGHUT_LIVE_TRADING_ENABLED", ["", "maybe"]),
    ("TORGHUT_TRADING_ENABLED", ["", "2"]),
    ("APCA_API_BASE_URL", ["paper-api.alpaca.markets", "ftp://h", "https://h/", "https://h/v2",
                           "https://u:" + CANARY + "@h", "https://h?x=1", "https://h#f", ""]),
    ("APCA_API_DATA_URL", ["data", "https://data.alpaca.markets/", "https://h/v2"]),
    ("TORGHUT_HTTP_PORT", ["-1", "65536", "http", ""]),
    ("TORGHUT_BROKER_TIMEOUT_S", ["0", "-1", "121", "nan", "inf", "ten"]),
    ("TORGHUT_LEASE_TTL_S", ["0.5", "601", "nan"]),
    ("TORGHUT_RECONCILE_INTERVAL_S", ["0", "3601", "x"]),
    ("TORGHUT_ABSENCE_GRACE_S", ["-1", "3601"]),
    ("TORGHUT_BROKER_RATE_PER_MIN", ["0", "1000001", "1.5"]),
    ("TORGHUT_SESSION_POLICY", ["", "wait"]),
    ("TORGHUT_DECISION_TTL_S", ["0", "-5"]),
    ("TORGHUT_FACTS_WAIT_S", ["-1", "3601"]),
    ("TORGHUT_SUBMIT_THREADS", ["0", "65", "2.5"]),
    ("TORGHUT_LOG_LEVEL", ["trace"]),
    ("TORGHUT_LOG_FORMAT", ["xml"]),
    ("TORGHUT_HTTP_HOST", ["0.0.0.0", "::", "example.com"]),
    ("TORGHUT_DATABASE_POOLER", ["", "session", "on"]),
    ("TORGHUT_DATABASE_URL", ["postgresql://u:" + CANARY + "@a:1,:2/d"]),
    ("TORGHUT_DATABASE_URL", ["mysql://u:" + CANARY + "@h/d", "not a url " + CANARY, "://"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "value"), [(name, value) for name, values in WRONG for value in values]
)
def test_a_wrong_value(refused, setting: str, value: str) -> None:
    line = refused({setting: value})
    assert setting in line
    assert line.count(";") >= 1  # problem; mend


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for name in LIMITS for value in ("", "-1", "nan", "inf", "lots")]
    + [("buying_power_reserve_pct", "101"), ("max_drawdown_pct", "101")]
    + [("shorts_allowed", "maybe"), ("check_assets", ""), ("check_self_match", "2")]
    + [("trip_state", "active"), ("restricted_symbols", "A B"), ("strategies", "a\x01")],
)
def test_a_wrong_limit(refused, name: str, value: str) -> None:
    assert f"TORGHUT_RISK__{name.upper()}" in refused({f"TORGHUT_RISK__{name.upper()}": value})


@pytest.mark.parametrize(
    "name", [name for name, spec in LIMITS.items() if spec.default is not None]
)
def test_off_is_taken_for_every_limit(env: Env, name: str) -> None:
    """Each name of the interface is enforced, so `off` means something (story 12)."""
    env({})
    assert risk_policy(config.load()).account_limits[name].value is not None  # control
    env({f"TORGHUT_RISK__{name.upper()}": "off"})
    assert risk_policy(config.load()).account_limits[name].value is None


@pytest.mark.parametrize(
    "name",
    ["TORGHUT_TRADING_ENABLE", "TORGHUT_RISK", "TORGHUT_RISK__MAX_ORDER", "TORGHUT_X__Y",
     "TORGHUT_LIVE", "TORGHUT_TEST_DATABASE", "TORGHUT_APCA_API_KEY_ID"],
)  # fmt: skip
def test_an_unknown_variable(refused, name: str) -> None:
    """A misspelt safety setting must not be silently without effect (story 13)."""
    assert name in refused({name: "1"})


def test_the_variables_of_a_kubernetes_service_are_tolerated(env: Env) -> None:
    env(
        {
            "TORGHUT_SERVICE_HOST": "10.0.0.1",
            "TORGHUT_SERVICE_PORT": "8080",
            "TORGHUT_SERVICE_PORT_HTTP": "8080",
            "TORGHUT_PORT": "tcp://10.0.0.1:8080",
            "TORGHUT_PORT_8080_TCP": "tcp://10.0.0.1:8080",
            "TORGHUT_PORT_8080_TCP_PROTO": "tcp",
        }
    )
    config.load()


def test_defaults_are_those_of_the_interface(env: Env) -> None:
    env({})
    found = config.load()
    assert (found.broker, found.account, found.trading_mode, found.trading_enabled) == (
        "sim", "paper", "paper", True,
    )  # fmt: skip
    assert (found.live_trading_enabled, found.http_host, found.http_port) == (
        False, "127.0.0.1", 8080,
    )  # fmt: skip
    assert (found.lease_ttl_s, found.absence_grace_s, found.broker_rate_per_min) == (10, 30, 200)
    assert (found.session_policy, found.reconcile_interval_s) == ("send", 15)
    assert found.base_url == f"https://{PAPER_HOST}"
    assert found.data_url == DATA_URL


def test_the_data_url_is_beside_a_broker_that_is_not_alpacas(env: Env) -> None:
    env({**ALPACA, "APCA_API_BASE_URL": "http://127.0.0.1:8090"})
    assert config.load().data_url == "http://127.0.0.1:8090"


# ---------------------------------------------------------------------- secrets


def test_secrets_never_show(env: Env) -> None:
    env(
        {
            **ALPACA,
            "TORGHUT_API_TOKENS": f"t{CANARY},u{CANARY}",
            "TORGHUT_DATABASE_URL": f"postgresql://u:{CANARY}@h/d",
        }
    )
    settings = config.load()
    shown = f"{settings} {settings!r} {settings.model_dump()} {settings.model_dump_json()}"
    assert CANARY not in shown
    assert settings.tokens() == {f"t{CANARY}", f"u{CANARY}"}  # control: they are there


@pytest.mark.parametrize("name", ["TORGHUT_HTTP_PORT", "TORGHUT_BROKER", "APCA_API_BASE_URL"])
def test_a_value_that_might_be_a_secret_is_not_repeated(refused, name: str) -> None:
    """A password pasted into the wrong variable does not end in the log."""
    refused({name: CANARY})


# ---------------------------------------------------------------------- together


@pytest.mark.parametrize("name", sorted(KEYS))
@pytest.mark.parametrize("value", [None, ""])
def test_alpaca_needs_both_keys(refused, name: str, value: str | None) -> None:
    given = {k: v for k, v in ALPACA.items() if k != name} | ({name: ""} if value == "" else {})
    assert name in refused(given)


def test_others_may_reach_it_only_with_tokens(env: Env) -> None:
    env({"TORGHUT_HTTP_HOST": "0.0.0.0", "TORGHUT_API_TOKENS": "t"})
    config.load()


@pytest.mark.parametrize("tokens", ["", " ", ",", " , "])
def test_tokens_that_are_none(refused, tokens: str) -> None:
    given = {"TORGHUT_HTTP_HOST": "0.0.0.0", "TORGHUT_API_TOKENS": tokens}
    assert "TORGHUT_HTTP_HOST" in refused(given)


# ---------------------------------------------------------------------- live (P10)


def test_live_with_all_its_keys(env: Env) -> None:
    env(LIVE)
    assert config.load().base_url == f"https://{LIVE_HOST}"


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"TORGHUT_LIVE_TRADING_ENABLED": None}, "TORGHUT_LIVE_TRADING_ENABLED"),
        ({"TORGHUT_LIVE_TRADING_ENABLED": "false"}, "TORGHUT_LIVE_TRADING_ENABLED"),
        ({"TORGHUT_LIVE_ACCOUNT_NUMBER": None}, "TORGHUT_LIVE_ACCOUNT_NUMBER"),
        ({"TORGHUT_LIVE_ACCOUNT_NUMBER": ""}, "TORGHUT_LIVE_ACCOUNT_NUMBER"),
        ({"TORGHUT_BROKER": "sim"}, "TORGHUT_BROKER"),
        ({"TORGHUT_BROKER": None}, "TORGHUT_BROKER"),
        ({"APCA_API_KEY_ID": None}, "APCA_API_KEY_ID"),
        *(
            ({f"TORGHUT_RISK__{name.upper()}": value}, f"TORGHUT_RISK__{name.upper()}")
            for name in LIVE_LIMITS
            for value in ("off", "OFF")
        ),
        ({"TORGHUT_RISK__MAX_ORDERS_PER_MINUTE": None}, "TORGHUT_RISK__MAX_ORDERS_PER_MINUTE"),
        ({"TORGHUT_RISK__MAX_DAILY_LOSS": None}, "TORGHUT_RISK__MAX_DAILY_LOSS"),
    ],
)
def test_live_without_one_of_them(refused, change: Mapping[str, str | None], names: str) -> None:
    merged = {**LIVE, **change}
    assert names in refused({k: v for k, v in merged.items() if v is not None})


@pytest.mark.parametrize("scope", ["strategy.s", "symbol.AAPL"])
@pytest.mark.parametrize("name", LIVE_LIMITS)
def test_live_has_no_limit_off_in_any_scope(
    env: Env, tmp_path: Path, scope: str, name: str
) -> None:
    """The specific table wins over the general one, so it could switch the limit off."""
    file = tmp_path / "t.toml"
    file.write_text(f'[risk.{scope}]\n{name} = "off"\n')
    env({**LIVE, "TORGHUT_CONFIG": str(file)})
    refusal = "is off" if Scope(scope.partition(".")[0]) in LIMITS[name].scopes else "cannot be set"
    with pytest.raises(ConfigError, match=refusal):
        config.load()


@pytest.mark.parametrize(
    "url",
    [f"https://{LIVE_HOST}", f"http://{LIVE_HOST}", f"https://{LIVE_HOST.upper()}",
     f"https://{LIVE_HOST}:443", f"https://{LIVE_HOST}."],
)  # fmt: skip
def test_paper_refuses_the_live_host(refused, url: str) -> None:
    assert "APCA_API_BASE_URL" in refused({**ALPACA, "APCA_API_BASE_URL": url})


# ---------------------------------------------------------------------- the TOML file


@pytest.fixture
def toml(env: Env, tmp_path: Path) -> Callable[..., config.Settings]:
    """Settings from a TOML text, with an environment beside it."""

    def load(text: str, **values: str) -> config.Settings:
        file = tmp_path / "torghut.toml"
        file.write_text(text)
        env({"TORGHUT_CONFIG": str(file), **values})
        return config.load()

    return load


def test_the_file_and_the_environment_over_it(toml) -> None:
    found = toml('account = "file"\nlease_ttl_s = 5\n', TORGHUT_ACCOUNT="env")
    assert (found.account, found.lease_ttl_s) == ("env", 5)


def test_limits_by_strategy_and_symbol(toml) -> None:
    """Symbol over strategy over the table over the default; the source says which."""
    policy = risk_policy(
        toml("""
        [risk]
        max_order_notional = 1000
        max_order_qty = "7"
        symbols = ["AAPL", "msft"]
        [risk.strategy.trend]
        max_order_notional = 500
        max_open_orders = 3
        [risk.symbol.aapl]
        max_order_notional = "off"
        """)
    )

    def limit(strategy: str, symbol: str, name: str) -> tuple[object, str]:
        found = policy.limits_for(strategy, symbol).rules[name]
        return found.limit, found.source

    assert limit("x", "MSFT", "max_order_notional") == (1000, "risk")
    assert limit("trend", "MSFT", "max_order_notional") == (500, "risk.strategy.trend")
    assert limit("trend", "AAPL", "max_order_notional") == (None, "risk.symbol.AAPL")
    assert limit("x", "AAPL", "max_open_orders") == (None, "default")
    assert limit("x", "AAPL", "max_position_notional") == (1_000_000, "default")
    assert limit("trend", "AAPL", "max_open_orders") == (None, "default")  # beside its own:
    own = policy.limits_for("trend", "AAPL").own["max_open_orders"]
    assert (own.limit, own.source) == (3, "risk.strategy.trend")
    assert policy.switches.symbols == {"AAPL", "MSFT"}


def test_an_environment_limit_goes_over_the_files(toml) -> None:
    settings = toml("[risk]\nmax_order_qty = 5\n", TORGHUT_RISK__MAX_ORDER_QTY="3")
    assert risk_policy(settings).limits_for("s", "AAPL").rules["max_order_qty"].limit == 3


def test_the_policy_version_follows_the_policy(toml) -> None:
    one = risk_policy(toml("[risk]\nmax_order_qty = 5\n")).version
    assert risk_policy(toml('[risk]\nmax_order_qty = "5.0"\n')).version == one
    assert risk_policy(toml("[risk]\nmax_order_qty = 6\n")).version != one


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("acount = 'x'", "ACOUNT"),
        ("[risk]\nmax_order = 1", "MAX_ORDER"),
        ("[risk.strategy]\nmax_order_qty = 1", "[risk.strategy]"),
        ("[risk.symbol.AAPL]\nnope = 1", "[risk.symbol.AAPL]"),
        ("[risk.symbol.AAPL]\nmax_order_qty = -1", "[risk.symbol.AAPL]"),
        ("[risk.symbol.AAPL]\nmax_daily_loss = 1", "[risk.symbol.AAPL]"),
        ("[risk.strategy.s]\nmax_gross_exposure = 1", "[risk.strategy.s]"),
        ("[risk.account.paper]\nshorts_allowed = true", "[risk.account.paper]"),
        ("[risk]\naccount = 1", "[risk.account]"),
        ("[risk]\nmax_order_qty = true", "MAX_ORDER_QTY"),
        ("[risk]\nsymbols = 5", "TORGHUT_RISK__SYMBOLS"),
        ("[risk]\nsymbols = ['A B']", "TORGHUT_RISK__SYMBOLS"),
        ("[strategies.s]\nclass = 'a:B'\nschedule = '* * * * *'", "[strategies.s] symbols"),
        ("[strategies.s]\nclass = 'a:B'\nschedule = '* * * * *'\nsymbols = []", "[strategies.s]"),
        ("[strategies.s]\nclas = 'a:B'\nschedule = '* * * * *'\nsymbols = ['A']", "[strategies.s]"),
        ("account = ", "TORGHUT_CONFIG"),
        ("\x00", "TORGHUT_CONFIG"),
    ],
)
def test_a_wrong_file(refused, tmp_path: Path, text: str, names: str) -> None:
    file = tmp_path / "torghut.toml"
    file.write_text(text)
    assert names in refused({"TORGHUT_CONFIG": str(file)})


@pytest.mark.parametrize("path", ["missing.toml", "."])
def test_a_file_that_is_none(refused, tmp_path: Path, path: str) -> None:
    assert "TORGHUT_CONFIG" in refused({"TORGHUT_CONFIG": str(tmp_path / path)})


def test_a_file_that_is_not_utf_8(refused, tmp_path: Path) -> None:
    file = tmp_path / "torghut.toml"
    file.write_bytes(b'account = "\xff"')
    assert "TORGHUT_CONFIG" in refused({"TORGHUT_CONFIG": str(file)})
