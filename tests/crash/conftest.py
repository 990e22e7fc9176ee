"""A world per test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.crash.answers import BY_NAME, Answer
from tests.crash.world import World

Build = Callable[..., World]


@pytest.fixture
def build(database_url: str, tmp_path: Path) -> Iterator[Build]:
    """Build the test's world for an answer (or its name)."""
    with ExitStack() as stack:

        def enter(answer: Answer | str, **over: Any) -> World:
            known = BY_NAME[answer] if isinstance(answer, str) else answer
            return stack.enter_context(World(database_url, tmp_path, known, **over))

        yield enter
