"""Fixtures of the end-to-end tests: `user`, and the option that plays the thousand decisions.

`pytest tests/end_to_end --thousand` plays the full size; the default run plays 150.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.user import User


def pytest_addoption(parser: pytest.Parser) -> None:
    """Known when this folder is named on the command line, and false otherwise."""
    parser.addoption("--thousand", action="store_true", help="1,000 decisions instead of 150")


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    """How many decisions the large test plays."""
    return 1000 if request.config.getoption("--thousand", default=False) else 150


@pytest.fixture
def user(tmp_path: Path, database_url: str) -> Iterator[User]:
    """A user with a migrated database."""
    user = User(tmp_path, database_url)
    yield user
    user.close()


@pytest.fixture
def new_user(tmp_path: Path, empty_database_url: str) -> Iterator[User]:
    """A user with an empty database."""
    user = User(tmp_path, empty_database_url)
    yield user
    user.close()
