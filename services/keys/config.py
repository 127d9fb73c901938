"""The keys service's settings."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from servicekit.trust import TokenSettings
from services.keys.peppers import Keyring


class KeysSettings(TokenSettings):
    """What the keys service is told. Times are seconds.

    `key_pepper`: base64 of 32 random bytes or more, which is version 1; or versions with commas
    between them, `1:<base64>,2:<base64>`, of which the highest hashes new keys. It must never be
    lost: no key can be checked without the pepper that it was hashed under.
    `soft_age`: a record older than that is read again before it is used; the longest that a
    revocation can go unseen while PostgreSQL answers and every message is lost.
    `hard_age`: how old a record may grow while PostgreSQL can't be read.
    `auth_addr`: where owners' mails about their keys are sent from; without it there are none.
    `engines`: engines that a key may be bound to: the same as the signer's.
    """

    postgres_dsn: SecretStr
    redis_url: SecretStr
    key_pepper: SecretStr
    auth_addr: str | None = None
    soft_age: Annotated[float, Field(gt=0, le=1)] = 0.15
    hard_age: Annotated[float, Field(gt=0, le=60)] = 5.0
    record_cache: Annotated[int, Field(ge=1000)] = 100_000
    key_limit: Annotated[int, Field(ge=1, le=10_000)] = 50
    engines: tuple[str, ...] = ("native",)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.soft_age > self.hard_age:
            raise ValueError("soft_age must not exceed hard_age")
        self.keyring()
        return self

    def keyring(self) -> Keyring:
        """The peppers by version. Raises `ValueError`, telling no value."""
        text = self.key_pepper.get_secret_value()
        return Keyring.parse(text if ":" in text else f"1:{text}")
