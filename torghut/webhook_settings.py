"""The `[webhooks.…]` tables: who may send alerts, and what each of them stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from torghut.domain.alerts import AlertRule
from torghut.domain.values import parse_symbol

SECRET_LENGTH_MIN = 16


class AlertTable(BaseModel):
    """One `[webhooks.tradingview.alerts.NAME]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    strategy: str = Field(min_length=1, max_length=128)
    type: Literal["market", "limit"] = "market"
    time_in_force: Literal["day", "gtc", "ioc", "fok", "opg", "cls"] = "day"
    extended_hours: bool = False
    symbols: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("symbols")
    @classmethod
    def _symbols(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return {ticker: parse_symbol(symbol) for ticker, symbol in value.items()}

    def rule(self) -> AlertRule:
        """As the domain wants it."""
        return AlertRule(
            strategy=self.strategy,
            order_type=self.type,
            time_in_force=self.time_in_force,
            extended_hours=self.extended_hours,
            symbols=self.symbols,
        )


class TradingView(BaseModel):
    """The `[webhooks.tradingview]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    secret: SecretStr
    max_age_s: float = Field(default=300, gt=0, le=86_400)
    alerts: Mapping[str, AlertTable] = Field(default_factory=dict)

    @field_validator("secret")
    @classmethod
    def _secret(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if len(text) < SECRET_LENGTH_MIN or not (text.isascii() and text.isprintable()):
            raise ValueError(f"must be {SECRET_LENGTH_MIN} or more printable ASCII characters")
        return value

    def rules(self) -> dict[str, AlertRule]:
        """What each alert stands for."""
        return {name: table.rule() for name, table in self.alerts.items()}


class Webhooks(BaseModel):
    """The `[webhooks]` table."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tradingview: TradingView | None = None

    def secrets(self) -> Iterator[str]:
        """Texts that must not be shown."""
        if self.tradingview is not None:
            yield self.tradingview.secret.get_secret_value()
