"""`torghut bench`: how fast this machine is with Torghut, in a database of its own.

```
grounds      a fresh directory, database and daemon; the broker inside the process, or the simulator
  ├─ intake     decisions by the library, by HTTP, from a file; duplicates
  ├─ path       decision → verdict → null broker → books; latency; over the wire against a bare loop
  └─ reading    lists, the relay, memory
report       figures as a table or as JSON
```

Rates are by the clock, costs by the processor time of this process and of its Postgres: the first
say what a user sees on this machine now, the second hardly change on a busy one.
"""
