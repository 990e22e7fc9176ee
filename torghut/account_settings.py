"""The `[accounts.NAME]` tables: what each of several accounts has of its own.

A table's keys come by value, from another variable (`…_env`) or from a file (`…_file`), and are
read when the settings are. Mode, flag and account number are never taken over from anywhere else:
live money needs its three keys in the table of the very account (P10).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEYS = ("apca_api_key_id", "apca_api_secret_key")
OWN = ("trading_mode", "live_trading_enabled", "live_account_number", *KEYS)
"""What a table never takes over from the settings outside of it."""


class AccountTable(BaseModel):
    """One account; what is not set is that of the settings outside, but for OWN."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    broker: Literal["sim", "alpaca"] | None = None
    trading_mode: Literal["paper", "live"] = "paper"
    live_trading_enabled: bool = False
    live_account_number: str | None = None
    trading_enabled: bool = True
    apca_api_key_id: SecretStr | None = None
    apca_api_secret_key: SecretStr | None = None
    apca_api_base_url: str | None = None
    apca_api_data_url: str | None = None
    broker_rate_per_min: int | None = Field(default=None, ge=1, le=1_000_000)
    submit_threads: int | None = Field(default=None, ge=1, le=64)
    session_policy: Literal["send", "hold", "deny"] | None = None
    position_tolerance_qty: Decimal | None = Field(default=None, ge=0)
    cash_tolerance: Decimal | None = Field(default=None, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _references(cls, table: Any) -> Any:
        """Put keys in the place of references to them; says which is wrong, never its value."""
        if not isinstance(table, dict):
            return table
        found = dict(table)
        for key in KEYS:
            references = [name for name in (f"{key}_env", f"{key}_file") if name in found]
            if len(references) + (key in found) > 1:
                raise ValueError(f"{key} is given in more than one way; give one of them")
            for name in references:
                found[key] = _referred(name, found.pop(name))
        return found

    @field_validator("apca_api_base_url", "apca_api_data_url")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        return broker_url(value)

    def settings(self) -> dict[str, Any]:
        """The settings that this account has instead of those outside of its table."""
        given = {name: getattr(self, name) for name in self.model_fields_set}
        taken = {name: value for name, value in given.items() if value is not None}
        return taken | {name: getattr(self, name) for name in OWN}

    def secrets(self) -> Iterator[str]:
        """Texts that must not be shown."""
        for value in (self.apca_api_key_id, self.apca_api_secret_key):
            if value is not None:
                yield value.get_secret_value()


def broker_url(value: str | None) -> str | None:
    """An address as the broker's adapter wants it. Raises ValueError."""
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


def check_tables(tables: Mapping[str, AccountTable]) -> None:
    """Refuse labels that cannot be told apart, and two tables for one account of the broker: each
    would count its own orders alone against the limits, and take the other's for strangers'.

    Raises ValueError.
    """
    _check_labels(tables)
    seen: dict[tuple[object, ...], str] = {}
    for label, table in tables.items():
        own: list[tuple[object, ...]] = []
        if table.apca_api_key_id is not None:
            key = table.apca_api_key_id.get_secret_value()
            own.append(("apca_api_key_id", key, table.apca_api_base_url))
        if table.live_account_number:
            own.append(("live_account_number", table.live_account_number))
        for one in own:
            other = seen.setdefault(one, label)
            if other != label:
                raise ValueError(
                    f"{other} and {label} have the same {one[0]}: one account, one table"
                )


def _check_labels(labels: Iterable[str]) -> None:
    """They must stay apart where case and signs are lost, as in the environment."""
    seen: dict[str, str] = {}
    for label in labels:
        if not LABEL.fullmatch(label):
            raise ValueError(
                f"{label!a} is no label: letters, digits, . _ and -, at most 64, a letter or "
                "digit first"
            )
        other = seen.setdefault(re.sub(r"[.-]", "_", label.lower()), label)
        if other != label:
            raise ValueError(f"{other} and {label} differ in case or signs alone: rename one")


def _referred(name: str, value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} must be a text that is not empty")
    if name.endswith("_env"):
        found = os.environ.get(value, "")
        if not found:
            raise ValueError(f"{name} names a variable that is not set")
        return found
    try:
        found = Path(value).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"{name} names a file that cannot be read ({why})") from None
    if not found:
        raise ValueError(f"{name} names a file that is empty")
    return found
