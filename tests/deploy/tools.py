"""Programs that the tests of deploy/ need: found, or the test fails and says how to get them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"


def program(name: str) -> str:
    """The path of a program; fails, never skips, when it is missing."""
    found = shutil.which(name)
    assert found, f"{name} is missing: run `make programs` (tests/programs.txt)"
    return found


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
