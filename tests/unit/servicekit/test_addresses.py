"""No address of a special-purpose range counts as public, in whatever form it is written."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.addresses import ALSO, RANGES, bucket, is_public, literal

PUBLIC4 = ("1.1.1.1", "8.8.8.8", "100.63.255.255", "100.128.0.0", "172.15.255.255", "172.32.0.0", "192.0.1.0",
           "192.167.255.255", "198.17.255.255", "198.20.0.0", "203.0.114.0", "223.255.255.255")  # fmt: skip
PUBLIC6 = ("2000::1", "2001:200::1", "2001:4860:4860::8888", "2003::1", "2606:4700::1111",
           "2a00:1450:4001::1", "3ffe:ffff:ffff::1")  # fmt: skip


def forms(address: IPv4Address) -> Iterator[IPv4Address | IPv6Address]:
    """An IPv4 address as it is, and in all forms of IPv6 that carry one."""
    number = int(address)
    yield address
    yield IPv6Address(0xFFFF << 32 | number)  # mapped
    yield IPv6Address(number)  # compatible
    yield IPv6Address(0xFFFF << 48 | number)  # translated (SIIT)
    yield IPv6Address(int(IPv6Address("64:ff9b::")) | number)
    yield IPv6Address(int(IPv6Address("64:ff9b:1::")) | number)
    yield IPv6Address(0x2002 << 112 | number << 80)  # 6to4
    yield IPv6Address(0x2002 << 112 | number << 80 | 1)
    yield IPv6Address(int(IPv6Address("2001::")) | (number ^ 0xFFFFFFFF))  # a Teredo client
    yield IPv6Address(int(IPv6Address("2001::")) | number << 64)  # its server
    yield IPv6Address(int(IPv6Address("fe80::5efe:0:0")) | number)  # ISATAP
    yield IPv6Address(int(IPv6Address("2606:4700::5efe:0:0")) | number)
    yield IPv6Address(int(IPv6Address("2606:4700::200:5efe:0:0")) | number)


@pytest.mark.parametrize("text", [*RANGES, *ALSO])
def test_first_middle_and_last_of_each_range_are_refused_in_every_form(text: str) -> None:
    network = ip_network(text)
    middle = network[network.num_addresses // 2]
    for address in (network[0], middle, network[-1]):
        for form in forms(address) if isinstance(address, IPv4Address) else (address,):
            assert not is_public(form), form
            assert not is_public(str(form)), form


@pytest.mark.parametrize("text", [*RANGES, *ALSO])
@given(chance=st.floats(0, 1))
def test_nothing_inside_of_a_range_is_public(text: str, chance: float) -> None:
    network = ip_network(text)
    address = network[min(int(network.num_addresses * chance), network.num_addresses - 1)]
    assert not is_public(address)


@given(address=st.ip_addresses(v=6))
def test_of_ipv6_only_global_unicast_and_what_carries_a_public_address_is_public(
    address: IPv6Address,
) -> None:
    carried = address.ipv4_mapped is not None or address in ip_network("64:ff9b::/96")
    if is_public(address):
        assert address in ip_network("2000::/3") or carried


@pytest.mark.parametrize("text", [*PUBLIC4, *PUBLIC6])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(text)


@pytest.mark.parametrize("text", PUBLIC4)
def test_a_public_address_is_public_as_mapped_and_behind_nat64(text: str) -> None:
    """An IPv6-only network reaches IPv4 hosts by NAT64: its resolver answers with such addresses."""
    assert is_public(f"::ffff:{text}")
    assert is_public(f"64:ff9b::{text}")


@pytest.mark.parametrize("text", ["fe80::1%eth0", "2606:4700::1111%1", "::1%lo"])
def test_an_address_of_a_zone_is_none_of_the_internets(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize("text", ["64:ff9b::a00:1", "::7f00:1", "fec0::1", "::ffff:a00:1", "2002:a00:1::"])
def test_forms_that_were_taken_for_public_once(text: str) -> None:
    assert not is_public(text)


@pytest.mark.parametrize(
    ("host", "means"),
    [
        ("127.0.0.1", "127.0.0.1"), ("127.1", "127.0.0.1"), ("127.0.1", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"), ("0x7f.1", "127.0.0.1"), ("017700000001", "127.0.0.1"), ("0", "0.0.0.0"),
        ("0177.0.0.1", "127.0.0.1"), ("127.0.0.1.", "127.0.0.1"), ("0X7F.0.0.0x1", "127.0.0.1"),
        ("::1", "::1"), ("::ffff:127.0.0.1", "::ffff:7f00:1"), ("fe80::1%eth0", "fe80::1%eth0"),
        ("1.2.3", "1.2.0.3"), ("010.0.0.1", "8.0.0.1"),
    ],
)  # fmt: skip
def test_every_way_to_write_an_address_is_read_as_the_resolver_reads_it(host: str, means: str) -> None:
    assert literal(host) == ip_address(means)


@pytest.mark.parametrize(
    "host", ["example.com", "1.example", "a1.2", "0x7g.1", "xn--bcher-kva.example", "1.2.3.4.5"]
)
def test_a_name_is_no_address(host: str) -> None:
    assert literal(host) is None


@pytest.mark.parametrize(
    "host", ["1.2.3.999", "256.1", "0x.0xfffffffff", "4294967296", "1::2::3", "::1%", "08.0.0.1"]
)
def test_what_only_looks_like_an_address_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        literal(host)


@given(number=st.integers(0, 2**32 - 1), form=st.sampled_from(["%d", "0x%x", "0%o", "0X%X"]))
def test_literals_agree_with_getaddrinfo(number: int, form: str) -> None:
    """What is judged is what would be connected to."""
    host = form % number
    found = socket.getaddrinfo(host, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert literal(host) == ip_address(str(found[0][4][0]))


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:0db8:0001:0002:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no address", ""),
    ],
)
def test_addresses_of_one_network_are_one(address: str, counted: str) -> None:
    assert bucket(address) == counted
