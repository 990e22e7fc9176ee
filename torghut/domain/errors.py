"""Errors, classed by what the caller does next.

```
TorghutError            a person can act on the message        exit 1
├─ ConfigError          a setting is wrong: mend it, restart   exit 78
├─ InvalidDecision      the sender's input, every fault named  never retried as it is
├─ BrokerUnavailable    transient: the same question later
├─ BrokerRefused        definite: keys or account, a person acts
├─ DatabaseUnavailable  transient: nothing was learned about a commit
└─ NotDurable           the commit may be lost: do not act on it
```

What a broker said to a *submission* is never an exception: it is an
`Outcome` (torghut.ports), because ambiguity is a status (P4).
"""

from __future__ import annotations

from dataclasses import dataclass

EXIT_FAILED = 1
EXIT_CONFIG = 78


class TorghutError(Exception):
    """Base of everything this project raises on purpose; the text is for a person."""

    exit_code = EXIT_FAILED


class ConfigError(TorghutError):
    """A setting stops the start.

    `setting` is its outside name, `problem` what is wrong with the value, `mend` what to do.
    The value itself is shown only by callers that know it is no secret.
    """

    exit_code = EXIT_CONFIG

    def __init__(self, setting: str, problem: str, mend: str) -> None:
        super().__init__(f"{setting}: {problem}; {mend}")
        self.setting = setting
        self.problem = problem
        self.mend = mend


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with an input: the field's path and the problem with it."""

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field}: {self.problem}" if self.field else self.problem


class InvalidDecision(TorghutError):
    """The input is no decision. `faults` names every fault found, not just the first."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("; ".join(str(fault) for fault in faults))
        self.faults = faults


class BrokerUnavailable(TorghutError):
    """The broker did not answer a *question* usably (timeout, reset, 5xx, unreadable body)."""


class BrokerRefused(TorghutError):
    """The broker answered a question with a refusal of the keys or of the account."""


class DatabaseUnavailable(TorghutError):
    """Postgres cannot be reached or broke off; a commit under way is in doubt."""


class NotDurable(TorghutError):
    """Postgres reported a commit that is not on every promised disk: do not submit on it."""
