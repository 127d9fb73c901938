"""The networks that a key may be used from: one form for each, and what lies inside what.

The edge and the services report a caller's address in its plain form, an IPv4 address never as IPv6
(`servicekit.edge.plain`). So an IPv4 network in an IPv6 form would never match: it is rewritten where it has
one IPv4 form, and refused where it has none. `64:ff9b::/96` (NAT64), `2002::/16` (6to4) and the like are IPv6
networks as any other: a translator may really call from such an address.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses, ip_address, ip_network
from typing import Final

Network = IPv4Network | IPv6Network

_longest_address: Final = 64
_mapped: Final = IPv6Network("::ffff:0:0/96")
# Every IPv6 form of an IPv4 address that is no address of a host: mapped, compatible, translated.
_disguises: Final = IPv6Network("::/64")
# Not IPv4 in disguise, though they overlap: this host, and the whole of IPv6.
_plain: Final = frozenset({IPv6Network("::1/128"), IPv6Network("::/0")})


def parse(text: str) -> Network:
    """A network, or a bare address as a network of one. Raises `ValueError` that says what to write."""
    if "%" in text:
        raise ValueError("must have no zone id")
    try:
        network = plain(ip_network(text))
    except ValueError:
        raise ValueError("must be a network such as 203.0.113.0/24, host bits zero") from None
    if isinstance(network, IPv6Network) and network not in _plain and network.overlaps(_disguises):
        raise ValueError("must be an IPv4 network in IPv4 form, such as 203.0.113.0/24, or an IPv6 network")
    return network


def stored(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as a row has them. One that was stored in IPv6 form before that was refused is IPv4 again."""
    return tuple(plain(ip_network(text)) for text in texts)


def plain(network: Network) -> Network:
    """An IPv4-mapped network (`::ffff:203.0.113.0/120`) as IPv4; others as they are."""
    if isinstance(network, IPv6Network) and network.subnet_of(_mapped):
        address = int(network.network_address) & 0xFFFF_FFFF
        return IPv4Network((address, network.prefixlen - _mapped.prefixlen))
    return network


def admits(networks: Iterable[Network], client_ip: str) -> bool:
    """Whether an address lies in one of the networks. An unknown or odd one does in none."""
    if len(client_ip) > _longest_address:
        return False
    try:
        address = ip_address(client_ip)
    except ValueError:
        return False
    # A dual-stack listener shows an IPv4 caller as ::ffff:a.b.c.d.
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)


def inside(networks: Iterable[Network], outer: Iterable[Network]) -> bool:
    """Whether every address of `networks` is one of `outer`. No networks at all means: every address."""
    inner, room = tuple(networks), tuple(outer)
    if not room or not inner:
        return not room
    return all(any(_within(network, whole) for whole in _merged(room)) for network in inner)


def _merged(networks: Iterable[Network]) -> list[Network]:
    """The same addresses in as few networks as possible: what lies in all of them together lies in one."""
    found = tuple(networks)
    return [
        *collapse_addresses(network for network in found if isinstance(network, IPv4Network)),
        *collapse_addresses(network for network in found if isinstance(network, IPv6Network)),
    ]


def _within(network: Network, whole: Network) -> bool:
    if isinstance(network, IPv4Network):
        return isinstance(whole, IPv4Network) and network.subnet_of(whole)
    return isinstance(whole, IPv6Network) and network.subnet_of(whole)
