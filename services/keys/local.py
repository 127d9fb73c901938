"""The keys service's own callers: their API keys are validated in this process, by the same rules."""

from __future__ import annotations

from uuid import UUID

from servicekit.authn import Credential
from servicekit.errors import Unauthenticated
from servicekit.principal import Principal
from services.keys.domain import Refused
from services.keys.validation import Validator


class LocalKeys:
    """See `servicekit.authn.KeyValidator`."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    async def validate(self, credential: Credential) -> Principal:
        """The principal of a key or a token that one minted. Raises `Unauthenticated`, `Unavailable`."""
        (answer,) = await self._validator.validate([(credential.secret, credential.client_ip)])
        if isinstance(answer, Refused):
            raise Unauthenticated(answer.message, reason=answer.reason)
        return Principal(
            user_id=UUID(answer.user_id),
            scopes=frozenset(answer.scopes),
            tier=answer.tier,
            api_key_id=UUID(answer.key_id),
        )
