"""What pydantic says about the settings, in the words that a person mends them by."""

from __future__ import annotations

import os

from pydantic import ValidationError

from torghut.domain.errors import ConfigError


def config_error(error: ValidationError) -> ConfigError:
    """The first fault, by the outside name of its setting; never the value."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = [str(part) for part in first["loc"]]
    head = place[0].upper() if place else "settings"
    setting = head if head.startswith("APCA_") else "TORGHUT_" + "__".join(p.upper() for p in place)
    if place and place[0] == "strategies" and len(place) > 1:
        setting = "[" + ".".join(place[:2]) + "] " + ".".join(place[2:])
    if place and place[0] == "webhooks" and len(place) > 1:
        setting = "[" + ".".join(place[:-1]) + "] " + place[-1]
    if place and place[0] == "accounts" and len(place) > 1:
        setting = _account_setting(place[1], place[2:])
    if place and place[0] in _PLACES and len(place) > 1:
        return _place_error(place[0], place[1], place[-1], first["type"], first["msg"])
    problem = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return ConfigError(setting, "is not a known setting", "see the table in README")
    return ConfigError(setting, problem[0].lower() + problem[1:], "see the table in README")


def _account_setting(label: str, field: list[str]) -> str:
    """The variable, where it was one, else the place in the file."""
    variable = "__".join(["TORGHUT_ACCOUNTS", label, *field]).upper()
    if variable in os.environ:
        return variable
    return " ".join([f"[accounts.{label}]", *field])


_PLACES = {
    "sinks": ("sink", "log, notify, webhook, redis, nats or rabbitmq", "docs/outbox.md"),
    "intakes": ("stream", "redis or nats", "docs/inbox.md"),
}
"""Tables of places outside: what one is, its kinds, and where they are documented."""


def _place_error(table: str, name: str, field: str, fault: str, said: str) -> ConfigError:
    what, kinds, document = _PLACES[table]
    setting = f"[{table}.{name}] {field}"
    mend = f"see {document}"
    if field == "[key]":
        problem = f"is no name for a {what}: lower-case letters, digits, - and _"
        return ConfigError(f"[{table}.{name}]", problem, mend)
    if fault.startswith("union_tag"):
        missing = fault == "union_tag_not_found"
        problem = "is missing" if missing else f"is no kind of {what}"
        return ConfigError(f"[{table}.{name}] kind", problem, f"set it to {kinds}")
    if fault == "extra_forbidden":
        return ConfigError(setting, "is not a known setting of this kind", mend)
    problem = "is missing" if fault == "missing" else said.removeprefix("Value error, ")
    return ConfigError(setting, problem[0].lower() + problem[1:], mend)
