"""Finding a strategy by name and making it with its parameters.

A reference is the name of an entry point in the group `torghut.strategies` (the bundled ones and
those of any installed package), or `module:Class` for one that is only importable. Everything
that can go wrong is a ConfigError that says what, where and how to mend it: it stops the start.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import cast

from torghut.domain.errors import ConfigError
from torghut.ports import Strategy

GROUP = "torghut.strategies"


def load_strategy(reference: str, params: Mapping[str, object]) -> Strategy:
    """The strategy that `reference` names, made with `params` as keyword arguments.

    Raises ConfigError: unknown name, import error, no `decide`, parameters refused.
    """
    setting = f"strategy {reference!r}"
    target = _imported(reference, setting)
    if not callable(target):
        raise ConfigError(setting, "is not a class", "name a class, as in my_module:MyStrategy")
    if isinstance(target, type):
        _check_decide(target, setting)
    try:
        strategy = target(**params)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{setting} params", str(error), "correct the parameters of this strategy"
        ) from error
    except Exception as error:
        raise ConfigError(
            setting, f"failed to start: {_described(error)}", "mend its constructor"
        ) from error
    _check_decide(strategy, setting)
    wanted = getattr(strategy, "bars_wanted", None)
    if not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 0:
        raise ConfigError(
            setting,
            f"has bars_wanted {wanted!r}",
            "set it to the number of daily bars that decide() needs, 0 for none",
        )
    return cast(Strategy, strategy)


def _imported(reference: str, setting: str) -> object:
    module, colon, attribute = reference.partition(":")
    if not colon:
        return _entry_point(reference, setting)
    if not module or not attribute:
        raise ConfigError(setting, "is incomplete", "write it as module:Class")
    try:
        found = import_module(module)
    except Exception as error:
        raise ConfigError(
            setting,
            f"module {module!r} cannot be imported: {_described(error)}",
            "install it where torghut is installed, or correct the name",
        ) from error
    if not hasattr(found, attribute):
        raise ConfigError(
            setting,
            f"module {module!r} has no {attribute!r}",
            "correct the part after the colon",
        )
    return cast(object, getattr(found, attribute))


def _entry_point(name: str, setting: str) -> object:
    known = entry_points(group=GROUP)
    if name not in known.names:
        names = ", ".join(sorted(known.names)) or "none"
        raise ConfigError(
            setting, "is not a known name", f"use one of: {names}; or write it as module:Class"
        )
    point = next(point for point in known if point.name == name)
    try:
        return cast(object, point.load())
    except Exception as error:
        raise ConfigError(
            setting,
            f"entry point {point.value!r} cannot be imported: {_described(error)}",
            "reinstall the package that provides it",
        ) from error


def _check_decide(thing: object, setting: str) -> None:
    if not callable(getattr(thing, "decide", None)):
        raise ConfigError(
            setting, "has no method decide(facts)", "give it one, see torghut.ports.Strategy"
        )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
