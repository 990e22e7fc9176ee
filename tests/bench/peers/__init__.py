"""Torghut beside what users would otherwise pick: `python -m tests.bench.peers` (`make bench`).

```
__main__   options, the order of the runs, what is printed and written
peer_env   the peers' own virtual environment, from requirements.txt
contest    one Postgres, a fresh database and a process for each run; interleaved, repeated
entrant    what each program under comparison shares: arguments, clock, CPU, row counts, JSON
work       the work that a decision makes, the same for all: judge, intent, submit, outcome
floor      the least SQL that any program could run for it
on_dbos · on_procrastinate · on_pgqueuer      the same pipeline in the peers
torghut_intake · torghut_bench                Torghut: the library here, the rest from its own bench
goals      the goals and whether they are reached
report     the tables of docs/benchmarks.md
```

floor, on_… and what they import run without Torghut: the peers' environment does not have it.
"""
