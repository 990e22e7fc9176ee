"""Whole processes, real servers, and what happens to them while they work (stories 41-53).

| module | what is in it |
|---|---|
| `cluster` | PostgreSQL servers to crash, freeze, replicate and promote |
| `proxy` | the network's faults, before Postgres or the broker |
| `test_database_faults` | one fault at a time, at the transaction |
| `test_daemon_silence` | a daemon before a silent database |

`CHAOS=full` (`make chaos`) plays the whole sizes; the default run is a sample.
"""

import os

FULL = os.environ.get("CHAOS") == "full"
