"""Servers that tests may break, and folders that their account can walk into."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cluster import Node
from torghut.storage import migrate


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the server's account can reach: pytest's own is closed to others."""
    path = Path(tempfile.mkdtemp(prefix="torghut-chaos-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def node(folder: Path) -> Iterator[Node]:
    """A server of the test's own, migrated."""
    with Node(folder, "node") as server:
        migrate.upgrade(server.url)
        yield server
