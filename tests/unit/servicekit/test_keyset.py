"""A key's life: published before it signs, published after it stopped, and never shown."""

import json
from pathlib import Path

import jwt
import pytest

from servicekit import keyset
from servicekit.keyset import Algorithm, KeySet, KeySetError, KeySetFile, generate, load, main, save
from servicekit.testing.clock import ManualClock

NOW = 1_800_000_000


@pytest.mark.parametrize("alg", keyset.ALGORITHMS)
def test_a_file_gives_back_the_key_that_was_saved(tmp_path: Path, alg: Algorithm) -> None:
    path = tmp_path / "keys.json"
    first = generate(alg, NOW)
    save(path, [first])
    (again,) = load(path).keys
    assert (again.kid, again.alg, again.iat, again.nbf, again.exp) == (first.kid, alg, NOW, NOW, None)
    token = jwt.encode({"a": 1}, again.key, algorithm=alg)
    proof = first.key if isinstance(first.key, bytes) else first.key.public_key()
    assert jwt.decode(token, proof, algorithms=[alg]) == {"a": 1}


def test_a_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    save(path, [generate("ES256", NOW)])
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_a_rotated_in_key_is_published_before_it_signs() -> None:
    old = KeySet(()).rotated("ES256", NOW)
    new = old.rotated("ES256", NOW + 100, lead=600, overlap=1000)
    first, second = new.keys
    assert new.active("ES256", NOW + 100) == first
    assert new.active("ES256", NOW + 699).kid == first.kid
    assert new.active("ES256", NOW + 700).kid == second.kid
    assert [jwk["kid"] for jwk in new.public_jwks(NOW + 100)["keys"]] == [first.kid, second.kid]


def test_a_rotated_out_key_stays_published_until_it_retires() -> None:
    new = KeySet(()).rotated("ES256", NOW).rotated("ES256", NOW, lead=600, overlap=1000)
    first, second = new.keys
    assert new.find(first.kid, NOW + 1599) == first
    assert new.find(first.kid, NOW + 1600) is None
    assert [jwk["kid"] for jwk in new.public_jwks(NOW + 1600)["keys"]] == [second.kid]


def test_rotation_touches_one_algorithm_and_drops_what_has_retired() -> None:
    keys = KeySet(()).rotated("ES256", NOW).rotated("EdDSA", NOW)
    keys = keys.rotated("ES256", NOW, lead=0, overlap=10)
    later = keys.rotated("ES256", NOW + 20, lead=0, overlap=10)
    assert [key.alg for key in later.keys] == ["EdDSA", "ES256", "ES256"]
    assert later.keys[0].exp is None


def test_shared_secrets_are_never_published() -> None:
    keys = KeySet((generate("HS256", NOW), generate("EdDSA", NOW)))
    published = keys.public_jwks(NOW)["keys"]
    assert [jwk["alg"] for jwk in published] == ["EdDSA"]
    assert "d" not in published[0]
    with pytest.raises(KeySetError):
        keys.keys[0].public_jwk()


def test_no_key_shows_in_a_repr() -> None:
    key = generate("HS256", NOW)
    assert repr(key.key) not in repr(KeySet((key,)))


def test_without_a_key_that_signs_the_error_says_which() -> None:
    with pytest.raises(KeySetError, match="EdDSA"):
        KeySet((generate("ES256", NOW),)).active("EdDSA", NOW)
    with pytest.raises(KeySetError, match="ES256"):
        KeySet((generate("ES256", NOW),)).active("ES256", NOW - 1)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"keys": [{"alg": "none", "kid": "a", "iat": 1}]}',
        '{"keys": [{"kty": "oct", "k": "aHVudGVyMg", "alg": "HS256", "kid": "a", "iat": 1}]}',
        '{"keys": [{"kty": "oct", "k": "aHVudGVyMg", "alg": "ES256", "kid": "a", "iat": 1}]}',
    ],
)
def test_a_wrong_file_is_refused_without_being_quoted(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)
    with pytest.raises(KeySetError) as caught:
        load(path)
    assert "aHVudGVyMg" not in str(caught.value)


def test_two_keys_of_one_id_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = generate("ES256", NOW)
    save(path, [key, key])
    with pytest.raises(KeySetError, match="one id"):
        load(path)


def test_a_public_key_where_a_private_one_belongs_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{**generate("ES256", NOW).public_jwk(), "iat": 1}]}))
    with pytest.raises(KeySetError):
        load(path)


def test_a_rotation_is_seen_within_a_second_and_a_broken_file_is_not(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    clock = ManualClock()
    keys = KeySet(()).rotated("ES256", clock.time())
    save(path, keys.keys)
    file = KeySetFile(path, clock)
    before = file.active("ES256").kid
    save(path, keys.rotated("ES256", clock.time(), lead=0).keys)
    assert file.active("ES256").kid == before
    clock.advance(1)
    after = file.active("ES256").kid
    assert after != before
    path.write_text("{")
    clock.advance(1)
    assert file.active("ES256").kid == after
    assert file.find(before) is not None
    assert len(file.public_jwks()["keys"]) == 2


def test_the_command_makes_rotates_and_shows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "keys.json"
    out = ["--out", str(path)]
    assert main(["new", "--alg", "EdDSA", "--alg", "HS256", *out]) == 0
    assert main(["new", "--alg", "EdDSA", *out]) == 1
    assert main(["rotate", *out]) == 1
    assert main(["rotate", "--alg", "EdDSA", *out]) == 0
    capsys.readouterr()
    assert main(["show", *out]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[1] for line in shown.splitlines()] == ["EdDSA", "HS256", "EdDSA"]
    for jwk in json.loads(path.read_text())["keys"]:
        assert jwk.get("d", jwk.get("k")) not in shown
