"""E-mail addresses in the one form in which they are kept and compared."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

import idna

from services.auth.errors import ValidationFailed

# The dot-atom of RFC 5321, then dotted labels. Only mail proves that an address exists.
_address = re.compile(
    r"(?=[^@]{1,64}@)[a-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])"
).fullmatch
_longest_address: Final = 254
_longest_label: Final = 63
_dots = re.compile("[.\u3002\uff0e\uff61]")  # what UTS 46 takes for a dot
_no_address: Final = "must be an e-mail address such as ann@example.com"


def normal_email(text: str, name: str = "email") -> str:
    """The address in the one form in which addresses are kept and compared: ASCII in lower case.

    A domain in another script becomes its A-labels by IDNA 2008 with the mapping of UTS 46, non-transitional:
    `straße.de` and `strasse.de` are two owners' domains. Raises `ValidationFailed` for what is not an address
    or can't be mailed: a local part beyond ASCII (few mail servers accept one), in quotes, or with a dot at
    its start or end; a domain that a registry can't have, or an IP address. Never quotes the address.
    """
    if len(text) > _longest_address:
        raise ValidationFailed(name, f"must have at most {_longest_address} characters")
    local, at, domain = text.strip().rpartition("@")
    if not at:
        raise ValidationFailed(name, "an e-mail address is required" if not text.strip() else _no_address)
    if not local.isascii() or not all(map(_label_sized, _dots.split(domain))):
        raise ValidationFailed(name, _no_address)
    try:
        ascii_domain = idna.encode(domain, uts46=True, std3_rules=True).decode()
    except UnicodeError:  # idna's errors are of this kind
        raise ValidationFailed(name, _no_address) from None
    email = f"{local}@{ascii_domain}".lower()
    if len(email) > _longest_address or not _address(email):
        raise ValidationFailed(name, _no_address)
    return email


def _label_sized(label: str) -> bool:
    """Whether a label can become one of 63 characters: the conversion takes the square of its length in time.
    Some letters stand for up to 18 others (NFKC), hence two looks.
    """
    if len(label) > _longest_label:
        return False
    return label.isascii() or len(unicodedata.normalize("NFKC", label)) <= _longest_label
