"""Certificates for connections inside: an authority of the installation's own, and what it vouches for.

For each name there are `tls_<name>.pem` (the certificate) and `tls_<name>.key`; `tls_ca.pem` is what all
others check them by, and `tls_ca.key` belongs only to the job that makes them. A certificate names the
part as it is called in compose and on Kubernetes, and this machine, for health checks.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NAMESPACE: Final = "signgate"
"""Of deploy/k8s."""
AUTHORITY_LIFE: Final = dt.timedelta(days=3650)
LIFE: Final = dt.timedelta(days=397)
RENEW: Final = dt.timedelta(days=60)
"""How long before its end a certificate is made again."""
_skew: Final = dt.timedelta(hours=1)

Read = Callable[[str], bytes | None]
Write = Callable[[str, bytes], None]


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure(names: list[str], read: Read, write: Write, now: dt.datetime) -> list[str]:
    """Make what is missing or ends within `RENEW`; returns the names of the parts with a new certificate.

    `read` returns a file's contents by its name, or `None`. An authority that ends itself is not replaced:
    all that trust it must be told first. Raises `ValueError` for a file that is none of ours.
    """
    authority = _authority(read, write, now)
    made = []
    for name in names:
        found = read(f"tls_{name}.pem")
        if found is None or read(f"tls_{name}.key") is None or _ends(found, authority) - now < RENEW:
            key = ec.generate_private_key(ec.SECP256R1())
            write(f"tls_{name}.key", _private(key))
            write(f"tls_{name}.pem", _pem(_issued(name, key, authority, now)))
            made.append(name)
    return made


def _authority(read: Read, write: Write, now: dt.datetime) -> _Authority:
    certificate, private = read("tls_ca.pem"), read("tls_ca.key")
    if certificate is None or private is None:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Signgate, inside")])
        made = (
            _builder(name, name, key.public_key(), key.public_key(), now, AUTHORITY_LIFE)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(sign_certificates=True), critical=True)
            .sign(key, hashes.SHA256())
        )
        write("tls_ca.key", _private(key))
        write("tls_ca.pem", _pem(made))
        return _Authority(made, key)
    loaded = serialization.load_pem_private_key(private, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise ValueError("tls_ca.key is not a key of ours")  # noqa: TRY004  # the file's contents, not a type
    # A certificate of an authority that replaces this one may follow.
    return _Authority(x509.load_pem_x509_certificates(certificate)[0], loaded)


def _issued(
    name: str, key: ec.EllipticCurvePrivateKey, authority: _Authority, now: dt.datetime
) -> x509.Certificate:
    hosts = [name, f"{name}.{NAMESPACE}", f"{name}.{NAMESPACE}.svc", f"{name}.{NAMESPACE}.svc.cluster.local"]
    names: list[x509.GeneralName] = [x509.DNSName(host) for host in (*hosts, "localhost")]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = authority.certificate.subject
    return (
        _builder(subject, issuer, key.public_key(), authority.key.public_key(), now, LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(sign_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuers_key: ec.EllipticCurvePublicKey,
    now: dt.datetime,
    life: dt.timedelta,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _skew)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuers_key), critical=False)
    )


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _ends(certificate: bytes, authority: _Authority) -> dt.datetime:
    """When a certificate ends; long ago, if another authority made it."""
    found = x509.load_pem_x509_certificate(certificate)
    try:
        found.verify_directly_issued_by(authority.certificate)
    except Exception:  # noqa: BLE001  # of several libraries below; whichever it is, it does not hold
        return dt.datetime.min.replace(tzinfo=dt.UTC)
    return found.not_valid_after_utc


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
