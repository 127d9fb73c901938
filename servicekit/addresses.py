"""Which addresses are hosts on the internet, which are special, and which are one caller's.

Special is a private network, this host, a tunnel.

Services connect to an address that a user chooses (a webhook's), or that belongs to a third-party server (a
key set's), only if `is_public` is true. Deny by default: of IPv6 only 2000::/3 is unicast on the internet. An
address that embeds an IPv4 address is checked by that one if the form is in use today: mapped addresses, and
NAT64's well-known prefix, which a resolver in an IPv6-only network returns. All other forms are refused.

`RANGES` is the IANA IPv4 and IPv6 Special-Purpose Address Registries as of 2026-11-30, ranges that are
globally reachable included: they are anycast services and relays, and no server for a webhook is there.
https://www.iana.org/assignments/iana-ipv4-special-registry
https://www.iana.org/assignments/iana-ipv6-special-registry
"""

from __future__ import annotations

import ipaddress
import re
import socket
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final

Address = IPv4Address | IPv6Address

RANGES: Final[dict[str, str]] = {
    "0.0.0.0/8": "this network",
    "10.0.0.0/8": "private use",
    "100.64.0.0/10": "shared address space (carrier-grade NAT)",
    "127.0.0.0/8": "loopback",
    "169.254.0.0/16": "link local",
    "172.16.0.0/12": "private use",
    "192.0.0.0/24": "IETF protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "AS112",
    "192.52.193.0/24": "AMT",
    "192.88.99.0/24": "6to4 relays, deprecated",
    "192.168.0.0/16": "private use",
    "192.175.48.0/24": "AS112",
    "198.18.0.0/15": "benchmarking",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "240.0.0.0/4": "reserved",
    "255.255.255.255/32": "broadcast",
    "::/128": "unspecified",
    "::1/128": "loopback",
    "64:ff9b:1::/48": "NAT64, local use",
    "100::/64": "discard",
    "100:0:0:1::/64": "dummy prefix",
    "2001::/23": "IETF protocol assignments",
    "2001::/32": "Teredo",
    "2001:1::1/128": "Port Control Protocol anycast",
    "2001:1::2/128": "TURN anycast",
    "2001:1::3/128": "DNS-SD anycast",
    "2001:2::/48": "benchmarking",
    "2001:3::/32": "AMT",
    "2001:4:112::/48": "AS112",
    "2001:10::/28": "ORCHID, deprecated",
    "2001:20::/28": "ORCHIDv2",
    "2001:30::/28": "drone remote ID",
    "2001:db8::/32": "documentation",
    "2002::/16": "6to4",
    "2620:4f:8000::/48": "AS112",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "unique local",
    "fe80::/10": "link local",
}
"""By range, what it is for."""
ALSO: Final[dict[str, str]] = {
    "224.0.0.0/4": "multicast",
    "168.63.129.16/32": "Azure's host, seen from its virtual machines",
    "::/96": "IPv4-compatible, deprecated",
    "fec0::/10": "site local, deprecated",
    "ff00::/8": "multicast",
}
"""In none of the two registries, and refused as well."""

_networks: Final = [ipaddress.ip_network(text) for text in (*RANGES, *ALSO)]
_special4: Final = [network for network in _networks if isinstance(network, IPv4Network)]
_special6: Final = [network for network in _networks if isinstance(network, IPv6Network)]
_unicast6: Final = IPv6Network("2000::/3")
_nat64: Final = IPv6Network("64:ff9b::/96")
_isatap: Final = (0x00005EFE, 0x02005EFE)
"""The upper half of an interface identifier whose lower half is an IPv4 address (RFC 5214)."""
_low32: Final = 0xFFFFFFFF
_interface_bits: Final = 64
_site_bits: Final = 80
# What inet_aton(3) takes, and with it getaddrinfo(3): one to four numbers, decimal, octal or hexadecimal.
_numeric: Final = re.compile(r"(?:0[xX][0-9a-fA-F]*|[0-9]+)(?:\.(?:0[xX][0-9a-fA-F]*|[0-9]+)){0,3}")


def is_public(address: Address | str) -> bool:
    """Whether it is one host on the internet. Raises `ValueError` for a string that is not an address."""
    if isinstance(address, str):
        address = ipaddress.ip_address(address)
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _special4)
    if address.scope_id is not None:
        return False  # a zone is a link of this host
    embedded = address.ipv4_mapped
    if embedded is None and address in _nat64:
        embedded = IPv4Address(int(address) & _low32)
    if embedded is not None:
        return is_public(embedded)
    if int(address) >> 32 & _low32 in _isatap and not is_public(IPv4Address(int(address) & _low32)):
        return False
    return address in _unicast6 and not any(address in network for network in _special6)


def literal(host: str) -> Address | None:
    """The address that a URL's host is, in any form that `getaddrinfo` takes for one; `None` for a name.

    `127.1`, `0x7f000001`, `017700000001` and `2130706433` are 127.0.0.1. An IPv6 address may have a zone,
    and is given here without brackets. A trailing dot changes nothing. Raises `ValueError` for a string that
    looks like an address and is not valid, such as `1.2.3.999`.
    """
    host = host.removesuffix(".")
    if ":" in host:
        return IPv6Address(host)
    if not _numeric.fullmatch(host):
        return None
    try:
        return IPv4Address(socket.inet_aton(host))
    except OSError as error:
        raise ValueError("not an address") from error


@lru_cache(maxsize=4096)
def bucket(address: str) -> str:
    """The address that limits count by: itself for IPv4, its /64 for IPv6, "" where it is none.

    A customer of an IPv6 network has at least a /64 (RFC 6177), so one client can use 2^64 addresses. An
    IPv4 address in IPv6 form counts as IPv4.
    """
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return f"{IPv6Address(int(found) >> _interface_bits << _interface_bits)}/64"


@lru_cache(maxsize=4096)
def site(address: str) -> str:
    """The /48 of an IPv6 address, "" for what is none: a customer may be given 65,536 /64s (RFC 6177).

    IPv4 has nothing like it: the addresses of a /24 belong to customers who have nothing in common.
    """
    network = bucket(address).removesuffix("/64")
    if ":" not in network:
        return ""
    return f"{IPv6Address(int(IPv6Address(network)) >> _site_bits << _site_bits)}/48"
