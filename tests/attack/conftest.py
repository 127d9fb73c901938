"""Accounts as end-to-end tests make them."""

from tests.e2e.conftest import new_account

__all__ = ["new_account"]
