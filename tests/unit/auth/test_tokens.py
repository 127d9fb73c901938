"""Access tokens, whatever an account has written into it."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from typing import Any
from uuid import UUID

import jwt
import pytest

from servicekit import headers, keyset
from servicekit.clock import SystemClock, SystemIds
from servicekit.keyset import KeySetFile
from services.auth.domain import METADATA_LIMIT, Session, User
from services.auth.errors import ValidationFailed
from services.auth.service.kit import metadata
from services.auth.tokens import MAX_AMR, AccessTokens

NOW = datetime(2026, 12, 1, tzinfo=UTC)
PLATFORM = {"provider": "email", "providers": ["email"], "tier": "free"}
LETTERS = ["a", "é", "д", "語", "😀", '"', "\\", "\n", "\x01"]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> AccessTokens:
    path = tmp_path_factory.mktemp("keys") / "jwt.json"
    assert keyset.main(["new", "--alg", "ES256", "--out", str(path)]) == 0
    clock = SystemClock()
    return AccessTokens(
        KeySetFile(path, clock),
        clock,
        SystemIds(),
        issuer="https://" + "i" * 200 + ".test/auth/v1",
        audience="authenticated",
        ttl=3600,
    )


def claims(tokens: AccessTokens, amr: int = 1, **members: Any) -> dict[str, Any]:
    """The claims of a token, whose length is within the bound."""
    user = User(UUID(int=1), "x" * 60 + "@" + ("d" * 60 + ".") * 3 + "test", NOW, NOW, **members)
    session = Session(UUID(int=2), UUID(int=1), NOW, amr=tuple((f"method{n}", n) for n in range(amr)))
    token, _ = tokens.for_session(user, session)
    assert len(token) <= headers.TOKEN
    found: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    assert found["sub"] == str(user.id)
    assert found["email"] == user.email
    return found


def most(letter: str) -> dict[str, str]:
    """As much of a letter as an account may have."""
    low, high = 0, METADATA_LIMIT
    while low < high:
        middle = (low + high + 1) // 2
        try:
            metadata({"x": letter * middle})
            low = middle
        except ValidationFailed:
            high = middle - 1
    return {"x": letter * low}


@pytest.mark.parametrize("letter", LETTERS)
def test_a_token_is_short_whatever_users_and_administrators_wrote(tokens: AccessTokens, letter: str) -> None:
    """S13."""
    much = most(letter)
    found = claims(tokens, user_metadata=much, app_metadata=much)
    assert found["user_metadata"] == {}
    assert found["app_metadata"] == PLATFORM
    assert found["metadata_omitted"] == ["app_metadata", "user_metadata"]


@pytest.mark.parametrize("letter", LETTERS)
def test_every_length_of_metadata_gives_a_short_token_with_all_of_it_or_none(
    tokens: AccessTokens, letter: str
) -> None:
    for length in range(0, 3000, 37):
        wrote = {"x": letter * length}
        found = claims(tokens, user_metadata=wrote)
        whole = found["user_metadata"] == wrote
        assert whole == ("metadata_omitted" not in found)
        if not whole:
            assert (found["user_metadata"], found["metadata_omitted"]) == ({}, ["user_metadata"])


def test_what_fits_is_in_the_token_in_any_language(tokens: AccessTokens) -> None:
    wrote = {"name": "語" * 500}  # 1,500 bytes; escaped they would be 3,000
    found = claims(tokens, user_metadata=wrote, app_metadata={"team": "д" * 50})
    assert found["user_metadata"] == wrote
    assert found["app_metadata"] == PLATFORM | {"team": "д" * 50}
    assert "metadata_omitted" not in found


@pytest.mark.parametrize(("own", "team"), list(product((0, 1000, 16_000), (0, 1500))))
def test_a_user_can_not_push_out_what_an_administrator_wrote(
    tokens: AccessTokens, own: int, team: int
) -> None:
    found = claims(tokens, user_metadata={"x": "a" * own}, app_metadata={"team": "b" * team})
    assert found["app_metadata"] == PLATFORM | {"team": "b" * team}
    assert found.get("metadata_omitted", []) in ([], ["user_metadata"])


def test_what_an_administrator_wrote_does_not_push_out_what_fits_without_it(tokens: AccessTokens) -> None:
    found = claims(tokens, user_metadata={"name": "Ann"}, app_metadata={"x": "b" * 9000, "tier": "gold"})
    assert found["user_metadata"] == {"name": "Ann"}
    assert found["app_metadata"] == PLATFORM
    assert found["metadata_omitted"] == ["app_metadata"]


def test_the_newest_proofs_are_told_and_no_more_than_so_many(tokens: AccessTokens) -> None:
    found = claims(tokens, amr=1000)
    assert [each["method"] for each in found["amr"]] == [f"method{n}" for n in range(MAX_AMR)]
