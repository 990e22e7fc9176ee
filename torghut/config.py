"""Settings: environment, then the TOML file named by TORGHUT_CONFIG, then defaults.

`load()` reads them all, checks them together and raises ConfigError (exit 78) with the setting's
outside name. Secrets are `SecretStr`: they print as asterisks everywhere.

Live money needs three keys (P10): TORGHUT_TRADING_MODE=live, TORGHUT_LIVE_TRADING_ENABLED=true
and TORGHUT_LIVE_ACCOUNT_NUMBER, which is compared with the broker's own answer before anything
is sent (torghut.services.supervisor). Paper mode refuses the live host.

```
Settings ── of(label) ─▶ Settings of one account      each(): all of them
```

Without `[accounts.…]` tables both are the settings themselves. With them the settings outside are
those of the process, and of each account what its table does not say otherwise.
"""

from __future__ import annotations

import ipaddress
import os
import tomllib
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from torghut.account_settings import OWN, AccountTable, broker_url, check_tables
from torghut.config_errors import config_error
from torghut.domain.access import Credential, setting_credential
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.errors import ConfigError
from torghut.domain.risk_policy import RiskPolicy
from torghut.domain.submission import Retries
from torghut.sink_settings import Sinks
from torghut.strategy_settings import StrategyConfig
from torghut.stream_settings import Intakes
from torghut.webhook_settings import Webhooks

PAPER_HOST = "paper-api.alpaca.markets"
LIVE_HOST = "api.alpaca.markets"
DATA_URL = "https://data.alpaca.markets"

_TABLES = ("TORGHUT_RISK__", "TORGHUT_ACCOUNTS__", "TORGHUT_WEBHOOKS__")
_KUBERNETES = ("TORGHUT_SERVICE_", "TORGHUT_PORT")  # set beside a Service named torghut


