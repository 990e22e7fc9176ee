"""Strategies: facts in, proposed decisions out; no I/O, no clock, no randomness.

- `ma_crossover`: buys when a fast moving average rises above a slow one, sells when it falls below.
- `monthly_rebalance`: brings holdings to target weights at the first session of a month.
- `loading`: finds a strategy by its entry-point name or as `module:Class`.

A strategy is any class with `bars_wanted` and `decide(facts)` (`torghut.ports.Strategy`). It is
made once with its parameters as keyword arguments, and refuses bad ones with `ValueError`. The
same facts must give the same decisions, because a tick that is run again must find its own
decisions instead of making new ones. What varies from run to run (telemetry) must not go into
`params` of a decision: they are part of its identity (docs/identity.md).
"""
