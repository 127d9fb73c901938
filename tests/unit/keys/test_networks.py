"""Networks of keys: one form for each, and what lies inside what."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servicekit.edge import plain as as_the_edge_reports
from services.keys.networks import Network, admits, inside, parse, plain, stored


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("::ffff:127.0.0.1/128", "127.0.0.1/32"),
        ("::ffff:127.0.0.1", "127.0.0.1/32"),
        ("::FFFF:7f00:1", "127.0.0.1/32"),
        ("0:0:0:0:0:ffff:203.0.113.0/120", "203.0.113.0/24"),
        ("::ffff:0:0/96", "0.0.0.0/0"),
        ("203.0.113.7", "203.0.113.7/32"),
        ("10.0.0.0/08", "10.0.0.0/8"),
        ("10.0.0.0/255.0.0.0", "10.0.0.0/8"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("::1", "::1/128"),
        ("::/0", "::/0"),
        ("0.0.0.0/0", "0.0.0.0/0"),
        ("64:ff9b::/96", "64:ff9b::/96"),
        ("2002:cb00:7100::/40", "2002:cb00:7100::/40"),
    ],
)
def test_each_network_has_one_form(text: str, canonical: str) -> None:
    """S23."""
    assert str(parse(text)) == canonical
    assert parse(canonical) == parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "nowhere", "10.0.0.1/8", "::ffff:10.0.0.1/104", "010.0.0.0/8", " 10.0.0.0/8", "10.0.0.0/8 ",
        "10.0.0.0/8\n", "10.0.0.0 /8", "10/8", "0x7f.0.0.1", "2130706433", "10.0.0.0/33", "10.0.0.0/-1",
        "\u0661\u0660.0.0.0",
        "fe80::1%eth0", "fe80::%1/64", "fe80::/64%eth0",
        # Ranges of IPv6 that hold IPv4 addresses in a form that no caller has.
        "::ffff:0:0/80", "::fffe:0:0/95", "::/1", "::/64", "::/95", "::203.0.113.7", "::ffff:0:203.0.113.7",
        "::",
    ],
)  # fmt: skip
def test_what_would_never_match_is_refused(text: str) -> None:
    """S23."""
    with pytest.raises(ValueError, match="must"):
        parse(text)


def test_a_network_that_was_stored_in_ipv6_form_matches() -> None:
    """S23: rows from before."""
    old = ip_network("::ffff:203.0.113.0/120")
    assert admits([plain(old)], "203.0.113.7")
    assert admits([plain(old)], "::ffff:203.0.113.7")
    assert not admits([plain(old)], "203.0.114.7")
    assert stored([str(old)]) == (ip_network("203.0.113.0/24"),)


def test_ipv4_callers_are_not_in_ipv6_networks() -> None:
    assert not admits([ip_network("::/0")], "203.0.113.7")
    assert not admits([ip_network("::/0")], "::ffff:203.0.113.7")
    assert admits([ip_network("::/0")], "2001:db8::1")


def v4() -> st.SearchStrategy[Network]:
    # Few addresses, so that networks meet often.
    return st.builds(
        lambda bits, length: IPv4Network((bits << 24, length), strict=False),
        st.integers(0, 255),
        st.integers(0, 8),
    )


def v6() -> st.SearchStrategy[Network]:
    return st.builds(
        lambda bits, length: IPv6Network((bits << 120, length), strict=False),
        st.integers(0, 255),
        st.integers(0, 8),
    )


NETWORKS = st.lists(st.one_of(v4(), v6()), max_size=6)
ADDRESSES = [str(IPv4Address(bits << 24)) for bits in range(256)] + [
    str(IPv6Address(bits << 120)) for bits in range(1, 256)
]


@given(NETWORKS, NETWORKS)
def test_inside_means_that_every_address_is(inner: list[Network], outer: list[Network]) -> None:
    def lets_in(networks: list[Network], address: str) -> bool:
        return not networks or admits(networks, address)

    expected = all(lets_in(outer, address) for address in ADDRESSES if lets_in(inner, address))
    if inner or not outer:
        assert inside(inner, outer) == expected
    else:
        # No networks: also callers whose address is not known, whom no network lets in.
        assert not inside(inner, outer)


@given(st.integers(0, 2**32 - 1))
def test_an_address_admits_itself_in_every_form(bits: int) -> None:
    address = IPv4Address(bits)
    for form in (str(address), f"::ffff:{address}", f"::ffff:{address}/128"):
        assert admits([parse(form)], str(address))
        assert admits([parse(form)], as_the_edge_reports(f"::ffff:{address}"))