class Settings(BaseSettings):
    """Every setting. Names, defaults and units: README, "Settings"."""

    model_config = SettingsConfigDict(
        env_prefix="TORGHUT_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    home: Path | None = None
    config: Path | None = None
    database_url: SecretStr | None = None
    database_pooler: Literal["none", "transaction"] = "none"
    broker: Literal["sim", "alpaca"] = "sim"
    account: str = Field(default="paper", min_length=1, max_length=64)
    trading_mode: Literal["paper", "live"] = "paper"
    live_trading_enabled: bool = False
    live_account_number: str | None = None
    trading_enabled: bool = True
    apca_api_key_id: SecretStr | None = Field(default=None, validation_alias="APCA_API_KEY_ID")
    apca_api_secret_key: SecretStr | None = Field(
        default=None, validation_alias="APCA_API_SECRET_KEY"
    )
    apca_api_base_url: str | None = Field(default=None, validation_alias="APCA_API_BASE_URL")
    apca_api_data_url: str | None = Field(default=None, validation_alias="APCA_API_DATA_URL")
    http_host: str = "127.0.0.1"
    http_port: int = Field(default=8080, ge=0, le=65535)
    api_tokens: SecretStr | None = None
    require_token: bool = False
    http_rate_per_s: float = Field(default=2_000, ge=1, le=1_000_000)
    broker_timeout_s: float = Field(default=10, gt=0, le=120)
    lease_ttl_s: float = Field(default=10, ge=1, le=600)
    reconcile_interval_s: float = Field(default=15, ge=0.1, le=3600)
    absence_grace_s: float = Field(default=30, ge=0, le=3600)
    broker_rate_per_min: int = Field(default=200, ge=1, le=1_000_000)
    retry_attempts: int | None = Field(default=None, ge=1, le=1000)
    retry_backoff_s: float = Field(default=1, gt=0, le=3600)
    retry_backoff_factor: float = Field(default=2, ge=1, le=10)
    session_policy: Literal["send", "hold", "deny"] = "send"
    session_policies: Mapping[str, Literal["send", "hold", "deny"]] = Field(default_factory=dict)
    decision_ttl_s: float = Field(default=86_400, gt=0)
    facts_wait_s: float = Field(default=30, ge=0, le=3600)
    late_orders: Literal["cancel", "keep"] = "cancel"
    order_stuck_s: float = Field(default=300, ge=1, le=86_400)
    position_tolerance_qty: Decimal = Field(default=Decimal(0), ge=0)
    cash_tolerance: Decimal = Field(default=Decimal(1), ge=0)
    submit_threads: int = Field(default=8, ge=1, le=64)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["json", "console"] = "console"
    risk: Mapping[str, Any] = Field(default_factory=dict)
    strategies: Mapping[str, StrategyConfig] = Field(default_factory=dict)
    sinks: Sinks = Field(default_factory=dict)
    accounts: Mapping[str, AccountTable] = Field(default_factory=dict)
    intakes: Intakes = Field(default_factory=dict)
    webhooks: Webhooks = Field(default_factory=Webhooks)

    @field_validator("api_tokens")
    @classmethod
    def _tokens(cls, value: SecretStr | None) -> SecretStr | None:
        for entry in (value.get_secret_value() if value else "").split(","):
            if entry.strip():
                setting_credential(entry.strip())
        return value

    @field_validator("apca_api_base_url", "apca_api_data_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return broker_url(value)

    @field_validator("accounts")
    @classmethod
    def _labels(cls, value: Mapping[str, AccountTable]) -> Mapping[str, AccountTable]:
        check_tables(value)
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        path = os.environ.get("TORGHUT_CONFIG")
        if not path:
            return (init_settings, env_settings)
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(path)))

    # ------------------------------------------------------------------ accounts

    @property
    def labels(self) -> tuple[str, ...]:
        """The accounts that these settings know, sorted."""
        return tuple(sorted(self.accounts)) or (self.account,)

    @property
    def default_account(self) -> str | None:
        """The account that is meant where none is named; None if each has to be named."""
        if not self.accounts or "account" in self.model_fields_set:
            return self.account
        return self.labels[0] if len(self.accounts) == 1 else None

    def of(self, label: str) -> Settings:
        """The settings of one account. Raises KeyError if it is not one of `labels`."""
        if not self.accounts:
            if label != self.account:
                raise KeyError(label)
            return self
        table = self.accounts[label]
        given = table.settings()
        return self.model_copy(
            update={
                **given,
                "account": label,
                "accounts": {label: table},
                # a shadow over everything is not lifted by a table
                "trading_enabled": self.trading_enabled and table.trading_enabled,
                "strategies": {
                    name: strategy
                    for name, strategy in self.strategies.items()
                    if (strategy.account or self.default_account) == label
                },
            }
        )

    def each(self) -> tuple[Settings, ...]:
        """The settings of every account."""
        return tuple(self.of(label) for label in self.labels)

    def wanted(self, label: str | None) -> str:
        """The account that a request means, which may name none.

        Raises ValueError where it has to; a name is not looked up: its books may be here.
        """
        account = label or self.default_account
        if account is None:
            raise ValueError(f"is missing, and there are several: {', '.join(self.labels)}")
        return account

    def named(self, setting: str) -> str:
        """The outside name of one account's setting: the table's, where the account has one."""
        if not self.accounts:
            return setting
        return f"[accounts.{self.account}] {setting.removeprefix('TORGHUT_').lower()}"

    # ------------------------------------------------------------------ derived

    @property
    def base_url(self) -> str:
        """Where orders go: the setting, else Alpaca's host for the trading mode."""
        if self.apca_api_base_url:
            return self.apca_api_base_url
        return f"https://{LIVE_HOST if self.trading_mode == 'live' else PAPER_HOST}"

    @property
    def data_url(self) -> str:
        """Where quotes come from: the setting, else beside a broker that is not Alpaca's own."""
        if self.apca_api_data_url:
            return self.apca_api_data_url
        host = urlsplit(self.base_url).hostname or ""
        return DATA_URL if host.endswith(".alpaca.markets") else self.base_url

    @property
    def retries(self) -> Retries:
        """How often and how soon a decision that surely left no order is sent again."""
        return Retries(self.retry_attempts, self.retry_backoff_s, self.retry_backoff_factor)

    @property
    def tolerance(self) -> Mapping[DiscrepancyKind, Decimal]:
        """By how much positions (units) and cash (currency) may differ before that blocks."""
        return {
            DiscrepancyKind.POSITION_DIFFERS: self.position_tolerance_qty,
            DiscrepancyKind.CASH_DIFFERS: self.cash_tolerance,
        }

    def tokens(self) -> frozenset[str]:
        """The bearer tokens of TORGHUT_API_TOKENS, without their scopes."""
        return frozenset(token for token, _ in self._setting_tokens())

    def credentials(self) -> tuple[Credential, ...]:
        """What is known of them; one that stands there twice has the scopes of both."""
        found: dict[bytes, Credential] = {}
        for _, one in self._setting_tokens():
            before = found.get(one.digest, one)
            found[one.digest] = replace(one, scopes=one.scopes | before.scopes)
        return tuple(found.values())

    def _setting_tokens(self) -> list[tuple[str, Credential]]:
        text = self.api_tokens.get_secret_value() if self.api_tokens else ""
        return [setting_credential(entry.strip()) for entry in text.split(",") if entry.strip()]


def load(**overrides: Any) -> Settings:
    """All settings, checked alone and together. Raises ConfigError for the first fault."""
    _check_config_file()
    _check_unknown_environment()
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        raise config_error(error) from None
    _check_tables(settings)
    for one in settings.each():
        _check_together(one)
        risk_policy(one)
    _check_reach(settings)
    return settings


