"""The keys service's own callers: their API keys are validated in this process, by the same rules."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from servicekit.authn import Credential
from servicekit.errors import Unauthenticated
from servicekit.principal import Principal
from services.keys.domain import Refused
from services.keys.narrowing import KeyPrincipal
from services.keys.validation import Validator


class LocalKeys:
    """See `servicekit.authn.KeyValidator`."""

    def __init__(self, validator: Validator) -> None:
        self._validator = validator

    async def validate(self, credential: Credential) -> Principal:
        """The principal of a key or a token that one minted. Raises `Unauthenticated`, `Unavailable`."""
        (answer,) = await self._validator.validate([(credential.secret, credential.client_ip)])
        if isinstance(answer, Refused):
            return self._refused(answer)
        end = answer.expires_at
        return KeyPrincipal(
            user_id=UUID(answer.user_id),
            scopes=frozenset(answer.scopes),
            tier=answer.tier,
            api_key_id=UUID(answer.key_id),
            ends_at=None if end is None else datetime.fromtimestamp(end, UTC),
            derived=answer.derived,
        )

    def _refused(self, answer: Refused) -> Principal:
        raise Unauthenticated(answer.message, reason=answer.reason)


class ProvenKeys(LocalKeys):
    """Takes every key whose secret is proven, although it may be refused: revoked, expired, used from a
    network that it does not allow, or of an account that is not active. A token must not have expired. For
    `RevokeSelf` alone, which takes power away; a key that is refused has no scopes.
    """

    def _refused(self, answer: Refused) -> Principal:
        # Ids stand in a refusal only where the secret is proven.
        if not answer.key_id:
            return super()._refused(answer)
        return KeyPrincipal(user_id=UUID(answer.user_id), scopes=frozenset(), api_key_id=UUID(answer.key_id))
