"""`torghut --help` must be fast: the command line loads nothing heavy before a command runs."""

from __future__ import annotations

import json
import subprocess
import sys

FORBIDDEN = (
    "sqlalchemy",
    "psycopg",
    "pandas",
    "numpy",
    "alpaca",
    "pydantic",
    "fastapi",
    "requests",
)

SCRIPT = """
import json, sys
import typer
import torghut.cli_reads
app = typer.Typer()
torghut.cli_reads.register(app, lambda: None)
try:
    app(["--help"])
except SystemExit:
    pass
print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert "typer" in loaded
    assert not loaded.intersection(FORBIDDEN)
    for command in ("decisions", "executions", "fills", "positions", "explain", "status"):
        assert command in done.stdout
