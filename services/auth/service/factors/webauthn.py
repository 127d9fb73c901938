"""Passkeys as second factors (WebAuthn Level 2), verified by the library `webauthn`.

The password or the mailed code before it is the first factor, so a passkey has to prove possession: the
user's presence is required, user verification (a PIN, a fingerprint) is preferred and not required. No
attestation is asked for: who made the authenticator decides nothing here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from webauthn import (
    generate_authentication_options,
    generate_registration_options,
    verify_authentication_response,
    verify_registration_response,
)
from webauthn.helpers import (
    bytes_to_base64url,
    decode_credential_public_key,
    options_to_json_dict,
    parse_attestation_object,
    parse_client_data_json,
)
from webauthn.helpers.cose import COSEAlgorithmIdentifier
from webauthn.helpers.decoded_public_key_to_cryptography import decoded_public_key_to_cryptography
from webauthn.helpers.structs import (
    AttestationFormat,
    AuthenticationCredential,
    AuthenticatorAssertionResponse,
    AuthenticatorAttestationResponse,
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    PublicKeyCredentialDescriptor,
    RegistrationCredential,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from services.auth.domain import Json, User
from services.auth.party import RelyingParty
from services.auth.second_factors import Passkey, PasskeyAnswer

Ceremony = Literal["create", "request"]
ALGORITHMS: Final = [
    COSEAlgorithmIdentifier.ECDSA_SHA_256,
    COSEAlgorithmIdentifier.EDDSA,
    COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256,
]
FORMATS: Final = (AttestationFormat.NONE, AttestationFormat.PACKED)
"""Attestations that are taken: the others are chains of certificates that were not asked for."""
_rsa_bits: Final = range(2048, 4097)
_transports: Final = frozenset(each.value for each in AuthenticatorTransport)


class PasskeyRefused(Exception):  # an answer, not a fault
    """The response does not hold; why is in `__cause__` and is not told."""


class PasskeyCopied(PasskeyRefused):
    """The signature is right and its counter is not ahead: perhaps a copy of the authenticator."""


def creation(
    party: RelyingParty, name: str, user: User, challenge: bytes, milliseconds: int, known: Sequence[Passkey]
) -> Json:
    """The options for `navigator.credentials.create`, as JSON. The browser refuses `known` authenticators."""
    options = generate_registration_options(
        rp_id=party.id,
        rp_name=name,
        user_id=user.id.bytes,
        user_name=user.email,
        challenge=challenge,
        timeout=milliseconds,
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.DISCOURAGED,
            user_verification=UserVerificationRequirement.PREFERRED,
        ),
        exclude_credentials=_described(known),
        supported_pub_key_algs=ALGORITHMS,
        hints=[],
    )
    return options_to_json_dict(options)


def request(party: RelyingParty, passkey: Passkey, challenge: bytes, milliseconds: int) -> Json:
    """The options for `navigator.credentials.get`, as JSON."""
    options = generate_authentication_options(
        rp_id=party.id,
        challenge=challenge,
        timeout=milliseconds,
        allow_credentials=_described([passkey]),
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return options_to_json_dict(options)


def created(party: RelyingParty, answer: PasskeyAnswer, challenge: bytes) -> Passkey:
    """The new credential. Raises `PasskeyRefused`."""
    try:
        _framed(answer)
        if parse_attestation_object(answer.attestation).fmt not in FORMATS:
            raise PasskeyRefused("the attestation's format is not taken")
        verified = verify_registration_response(
            credential=RegistrationCredential(
                id=bytes_to_base64url(answer.credential_id),
                raw_id=answer.credential_id,
                response=AuthenticatorAttestationResponse(answer.client_data, answer.attestation),
            ),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
            supported_pub_key_algs=ALGORITHMS,
        )
        if verified.credential_id != answer.credential_id:
            raise PasskeyRefused("the credential's id is not the attested one")
        _usable(verified.credential_public_key)
    except PasskeyRefused:
        raise
    except Exception as error:  # the library has many errors for bytes that a caller made up
        raise PasskeyRefused from error
    return Passkey(
        credential_id=verified.credential_id,
        public_key=verified.credential_public_key,
        sign_count=verified.sign_count,
        transports=tuple(sorted(_transports.intersection(answer.transports))),
    )


def signed(
    party: RelyingParty, answer: PasskeyAnswer, challenge: bytes, passkey: Passkey, user_id: UUID
) -> int:
    """The authenticator's counter after this signature. Raises `PasskeyRefused`, `PasskeyCopied`."""
    try:
        _framed(answer)
        if answer.credential_id != passkey.credential_id:
            raise PasskeyRefused("another credential")
        if answer.user_handle not in (b"", user_id.bytes):
            raise PasskeyRefused("another user's credential")
        verified = verify_authentication_response(
            credential=AuthenticationCredential(
                id=bytes_to_base64url(answer.credential_id),
                raw_id=answer.credential_id,
                response=AuthenticatorAssertionResponse(
                    answer.client_data, answer.authenticator_data, answer.signature
                ),
            ),
            expected_challenge=challenge,
            expected_rp_id=party.id,
            expected_origin=list(party.origins),
            credential_public_key=passkey.public_key,
            credential_current_sign_count=0,  # compared below, once the signature is known to be right
        )
    except PasskeyRefused:
        raise
    except Exception as error:  # as above
        raise PasskeyRefused from error
    count = verified.new_sign_count
    # Zero on both sides: an authenticator that does not count, as passkeys that are synchronised.
    if (count or passkey.sign_count) and count <= passkey.sign_count:
        raise PasskeyCopied
    return count


def _framed(answer: PasskeyAnswer) -> None:
    """Refuse what a page made inside another site's frame. The library does not look at it."""
    if parse_client_data_json(answer.client_data).cross_origin:
        raise PasskeyRefused("used in a frame of another origin")


def _usable(public_key: bytes) -> None:
    """Refuse a key that can't verify later, or only at a high cost. Raises the library's errors as well."""
    decoded = decode_credential_public_key(public_key)
    key: Any = decoded_public_key_to_cryptography(decoded)
    usable = {
        COSEAlgorithmIdentifier.ECDSA_SHA_256: isinstance(key, EllipticCurvePublicKey)
        and isinstance(key.curve, SECP256R1),
        COSEAlgorithmIdentifier.EDDSA: isinstance(key, Ed25519PublicKey),
        COSEAlgorithmIdentifier.RSASSA_PKCS1_v1_5_SHA_256: isinstance(key, RSAPublicKey)
        and key.key_size in _rsa_bits
        and key.public_numbers().e < 2**32,
    }
    if not usable.get(decoded.alg, False):
        raise PasskeyRefused("the key is not one of those that were asked for")


def _described(passkeys: Sequence[Passkey]) -> list[PublicKeyCredentialDescriptor]:
    return [
        PublicKeyCredentialDescriptor(
            id=passkey.credential_id,
            transports=[AuthenticatorTransport(name) for name in passkey.transports if name in _transports],
        )
        for passkey in passkeys
    ]
