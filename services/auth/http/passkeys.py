"""The member `webauthn` of Supabase's clients: where a passkey is used, and what the browser gave.

Binary members are base64url (WebAuthn Level 3, RegistrationResponseJSON and AuthenticationResponseJSON). The
bounds are those of the contract's PasskeyResponse and RelyingParty, checked before anything is decoded.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from typing import Any, Final

from services.auth.errors import ValidationFailed
from services.auth.http.bodies import Body
from services.auth.second_factors import PasskeyAnswer
from signgate.auth.v1 import auth_pb2
from signgate.common.v1 import policy_pb2

_bounds: Final = {
    field.name: field.GetOptions().Extensions[policy_pb2.bound]
    for message in (auth_pb2.PasskeyResponse, auth_pb2.RelyingParty)
    for field in message.DESCRIPTOR.fields
}
_text: Final = 512
"""Characters of a list's item in JSON, before the contract's own bound."""

_base64url: Final = re.compile("[A-Za-z0-9_-]*").fullmatch


def party(given: Mapping[str, Any] | None) -> tuple[str, tuple[str, ...]]:
    """The relying party's id and origins, as the client wants them. Raises `ValidationFailed`."""
    body = Body(given or {})
    rp_id = body.text("rpId")
    if len(rp_id.encode()) > _bounds["rp_id"].max_bytes:
        raise ValidationFailed("rpId", f"must have at most {_bounds['rp_id'].max_bytes} bytes")
    return rp_id, _texts(given or {}, "rpOrigins", "origins")


def answer(given: Mapping[str, Any]) -> PasskeyAnswer:
    """What the browser gave. Raises `ValidationFailed`."""
    rp_id, origins = party(given)
    credential = Body(given).mapping("credential_response") or {}
    response = Body(credential).mapping("response") or {}
    if Body(credential).text("type") not in ("", "public-key"):
        raise ValidationFailed("credential_response.type", "must be public-key")
    return PasskeyAnswer(
        ceremony=Body(given).text("type"),
        credential_id=_bytes(credential, "rawId", "credential_id"),
        client_data=_bytes(response, "clientDataJSON", "client_data"),
        attestation=_bytes(response, "attestationObject", "attestation_object"),
        authenticator_data=_bytes(response, "authenticatorData", "authenticator_data"),
        signature=_bytes(response, "signature", "signature"),
        user_handle=_bytes(response, "userHandle", "user_handle"),
        transports=_texts(response, "transports", "transports"),
        rp_id=rp_id,
        origins=origins,
    )


def _bytes(given: Mapping[str, Any], name: str, bound: str) -> bytes:
    """A member in base64url, with or without padding; b"" when absent."""
    text, most = Body(given).text(name), _bounds[bound].max_bytes
    if len(text) > (most + 2) // 3 * 4:
        raise ValidationFailed(name, f"must have at most {most} bytes")
    bare = text.rstrip("=")
    if not _base64url(bare) or len(bare) % 4 == 1:
        raise ValidationFailed(name, "must be base64url")
    found = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    if len(found) > most:
        raise ValidationFailed(name, f"must have at most {most} bytes")
    return found


def _texts(given: Mapping[str, Any], name: str, bound: str) -> tuple[str, ...]:
    value = given.get(name)
    if value is None:
        return ()
    limit = _bounds[bound]
    fits = isinstance(value, list) and len(value) <= limit.max_items
    if not fits or not all(
        isinstance(each, str) and len(each) <= _text and len(each.encode()) <= limit.max_bytes
        for each in value
    ):
        raise ValidationFailed(
            name, f"must be at most {limit.max_items} texts of at most {limit.max_bytes} bytes"
        )
    return tuple(value)
