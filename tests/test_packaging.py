"""The wheel holds all that runs without the repository: what `pip install torghut` gives."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

FIND_MIGRATIONS = """
import torghut
from torghut.storage.migrate import _location, _scripts, upgrade
print(torghut.__file__)
print(_location())
print(_scripts().get_current_head())
"""


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the repository as it stands."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--no-cache-dir", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("torghut-*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    """All modules, and what they read: migrations with their SQL, bars, the typing marker."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "torghut").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    } | {
        "torghut/" + path.relative_to(ROOT).as_posix()
        for path in (ROOT / "migrations").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    for needed in ("py.typed", "data/daily-bars.csv", "migrations/env.py"):
        assert f"torghut/{needed}" in wanted
    assert any(name.startswith("torghut/migrations/versions/") for name in wanted)
    assert any(name.startswith("torghut/migrations/sql/") for name in wanted)
    assert wanted - inside == set()


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    """No tests, no local files, no bytecode."""
    inside = zipfile.ZipFile(wheel).namelist()
    assert [n for n in inside if not n.startswith(("torghut/", "torghut-"))] == []
    assert [n for n in inside if n.endswith(".pyc") or "/tests/" in n] == []


def test_the_wheel_has_its_licence_and_its_command(wheel: Path) -> None:
    """Licence, console script and strategies are in the metadata."""
    archive = zipfile.ZipFile(wheel)
    (licence,) = (n for n in archive.namelist() if n.endswith("licenses/LICENSE"))
    (points,) = (n for n in archive.namelist() if n.endswith("entry_points.txt"))
    assert b"MIT" in archive.read(licence)
    assert "torghut = torghut.cli:main" in archive.read(points).decode()


def test_the_installed_package_finds_its_migrations(wheel: Path, tmp_path: Path) -> None:
    """`torghut migrate` works from pip install, with the repository nowhere on the path."""
    target = tmp_path / "installed here"
    pip = (sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index")
    run(*pip, "--target", target, wheel, cwd=tmp_path)
    # before the path of an editable installation, which names the repository
    printed = run(sys.executable, "-c", FIND_MIGRATIONS, cwd=tmp_path, PYTHONPATH=str(target))
    package, location, head = printed.splitlines()
    assert Path(package) == target / "torghut" / "__init__.py"
    assert Path(location) == target / "torghut" / "migrations"
    newest = max((ROOT / "migrations" / "versions").glob("*.py")).stem
    assert newest.startswith(head)