def check_live_keys(settings: Settings, account_number: str) -> None:
    """The third key, at the broker: live money only on the account it is meant for (P10)."""
    if settings.trading_mode != "live":
        return
    if account_number != settings.live_account_number:
        raise ConfigError(
            settings.named("TORGHUT_LIVE_ACCOUNT_NUMBER"),
            "is not the number of the account that the keys reach",
            "set it to the account's own number, or use the keys of the account you mean",
        )


def risk_policy(settings: Settings) -> RiskPolicy:
    """The policy of the `[risk]` table. Raises ConfigError."""
    return RiskPolicy(settings.risk, account=settings.account, live=settings.trading_mode == "live")


def _check_config_file() -> None:
    path = os.environ.get("TORGHUT_CONFIG")
    if not path:
        return
    try:
        tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            "TORGHUT_CONFIG", f"cannot be read ({error.strerror})", "name a file that exists"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError("TORGHUT_CONFIG", f"is not TOML: {error}", "mend the file") from None


def _check_unknown_environment() -> None:
    known = {
        f"TORGHUT_{name.upper()}"
        for name, field in Settings.model_fields.items()
        if field.validation_alias is None
    }
    allowed = known | {"TORGHUT_TEST_DATABASE_URL", "TORGHUT_CRASH_AT"}
    for name in sorted(os.environ):
        if name.startswith("TORGHUT_") and name not in allowed:
            if name.startswith(
                ("TORGHUT_RISK__", "TORGHUT_ACCOUNTS__", "TORGHUT_WEBHOOKS__", *_KUBERNETES)
            ):
                continue
            raise ConfigError(
                name, "is not a known setting", "see the table in README, or unset it"
            )


def _check_tables(settings: Settings) -> None:
    """What tables of accounts leave no room for, and the accounts that are named elsewhere."""
    known = ", ".join(settings.labels)
    if settings.accounts:
        if settings.account not in settings.accounts and "account" in settings.model_fields_set:
            raise ConfigError(
                "TORGHUT_ACCOUNT", "names none of the accounts", f"use one of {known}, or unset it"
            )
        for name in OWN:
            field = Settings.model_fields[name]
            if getattr(settings, name) != field.default:
                raise ConfigError(
                    _outside_name(name),
                    "is set beside accounts that each have their own",
                    f"write it into the table of the account it is meant for: {known}",
                )
        for label in sorted(set(settings.risk.get("account") or {}) - set(settings.accounts)):
            raise ConfigError(
                f"[risk.account.{label}]", "names none of the accounts", f"use one of {known}"
            )
    for name, strategy in settings.strategies.items():
        account = strategy.account or settings.default_account
        if account not in settings.labels:
            problem = "names none of the accounts" if account else "is missing"
            raise ConfigError(f"[strategies.{name}] account", problem, f"use one of {known}")


def _check_together(settings: Settings) -> None:
    """One account's settings."""
    host = (urlsplit(settings.base_url).hostname or "").rstrip(".")
    mode = settings.named("TORGHUT_TRADING_MODE")
    if settings.trading_mode == "live":
        if not settings.live_trading_enabled:
            raise ConfigError(
                settings.named("TORGHUT_LIVE_TRADING_ENABLED"),
                f"is not true while {mode}=live",
                f"set it to true if real money is meant, or use {mode}=paper",
            )
        if not settings.live_account_number:
            raise ConfigError(
                settings.named("TORGHUT_LIVE_ACCOUNT_NUMBER"),
                f"is missing while {mode}=live",
                "set it to the number of the account that may be traded",
            )
        if settings.broker == "sim":
            raise ConfigError(
                settings.named("TORGHUT_BROKER"), f"is sim while {mode}=live", "set it to alpaca"
            )
    elif host == LIVE_HOST:
        raise ConfigError(
            settings.named("APCA_API_BASE_URL"),
            f"is Alpaca's live host while {mode}=paper",
            f"use https://{PAPER_HOST}",
        )
    if settings.broker == "alpaca":
        for name in ("apca_api_key_id", "apca_api_secret_key"):
            if getattr(settings, name) is None or not getattr(settings, name).get_secret_value():
                raise ConfigError(
                    settings.named(name.upper()),
                    "is missing while TORGHUT_BROKER=alpaca",
                    "set it to your key",
                )


def _check_reach(settings: Settings) -> None:
    open_to_all = not settings.tokens() and not settings.require_token
    if open_to_all and not is_loopback(settings.http_host):
        raise ConfigError(
            "TORGHUT_HTTP_HOST",
            f"is {settings.http_host!r}, which others can reach, while TORGHUT_API_TOKENS is empty",
            "set tokens, or TORGHUT_REQUIRE_TOKEN=true, or use 127.0.0.1",
        )


def _outside_name(name: str) -> str:
    return str(Settings.model_fields[name].validation_alias or f"TORGHUT_{name.upper()}")


def is_loopback(host: str) -> bool:
    """True if nobody but this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
