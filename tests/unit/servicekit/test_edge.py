"""Whose word on a caller's address is believed."""

from pathlib import Path

import pytest

from servicekit.edge import HEADER, Edge
from servicekit.testing.clock import ManualClock
from servicekit.watched import FileError

OLD, NEW = "o" * 43, "n" * 43
PEER = "ipv4:10.1.2.3:5000"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "edge_secret"
    path.write_text(f"{OLD}\n")
    return path


def asked(edge: Edge, *metadata: tuple[str, str], peer: str = PEER) -> str:
    return edge.address(metadata, lambda: peer)


@pytest.mark.parametrize(
    ("said", "address"),
    [
        ([("x-forwarded-for", "6.6.6.6, 192.0.2.9")], "192.0.2.9"),
        ([("x-forwarded-for", "1.1.1.1"), ("x-envoy-external-address", "192.0.2.2")], "192.0.2.2"),
        ([("x-envoy-external-address", "::ffff:192.0.2.2")], "192.0.2.2"),
        ([("x-envoy-external-address", "nonsense")], ""),
        ([], "10.1.2.3"),
    ],
)
def test_an_edge_that_proves_itself_is_believed(
    file: Path, said: list[tuple[str, str]], address: str
) -> None:
    assert asked(Edge(file), (HEADER, OLD), *said) == address


@pytest.mark.parametrize(
    "proof",
    [(), ((HEADER, NEW),), ((HEADER, ""),), ((HEADER, OLD[:-1]),), ((HEADER, OLD), (HEADER, OLD))],
    ids=["none", "another", "empty", "a part of it", "twice"],
)
def test_whoever_else_names_an_address_has_their_own(file: Path, proof: tuple[tuple[str, str], ...]) -> None:
    """S35: an inside peer that sends the edge's headers would otherwise pass networks and limits."""
    said = (("x-envoy-external-address", "192.0.2.2"), ("x-forwarded-for", "192.0.2.9"))
    assert asked(Edge(file), *proof, *said) == "10.1.2.3"


def test_without_a_secret_no_edge_is_believed() -> None:
    assert asked(Edge(), (HEADER, ""), ("x-forwarded-for", "192.0.2.9")) == "10.1.2.3"


@pytest.mark.parametrize(
    ("peer", "address"),
    [
        ("ipv6:%5B2001:db8::1%5D:80", "2001:db8::1"),
        ("ipv6:[::ffff:192.0.2.1]:80", "192.0.2.1"),
        ("unix:/run/x.sock", ""),
        ("2001:db8::1", "2001:db8::1"),
        ("testclient", ""),
        ("", ""),
    ],
)
def test_a_connections_own_address(peer: str, address: str) -> None:
    assert asked(Edge(), peer=peer) == address


def test_a_secret_is_replaced_without_a_restart_and_both_count_in_between(file: Path) -> None:
    clock = ManualClock()
    edge = Edge(file, clock)
    for lines, good in ((f"{OLD}\n{NEW}\n", {OLD, NEW}), (f"{NEW}\n", {NEW}), ("short\n", {NEW})):
        file.write_text(lines)
        clock.advance(2)
        assert {secret for secret in (OLD, NEW, "short") if edge.proves(secret)} == good


@pytest.mark.parametrize("content", ["", "\n", "short\n", f"{OLD}\nshort\n"])
def test_a_secret_that_could_be_guessed_stops_the_start(file: Path, content: str) -> None:
    file.write_text(content)
    with pytest.raises(FileError) as caught:
        Edge(file)
    assert "short" not in str(caught.value).replace("shorter", "")
