"""Whole processes, real servers, and what happens to them while they work (stories 41-53).

| module | what is in it |
|---|---|
| `cluster` | PostgreSQL servers to crash, freeze, replicate and promote |
| `proxy` | the network's faults, before Postgres or the broker |
| `test_database_faults` | one fault at a time, at the transaction |
| `test_daemon_silence` | a daemon before a silent database |
| `load` | a sender that repeats itself until it is answered, and the check afterwards |
| `test_postgres_killed` | kill -9 for Postgres every 0.5 to 2 s under load |
| `test_failover` | the synchronous stand-by is promoted under load |
| `test_replicas` | replicas on one account; take-over |
| `test_rolling_restart` | three replicas, each replaced under load |
| `test_restored_backup` | the restore drill of docs/backup.md |
| `test_broker_network` | the network before the broker |

`CHAOS=full` (`make chaos`) plays the whole sizes; the default run is a sample.
"""

import os

FULL = os.environ.get("CHAOS") == "full"
