"""The `[strategies.NAME]` tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from torghut.domain.values import parse_symbol


class StrategyConfig(BaseModel):
    """One `[strategies.NAME]` table: which plug-in runs when, on what."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    plugin: str = Field(alias="class")
    schedule: str  # five cron fields, America/New_York
    symbols: tuple[str, ...]
    params: Mapping[str, Any] = Field(default_factory=dict)
    missed_ticks: Literal["run_once", "skip"] = "run_once"
    account: str | None = None

    @field_validator("symbols")
    @classmethod
    def _symbols(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise ValueError("needs at least one symbol")
        return tuple(parse_symbol(symbol) for symbol in value)
