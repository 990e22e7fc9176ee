"""Settings: environment, then the TOML file named by TORGHUT_CONFIG, then defaults.

`load()` reads them all, checks them together and raises ConfigError (exit 78) with the setting's
outside name. Secrets are `SecretStr`: they print as asterisks everywhere.

Live money needs three keys (P10): TORGHUT_TRADING_MODE=live, TORGHUT_LIVE_TRADING_ENABLED=true
and TORGHUT_LIVE_ACCOUNT_NUMBER, which is compared with the broker's own answer before anything
is sent (torghut.services.supervisor). Paper mode refuses the live host.
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

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from torghut.domain.access import Credential, setting_credential
from torghut.domain.discrepancies import DiscrepancyKind
from torghut.domain.errors import ConfigError
from torghut.domain.risk_policy import RiskPolicy
from torghut.domain.values import parse_symbol
from torghut.sink_settings import Sinks
from torghut.webhook_settings import Webhooks

PAPER_HOST = "paper-api.alpaca.markets"
LIVE_HOST = "api.alpaca.markets"
DATA_URL = "https://data.alpaca.markets"

_KUBERNETES = ("TORGHUT_SERVICE_", "TORGHUT_PORT")
# set in every container beside a Service that is named torghut


class StrategyConfig(BaseModel):
    """One `[strategies.NAME]` table: which plug-in runs when, on what."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    plugin: str = Field(alias="class")
    schedule: str  # five cron fields, America/New_York
    symbols: tuple[str, ...]
    params: Mapping[str, Any] = Field(default_factory=dict)
    missed_ticks: Literal["run_once", "skip"] = "run_once"

    @field_validator("symbols")
    @classmethod
    def _symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("needs at least one symbol")
        return tuple(parse_symbol(symbol) for symbol in value)


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
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http or https URL")
        if value.endswith("/") or parts.path.rstrip("/").endswith("/v2"):
            raise ValueError("must have no trailing slash and no /v2 at its end")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("must have no user, query or fragment")
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
        raise _config_error(error) from None
    _check_together(settings)
    risk_policy(settings)
    return settings


def check_live_keys(settings: Settings, account_number: str) -> None:
    """The third key, at the broker: live money only on the account it is meant for (P10)."""
    if settings.trading_mode != "live":
        return
    if account_number != settings.live_account_number:
        raise ConfigError(
            "TORGHUT_LIVE_ACCOUNT_NUMBER",
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
            if name.startswith(("TORGHUT_RISK__", "TORGHUT_WEBHOOKS__", *_KUBERNETES)):
                continue
            raise ConfigError(
                name, "is not a known setting", "see the table in README, or unset it"
            )


def _check_together(settings: Settings) -> None:
    host = (urlsplit(settings.base_url).hostname or "").rstrip(".")
    if settings.trading_mode == "live":
        if not settings.live_trading_enabled:
            raise ConfigError(
                "TORGHUT_LIVE_TRADING_ENABLED",
                "is not true while TORGHUT_TRADING_MODE=live",
                "set it to true if real money is meant, or use TORGHUT_TRADING_MODE=paper",
            )
        if not settings.live_account_number:
            raise ConfigError(
                "TORGHUT_LIVE_ACCOUNT_NUMBER",
                "is missing while TORGHUT_TRADING_MODE=live",
                "set it to the number of the account that may be traded",
            )
        if settings.broker == "sim":
            raise ConfigError(
                "TORGHUT_BROKER", "is sim while TORGHUT_TRADING_MODE=live", "set it to alpaca"
            )
    elif host == LIVE_HOST:
        raise ConfigError(
            "APCA_API_BASE_URL",
            "is Alpaca's live host while TORGHUT_TRADING_MODE=paper",
            f"use https://{PAPER_HOST}",
        )
    if settings.broker == "alpaca":
        for name in ("apca_api_key_id", "apca_api_secret_key"):
            if getattr(settings, name) is None or not getattr(settings, name).get_secret_value():
                raise ConfigError(
                    name.upper(), "is missing while TORGHUT_BROKER=alpaca", "set it to your key"
                )
    open_to_all = not settings.tokens() and not settings.require_token
    if open_to_all and not is_loopback(settings.http_host):
        raise ConfigError(
            "TORGHUT_HTTP_HOST",
            f"is {settings.http_host!r}, which others can reach, while TORGHUT_API_TOKENS is empty",
            "set tokens, or TORGHUT_REQUIRE_TOKEN=true, or use 127.0.0.1",
        )


def is_loopback(host: str) -> bool:
    """True if nobody but this machine reaches the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _config_error(error: ValidationError) -> ConfigError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    head = place[0].upper() if place else "settings"
    setting = head if head.startswith("APCA_") else "TORGHUT_" + "__".join(p.upper() for p in place)
    if place and place[0] == "strategies" and len(place) > 1:
        setting = "[" + ".".join(place[:2]) + "] " + ".".join(place[2:])
    if place and place[0] == "webhooks" and len(place) > 1:
        setting = "[" + ".".join(place[:-1]) + "] " + place[-1]
    if place and place[0] == "sinks" and len(place) > 1:
        return _sink_error(place[1], place[-1], first["type"], first["msg"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return ConfigError(setting, "is not a known setting", "see the table in README")
    return ConfigError(setting, problem[0].lower() + problem[1:], "see the table in README")


def _sink_error(name: str, field: str, fault: str, said: str) -> ConfigError:
    setting = f"[sinks.{name}] {field}"
    mend = "see docs/outbox.md"
    if field == "[key]":
        problem = "is no name for a sink: lower-case letters, digits, - and _"
        return ConfigError(f"[sinks.{name}]", problem, mend)
    if fault.startswith("union_tag"):
        missing = fault == "union_tag_not_found"
        problem = "is missing" if missing else "is no kind of sink"
        kinds = "log, notify, webhook, redis, nats or rabbitmq"
        return ConfigError(f"[sinks.{name}] kind", problem, f"set it to {kinds}")
    if fault == "extra_forbidden":
        return ConfigError(setting, "is not a known setting of this kind", mend)
    problem = "is missing" if fault == "missing" else said.removeprefix("Value error, ")
    return ConfigError(setting, problem[0].lower() + problem[1:], mend)
