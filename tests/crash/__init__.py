"""Power failure at every named instant, for every answer of the broker.

```
test process                                fork server (warm: everything is imported)
  World: database · simulator · Door           └▶ daemon #1 ──SIGKILL at a recovery point
    └▶ play: send, kill, restart, tend, wait      daemon #2 ──… until nothing is open
         └▶ books.faults: two books, compared     (mutations.py: what a control takes away)
```

| module | what is in it |
|---|---|
| `answers` | the submission table as faults of the simulator, and what each must end in |
| `cases` | points × answers, the prefix that leads to a point, the sample of the default run |
| `processes` | the fork server and its children: a daemon, `torghut submit` |
| `mutations` | named protections that a control removes in a child |
| `system_calls` | the trap at a thread's n-th system call (strace), for `test_system_calls` |
| `world`, `books` | one case being played; everything that must hold at its end |

`CRASH_MATRIX=full` plays every point with every answer; the default run is a fixed sample.
"""
