"""The kinds of second factors, as the tables hold them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

if TYPE_CHECKING:
    from db.tests.support import Connection, User

CREDENTIAL = "INSERT INTO auth.mfa_factors (user_id, factor_type, status, credential_id, public_key) VALUES"


@pytest.mark.parametrize(
    "columns",
    [
        "(factor_type) VALUES ('phone')",
        "(factor_type) VALUES ('totp')",
        "(factor_type, secret, credential_id, public_key) VALUES ('totp', 'x', 'c', 'k')",
        "(factor_type, secret) VALUES ('webauthn', 'x')",
        "(factor_type, status) VALUES ('webauthn', 'verified')",
        "(factor_type, status, credential_id) VALUES ('webauthn', 'verified', 'c')",
        "(factor_type, credential_id, public_key) VALUES ('webauthn', 'c', 'k')",
    ],
)
async def test_a_factor_has_what_its_kind_needs_and_no_more(
    admin: Connection, alice: User, columns: str
) -> None:
    columns = columns.replace("(factor_type", "(user_id, factor_type").replace("VALUES (", "VALUES ($1, ")
    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute(f"INSERT INTO auth.mfa_factors {columns}", alice.id)


async def test_a_credential_belongs_to_one_account(admin: Connection, alice: User, bob: User) -> None:
    await admin.execute("INSERT INTO auth.mfa_factors (user_id, factor_type) VALUES ($1, 'webauthn')", bob.id)
    await admin.execute(f"{CREDENTIAL} ($1, 'webauthn', 'verified', 'c', 'k')", alice.id)
    with pytest.raises(asyncpg.UniqueViolationError):
        await admin.execute(f"{CREDENTIAL} ($1, 'webauthn', 'verified', 'c', 'other')", bob.id)
