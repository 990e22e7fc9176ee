"""Fixtures of the deployment tests."""

from __future__ import annotations

from tests.end_to_end.conftest import new_user, user

__all__ = ["new_user", "user"]
