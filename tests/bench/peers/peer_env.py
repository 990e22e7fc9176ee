"""The peers' own virtual environment, `build/peers`: never the product's.

Made by the run that needs it, from the pins and hashes of requirements.txt; where packages come
from is the installer's own setting. A marker, written last, says what was installed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
FOLDER = ROOT / "build" / "peers"


def python() -> Path:
    """The environment's interpreter, after installing what is missing."""
    interpreter, marker = FOLDER / "bin" / "python", FOLDER / ".ready"
    wanted = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest() + sys.version
    if interpreter.exists() and marker.exists() and marker.read_text("utf-8") == wanted:
        return interpreter
    print(f"installing the peers into {FOLDER.relative_to(ROOT)}", file=sys.stderr)
    venv.create(FOLDER, clear=True, with_pip=True)
    command = [interpreter, "-m", "pip", "install", "--quiet", "--no-input"]
    subprocess.run(
        [*command, "--disable-pip-version-check", "--require-hashes", "-r", REQUIREMENTS],
        check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )
    marker.write_text(wanted, "utf-8")
    return interpreter


def pinned(package: str) -> str:
    """The version of a package that is compared."""
    for line in REQUIREMENTS.read_text("utf-8").splitlines():
        name, _, version = line.partition("==")
        if name == package:
            return version.split()[0]
    raise LookupError(f"{package} is not in {REQUIREMENTS.name}")
