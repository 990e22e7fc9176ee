"""The `[accounts.NAME]` tables: each its own, wrong ones named, secrets never shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.test_config import CANARY, Env, env, refused  # noqa: F401 - fixtures
from tests.test_tidy import ROOT
from torghut import config
from torghut.account_settings import AccountTable
from torghut.config import Settings, risk_policy
from torghut.domain.errors import ConfigError

Load = Callable[..., Settings]
Refused = Callable[[Mapping[str, str]], str]
TWO = """
broker = "alpaca"
[accounts.alpha]
apca_api_key_id = "ka"
apca_api_secret_key = "sa"
[accounts.beta]
apca_api_key_id = "kb"
apca_api_secret_key = "sb"
"""
LIVE = """
trading_mode = "live"
live_trading_enabled = true
live_account_number = "7"
[risk]
max_orders_per_minute = 10
max_daily_loss = 1000
"""


@pytest.fixture
def toml(env: Env, tmp_path: Path) -> Load:  # noqa: F811
    def load(text: str, **values: str) -> Settings:
        file = tmp_path / "torghut.toml"
        file.write_text(text)
        env({"TORGHUT_CONFIG": str(file), **values})
        return config.load()

    return load


def of_env(label: str, **values: str) -> dict[str, str]:
    keys = {"APCA_API_KEY_ID": f"k{label}", "APCA_API_SECRET_KEY": f"s{label}", **values}
    return {f"TORGHUT_ACCOUNTS__{label.upper()}__{name}": value for name, value in keys.items()}


# ---------------------------------------------------------------------- what an account has


def test_without_tables_everything_is_as_it_was(toml: Load) -> None:
    found = toml('account = "mine"')
    assert (found.labels, found.default_account, found.each()) == (("mine",), "mine", (found,))
    assert found.named("APCA_API_KEY_ID") == "APCA_API_KEY_ID"


def test_each_account_has_its_own_and_the_rest_of_all(toml: Load) -> None:
    found = toml(
        "broker_rate_per_min = 100\n" + TWO + 'apca_api_base_url = "http://127.0.0.1:1"\n'
        "broker_rate_per_min = 50\n[risk.account.beta]\nmax_order_notional = 5\n"
    )
    alpha, beta = found.each()
    assert [one.account for one in (alpha, beta)] == ["alpha", "beta"]
    keys = [one.apca_api_key_id.get_secret_value() for one in (alpha, beta) if one.apca_api_key_id]
    assert keys == ["ka", "kb"]
    assert (alpha.broker_rate_per_min, beta.broker_rate_per_min) == (100, 50)
    assert beta.base_url == beta.data_url == "http://127.0.0.1:1" != alpha.base_url
    limits = [risk_policy(one).account_limits["max_order_notional"].value for one in (alpha, beta)]
    assert limits == [100_000, 5]


def test_by_environment_alone(env: Env) -> None:  # noqa: F811
    env({"TORGHUT_BROKER": "alpaca", **of_env("alpha"), **of_env("beta", BROKER_RATE_PER_MIN="9")})
    found = config.load()
    assert found.labels == ("alpha", "beta")
    assert found.of("beta").broker_rate_per_min == 9


def test_the_environment_goes_over_the_file(toml: Load) -> None:
    found = toml(TWO, TORGHUT_ACCOUNTS__ALPHA__APCA_API_SECRET_KEY="other")
    secret = found.of("alpha").apca_api_secret_key
    assert secret is not None and secret.get_secret_value() == "other"


def test_a_number_stays_a_text(env: Env) -> None:  # noqa: F811
    """What looks like a number or like JSON is taken as it stands."""
    env({"TORGHUT_BROKER": "alpaca", **of_env("a", APCA_API_SECRET_KEY="1e5")})
    secret = config.load().of("a").apca_api_secret_key
    assert secret is not None and secret.get_secret_value() == "1e5"


def test_keys_by_reference(toml: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of-file\n")
    found = toml(
        f"""
        broker = "alpaca"
        [accounts.alpha]
        apca_api_key_id_env = "ALPHA_KEY"
        apca_api_secret_key_file = "{tmp_path}/secret"
        """,
        ALPHA_KEY="of-variable",
    ).of("alpha")
    assert found.apca_api_key_id is not None and found.apca_api_secret_key is not None
    assert found.apca_api_key_id.get_secret_value() == "of-variable"
    assert found.apca_api_secret_key.get_secret_value() == "of-file"


@pytest.mark.parametrize(
    ("head", "default"),
    [("", None), ('account = "beta"\n', "beta")],
)
def test_which_account_is_meant(toml: Load, head: str, default: str | None) -> None:
    found = toml(head + TWO)
    assert found.default_account == default
    if default is None:
        with pytest.raises(ValueError, match="alpha, beta"):
            found.wanted(None)
    assert found.wanted("alpha") == "alpha"


def test_the_only_table_is_the_default(toml: Load) -> None:
    found = toml(TWO.split("[accounts.beta]")[0])
    assert found.default_account == "alpha"


def test_a_strategy_runs_for_its_account(toml: Load) -> None:
    strategy = "[strategies.s]\nclass = 'a:B'\nschedule = '* * * * *'\nsymbols = ['A']\n"
    found = toml(TWO + strategy + 'account = "beta"')
    assert [list(one.strategies) for one in found.each()] == [[], ["s"]]


def test_shadow_mode_of_all_is_not_lifted_by_a_table(toml: Load) -> None:
    text = TWO + "trading_enabled = true"
    assert toml(text).of("beta").trading_enabled is True
    assert toml(text, TORGHUT_TRADING_ENABLED="false").of("beta").trading_enabled is False


# ---------------------------------------------------------------------- live (P10)


def test_live_and_paper_beside_each_other(toml: Load) -> None:
    alpha, beta = toml(TWO + LIVE).each()
    assert (alpha.trading_mode, beta.trading_mode) == ("paper", "live")
    assert alpha.base_url != beta.base_url
    config.check_live_keys(alpha, "whatever")
    config.check_live_keys(beta, "7")
    with pytest.raises(ConfigError, match=r"\[accounts.beta\] live_account_number"):
        config.check_live_keys(beta, "8")


@pytest.mark.parametrize(
    ("missing", "names"),
    [
        ("live_trading_enabled = true", "[accounts.beta] live_trading_enabled"),
        ('live_account_number = "7"', "[accounts.beta] live_account_number"),
        ("max_daily_loss = 1000", "MAX_DAILY_LOSS"),
    ],
)
def test_a_live_account_lacks_one_of_its_keys(
    refused: Refused,  # noqa: F811
    tmp_path: Path,
    missing: str,
    names: str,
) -> None:
    """The paper account beside it is in order: the process does not start all the same."""
    text = (TWO + LIVE).replace(missing, "max_daily_loss = 'off'" if "loss" in missing else "")
    (tmp_path / "t.toml").write_text(text)
    assert names in refused({"TORGHUT_CONFIG": str(tmp_path / "t.toml")})


@pytest.mark.parametrize(
    "given",
    [
        {"TORGHUT_TRADING_MODE": "live"},
        {"TORGHUT_LIVE_TRADING_ENABLED": "true"},
        {"TORGHUT_LIVE_ACCOUNT_NUMBER": "7"},
        {"APCA_API_KEY_ID": CANARY},
        {"APCA_API_SECRET_KEY": CANARY},
    ],
)
def test_no_key_counts_for_all_accounts(
    refused: Refused,  # noqa: F811
    tmp_path: Path,
    given: Mapping[str, str],
) -> None:
    """A flag outside of the tables would make several accounts live at once."""
    (tmp_path / "t.toml").write_text(TWO)
    line = refused({"TORGHUT_CONFIG": str(tmp_path / "t.toml"), **given})
    assert next(iter(given)) in line


# ---------------------------------------------------------------------- wrong ones

_STRATEGY = "[strategies.s]\nclass = 'a:B'\nschedule = '* * * * *'\nsymbols = ['A']\n"


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("[accounts.'a b']\n", "a b"),
        (TWO + "[accounts.Alpha]\n", "alpha and Alpha"),
        (TWO + "trading_mod = 'live'\n", "[accounts.beta] trading_mod"),
        (TWO + "broker_rate_per_min = 0\n", "[accounts.beta] broker_rate_per_min"),
        (TWO + "apca_api_base_url = 'https://h/v2'\n", "[accounts.beta] apca_api_base_url"),
        (TWO + f"apca_api_key_id_env = '{CANARY}'\n", "apca_api_key_id is given in more than one"),
        (TWO.replace("apca_api_key_id = \"kb\"", f"apca_api_key_id_env = '{CANARY}'"),
         "apca_api_key_id_env names a variable that is not set"),
        (TWO.replace("apca_api_key_id = \"kb\"", f"apca_api_key_id_file = '/{CANARY}'"),
         "apca_api_key_id_file names a file that cannot be read"),
        (TWO.replace("apca_api_secret_key = \"sb\"", ""), "[accounts.beta] apca_api_secret_key"),
        (TWO.replace('"kb"', '"ka"'), "alpha and beta have the same apca_api_key_id"),
        ("account = 'gamma'\n" + TWO, "TORGHUT_ACCOUNT"),
        (TWO + "[risk.account.gamma]\nmax_order_qty = 1\n", "[risk.account.gamma]"),
        (TWO + _STRATEGY, "[strategies.s] account"),
        (TWO + _STRATEGY + "account = 'gamma'\n", "[strategies.s] account"),
        ("accounts = 5\n", "TORGHUT_ACCOUNTS"),
    ],
)  # fmt: skip
def test_a_wrong_table(refused: Refused, tmp_path: Path, text: str, names: str) -> None:  # noqa: F811
    (tmp_path / "t.toml").write_text(text)
    assert names in refused({"TORGHUT_CONFIG": str(tmp_path / "t.toml")})


@pytest.mark.parametrize(
    "name",
    ["TORGHUT_ACCOUNTS__ALPHA__TRADING_MOD", "TORGHUT_ACCOUNTS__ALPHA", "TORGHUT_ACCOUNT__ALPHA"],
)
def test_a_misspelt_variable(refused: Refused, name: str) -> None:  # noqa: F811
    assert name in refused({"TORGHUT_BROKER": "alpaca", **of_env("alpha"), name: "x"})


def test_secrets_never_show(env: Env) -> None:  # noqa: F811
    given = of_env("alpha", APCA_API_KEY_ID="k" + CANARY, APCA_API_SECRET_KEY="s" + CANARY)
    env({"TORGHUT_BROKER": "alpaca", **given})
    found = config.load()
    for one in (found, *found.each()):
        shown = f"{one} {one!r} {one.model_dump()} {one.model_dump_json()}"
        assert CANARY not in shown
    secrets = [one for table in found.accounts.values() for one in table.secrets()]
    assert sorted(secrets) == ["k" + CANARY, "s" + CANARY]  # control: they are there


def test_readme_names_every_setting_of_an_account() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("### Several accounts", 1)[1].split("\n### ", 1)[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    assert set(re.findall("`([a-z_]+)`", " ".join(rows))) == set(AccountTable.model_fields)
