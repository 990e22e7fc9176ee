"""The submission protocol as a Promela model, checked by Spin (docs/protocol.md).

| file | what is in it |
|---|---|
| `protocol.pml` | the model; its properties are assertions that name their promise |
| `checker` | runs Spin: one search of all states, or the tables that the model decides by |
| `test_model` | the model holds, each control breaks it, and it decides as the code does |

`MODEL=full` (`make model`) searches everything that docs/protocol.md gives figures of; the default
run is a sample.
"""

import os

FULL = os.environ.get("MODEL") == "full"
"""Whether to search with the whole bounds."""
