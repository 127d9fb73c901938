"""The native engine: what it signs holds, for as long as it says, and nothing else does."""

import asyncio
import base64
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from servicekit.errors import SigngateError
from servicekit.keyset import KeySet, SigningKey
from servicekit.testing.clock import ManualClock
from services.signer.compat import contract_tokens
from services.signer.domain import Algorithm, Signed, SignRequest
from services.signer.engines.base import Engine
from services.signer.engines.native import BREATH, NativeEngine, NativePolicy
from services.signer.engines.signing_keys import Ed25519Key, HmacSha256Key, SigningKeys
from services.signer.room_url import parse

NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EPOCH: Final = int(NOW.timestamp())
REQUEST_ID: Final = "019b7c5e-4d88-7000-8000-0123456789ab"
ROOM: Final = parse("https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7300000000000000000")
BOTH: Final = pytest.mark.parametrize("algorithm", list(Algorithm))


def ed25519(kid: str = "ed-1", nbf: int = EPOCH, exp: int | None = None, seed: int = 1) -> SigningKey:
    return SigningKey(kid, "EdDSA", EPOCH, nbf, exp, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def hmac256(kid: str = "hs-1", nbf: int = EPOCH, exp: int | None = None, seed: int = 1) -> SigningKey:
    return SigningKey(kid, "HS256", EPOCH, nbf, exp, bytes([seed]) * 32)


class Bench:
    """An engine whose clock and keys a test moves."""

    def __init__(self, *keys: SigningKey, policy: NativePolicy | None = None) -> None:
        self.clock = ManualClock(NOW)
        self.keys = KeySet(keys or (ed25519(), hmac256()))
        self.engine = NativeEngine(SigningKeys(lambda: self.keys), self.clock, policy)

    async def ready(self) -> "Bench":
        await self.engine.start()
        status = await self.engine.canary()
        assert status.ready, status.not_ready_reason
        return self

    async def result(
        self,
        algorithm: Algorithm | None = None,
        ttl: float | None = None,
        *,
        request_id: str = REQUEST_ID,
        platform_tokens: bool = False,
    ) -> Signed | SigngateError:
        request = SignRequest(ROOM, request_id, ttl=ttl, algorithm=algorithm, platform_tokens=platform_tokens)
        [result] = await self.engine.sign([request])
        return result

    async def signed(self, algorithm: Algorithm | None = None, ttl: float | None = None) -> Signed:
        result = await self.result(algorithm, ttl)
        assert isinstance(result, Signed), result
        return result

    def verdict(self, url: str) -> str:
        """The reason's name, or "" for a URL that holds."""
        verdict = self.engine.verify(url, self.clock.now())
        assert verdict.valid is (verdict.reason is None)
        return verdict.reason.value if verdict.reason else ""


def reason(result: Signed | SigngateError) -> str:
    assert isinstance(result, SigngateError), result
    return result.reason


async def test_it_satisfies_the_engine_protocol() -> None:
    engine: Engine = (await Bench().ready()).engine
    assert engine.name == "native"


@BOTH
async def test_what_is_signed_holds_and_says_what_it_is(algorithm: Algorithm) -> None:
    bench = await Bench().ready()
    signed = await bench.signed(algorithm, ttl=60)
    verdict = bench.engine.verify(signed.signed_url, NOW)
    assert verdict.valid
    assert (verdict.room, verdict.request_id, verdict.algorithm) == (ROOM, REQUEST_ID, algorithm)
    assert verdict.expires_at == signed.expires_at == NOW + timedelta(seconds=60)
    assert verdict.key_id == signed.key_id
    assert signed.engine == bench.engine.describe().info


async def test_the_parameters_stand_in_the_documented_order_after_the_canonical_url() -> None:
    signed = await (await Bench().ready()).signed(ttl=60)
    assert signed.signed_url.startswith(ROOM.url + "&sg_v=1&")
    added = parse_qsl(urlsplit(signed.signed_url).query)[2:]
    assert added == list(signed.tokens.items())
    assert [name for name, _ in added] == ["sg_v", "sg_id", "sg_exp", "sg_kid", "sg_sig"]
    assert dict(added)["sg_exp"] == str(EPOCH + 60)


async def test_a_url_without_a_query_gets_one() -> None:
    bench = await Bench().ready()
    room = parse("@name")
    [signed] = await bench.engine.sign([SignRequest(room, REQUEST_ID)])
    assert isinstance(signed, Signed)
    assert signed.signed_url.startswith("https://www.tiktok.com/@name/live?sg_v=1&sg_id=")
    assert bench.engine.verify(signed.signed_url, NOW).room == room


@BOTH
async def test_it_expires_at_the_second_that_it_says(algorithm: Algorithm) -> None:
    bench = await Bench().ready()
    signed = await bench.signed(algorithm, ttl=60)
    bench.clock.advance(59.999)
    assert bench.verdict(signed.signed_url) == ""
    bench.clock.advance(0.001)
    assert bench.verdict(signed.signed_url) == "EXPIRED"
    assert bench.engine.verify(signed.signed_url, bench.clock.now()).room == ROOM


async def test_two_signatures_of_one_url_differ_by_their_request() -> None:
    bench = await Bench().ready()
    one = await bench.result()
    other = await bench.result(request_id=REQUEST_ID.replace("0123", "3210"))
    assert isinstance(one, Signed)
    assert isinstance(other, Signed)
    assert one.tokens["sg_sig"] != other.tokens["sg_sig"]


@BOTH
async def test_no_single_changed_removed_or_added_character_leaves_it_valid(algorithm: Algorithm) -> None:
    bench = await Bench().ready()
    url = (await bench.signed(algorithm)).signed_url
    for at in range(len(url)):
        for forged in (url[:at] + url[at + 1 :], url[:at] + "&" + url[at:], url[:at] + "0" + url[at:]):
            assert bench.verdict(forged), forged
        for letter in "0Az_-&=?%":
            if letter != url[at]:
                forged = url[:at] + letter + url[at + 1 :]
                assert bench.verdict(forged), forged


@BOTH
async def test_base64_has_one_spelling(algorithm: Algorithm) -> None:
    """The last letter carries bits that decoding drops; they must be zero."""
    bench = await Bench().ready()
    url = (await bench.signed(algorithm)).signed_url
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    holds = [letter for letter in alphabet if bench.verdict(url[:-1] + letter) == ""]
    assert holds == [url[-1]]
    for tail in ("=", "==", "%3D", " ", "\n", "#", "&", "&a=1"):
        assert bench.verdict(url + tail) == "MALFORMED"


async def test_what_is_no_signed_url_is_malformed() -> None:
    bench = await Bench().ready()
    signed = await bench.signed()
    url = signed.signed_url
    sig = f"&sg_sig={signed.tokens['sg_sig']}"
    forged = {
        "": "MALFORMED",
        ROOM.url: "MALFORMED",
        url.removesuffix(sig): "MALFORMED",
        url + sig: "MALFORMED",
        url.replace("sg_v=1", "sg_v=2"): "MALFORMED",
        url.replace("&sg_exp=", "&sg_exp=0"): "MALFORMED",
        url.replace("&sg_exp=", "&sg_exp=-"): "MALFORMED",
        url.replace("&sg_kid=ed-1", "&sg_kid="): "MALFORMED",
        url.replace("&sg_v=1", "?sg_v=1"): "MALFORMED",
        url.replace(REQUEST_ID, REQUEST_ID.upper()): "MALFORMED",
        url.replace("https://", "http://"): "MALFORMED",
        f"{url}{'x' * 3000}": "MALFORMED",
        url.replace("&sg_v=1", "&x=1&sg_v=1"): "BAD_SIGNATURE",
        url.replace("aid=1988", "aid=1989"): "BAD_SIGNATURE",
        url.replace("aid=1988", "aid=1988&sg_exp=9999999999"): "NOT_CANONICAL",
        url.replace("aid=1988", "aid=1988&sg_sig=x"): "NOT_CANONICAL",
        url.replace("aid=1988", "aid=1988&msToken=x"): "NOT_CANONICAL",
        url.replace("aid=1988&", "aid=1988&&"): "NOT_CANONICAL",
        url.replace("//webcast", "//WEBCAST"): "NOT_CANONICAL",
        url.replace("webcast.tiktok.com", "evil.example"): "NOT_CANONICAL",
        url.replace("webcast.tiktok.com", "webcast.tiktok.com@evil.example"): "NOT_CANONICAL",
        url.replace("ed-1", "ed-2"): "UNKNOWN_KEY",
        url.replace("ed-1", "hs-1"): "BAD_SIGNATURE",
    }
    assert {text: bench.verdict(text) for text in forged} == forged


async def test_nothing_unproven_is_passed_on() -> None:
    """A forged URL's claims must not reach whoever asked as if they were facts."""
    bench = await Bench().ready()
    forged = (await bench.signed()).signed_url.replace("aid=1988", "aid=1")
    verdict = bench.engine.verify(forged, NOW)
    assert (verdict.room, verdict.expires_at, verdict.request_id, verdict.algorithm) == (None, None, "", None)


@pytest.mark.parametrize("wrapped", [Ed25519Key, HmacSha256Key])
def test_a_signature_for_another_purpose_is_none_of_ours(
    wrapped: type[Ed25519Key] | type[HmacSha256Key],
) -> None:
    """The same key over the bare URL, another version or the other algorithm's label must not do."""
    bench = Bench()
    key = SigningKeys(lambda: bench.keys).find("ed-1" if wrapped is Ed25519Key else "hs-1", NOW)
    assert key is not None
    unsigned = f"{ROOM.url}&sg_v=1&sg_id={REQUEST_ID}&sg_exp={EPOCH + 60}&sg_kid={key.key_id}"
    other = "hmac-sha256" if wrapped is Ed25519Key else "ed25519"
    for message, expected in {
        f"signgate/signed-url/v1\n{key.algorithm.value}\n{unsigned}": "",
        f"signgate/signed-url/v1\n{other}\n{unsigned}": "BAD_SIGNATURE",
        f"signgate/signed-url/v2\n{key.algorithm.value}\n{unsigned}": "BAD_SIGNATURE",
        unsigned: "BAD_SIGNATURE",
    }.items():
        signature = base64.urlsafe_b64encode(key.sign(message.encode())).rstrip(b"=").decode()
        assert bench.verdict(f"{unsigned}&sg_sig={signature}") == expected


@given(st.text())
def test_verify_never_raises_on_any_text(text: str) -> None:
    assert Bench().verdict(text) == "MALFORMED"


@given(st.text(alphabet="&?=sg_videxpkc1a-0:/.%@", max_size=60))
def test_verify_never_raises_on_text_like_a_signed_url(text: str) -> None:
    tail = f"&sg_v=1&sg_id={REQUEST_ID}&sg_exp=1&sg_kid=ed-1&sg_sig={'A' * 86}"
    assert Bench().verdict(f"https://{text}{tail}") != ""


class TestRotation:
    """A coming key verifies and does not sign; the newest signs; a retired one verifies until its end."""

    @BOTH
    async def test_overlap(self, algorithm: Algorithm) -> None:
        make = ed25519 if algorithm is Algorithm.ED25519 else hmac256
        first_policy = NativePolicy(default_algorithm=algorithm)
        bench = await Bench(make("old"), policy=first_policy).ready()
        early = await bench.signed(ttl=3600)

        changeover, retirement = EPOCH + 600, EPOCH + 600 + 3600
        bench.keys = KeySet((make("old", exp=retirement), make("new", nbf=changeover, seed=2)))
        bench.clock.advance(599)
        late = await bench.signed(ttl=3600)
        assert (early.key_id, late.key_id) == ("old", "old")

        bench.clock.advance(1)
        fresh = await bench.signed(ttl=3600)
        assert fresh.key_id == "new"
        assert [bench.verdict(signed.signed_url) for signed in (early, late, fresh)] == ["", "", ""]

        bench.clock.set(datetime.fromtimestamp(retirement - 2, UTC))
        assert [bench.verdict(signed.signed_url) for signed in (early, late, fresh)] == ["EXPIRED", "", ""]
        bench.clock.set(datetime.fromtimestamp(retirement, UTC))
        assert bench.verdict(late.signed_url) == "UNKNOWN_KEY"

    async def test_a_replica_that_is_ahead_may_sign_with_a_coming_key(self) -> None:
        ahead = await Bench(ed25519("new")).ready()
        behind = Bench(ed25519("old", seed=2), ed25519("new", nbf=EPOCH + 600))
        assert behind.verdict((await ahead.signed()).signed_url) == ""

    async def test_a_signature_never_outlives_its_key(self) -> None:
        bench = await Bench(ed25519(exp=EPOCH + 100), policy=NativePolicy(default_ttl=300)).ready()
        assert (await bench.signed()).expires_at == NOW + timedelta(seconds=100)

    async def test_published_keys_are_the_ones_that_count_and_no_secrets(self) -> None:
        bench = Bench(
            ed25519("retired", exp=EPOCH),
            ed25519("old", exp=EPOCH + 10),
            hmac256("secret"),
            ed25519("new", nbf=EPOCH + 5),
        )
        assert [key.key_id for key in bench.engine.published_keys()] == ["new", "old"]
        [new, old] = bench.engine.published_keys()
        assert (new.not_before, new.not_after) == (NOW + timedelta(seconds=5), None)
        assert old.not_after == NOW + timedelta(seconds=10)
        jwks = bench.engine.published_jwks()
        assert [(key["kid"], key["crv"], "d" in key) for key in jwks["keys"]] == [
            ("new", "Ed25519", False),
            ("old", "Ed25519", False),
        ]

    def test_a_key_id_that_cannot_stand_in_a_url_is_refused_at_start(self) -> None:
        with pytest.raises(ValueError, match="key's id"):
            Bench(ed25519("a&sg_exp=9"))

    async def test_such_a_key_rotated_in_later_is_never_used(self) -> None:
        bench = await Bench(ed25519("good")).ready()
        bench.keys = KeySet((ed25519("a&b", nbf=EPOCH),))
        assert reason(await bench.result()) == "ALGORITHM_NOT_ENABLED"


class TestRequests:
    @pytest.mark.parametrize("ttl", [10, 10.5, 86_400])
    async def test_lifetimes_within_the_policy_are_granted(self, ttl: float) -> None:
        signed = await (await Bench().ready()).signed(ttl=ttl)
        assert signed.expires_at == NOW + timedelta(seconds=int(ttl))

    @pytest.mark.parametrize(
        "ttl", [0, -1, 9.999, 86_400.001, 1e300, float("inf"), float("-inf"), float("nan")]
    )
    async def test_lifetimes_outside_are_refused(self, ttl: float) -> None:
        assert reason(await (await Bench().ready()).result(ttl=ttl)) == "TTL_OUT_OF_RANGE"

    @pytest.mark.parametrize(
        "bounds", [(0.5, 0.5, 10), (10, 5, 20), (10, 30, 20), (10, 20, float("inf")), (float("nan"), 20, 30)]
    )
    def test_a_policy_that_contradicts_itself_is_refused(self, bounds: tuple[float, float, float]) -> None:
        shortest, default, longest = bounds
        with pytest.raises(ValueError, match="min_ttl"):
            NativePolicy(min_ttl=shortest, default_ttl=default, max_ttl=longest)

    async def test_an_algorithm_without_a_key_is_refused_for_its_member_alone(self) -> None:
        bench = await Bench(ed25519()).ready()
        wishes = [None, Algorithm.HMAC_SHA256, Algorithm.ED25519]
        results = await bench.engine.sign([SignRequest(ROOM, REQUEST_ID, algorithm=wish) for wish in wishes])
        assert [isinstance(result, Signed) for result in results] == [True, False, True]
        assert reason(results[1]) == "ALGORITHM_NOT_ENABLED"

    async def test_results_keep_the_order_of_a_long_list(self) -> None:
        bench = await Bench().ready()
        ids = [f"019b7c5e-4d88-7000-8000-{number:012x}" for number in range(BREATH * 2 + 5)]
        requests = [
            SignRequest(ROOM, request_id, ttl=5 if number % 3 == 0 else 60)
            for number, request_id in enumerate(ids)
        ]
        for number, result in enumerate(await bench.engine.sign(requests)):
            if number % 3 == 0:
                assert reason(result) == "TTL_OUT_OF_RANGE"
            else:
                assert isinstance(result, Signed)
                assert result.tokens["sg_id"] == ids[number]

    async def test_a_long_list_lets_others_run(self) -> None:
        """A list that held the event loop would hold every other caller's deadline too."""
        bench = await Bench().ready()
        turns: list[str] = []

        async def other() -> None:
            turns.append("other")

        task = asyncio.create_task(other())
        await bench.engine.sign([SignRequest(ROOM, REQUEST_ID)] * (BREATH + 1))
        turns.append("done")
        await task
        assert turns == ["other", "done"]

    async def test_a_member_whose_deadline_passed_is_not_signed(self) -> None:
        bench = await Bench().ready()
        now = bench.clock.monotonic()
        late, intime = await bench.engine.sign(
            [SignRequest(ROOM, REQUEST_ID, deadline=now), SignRequest(ROOM, REQUEST_ID, deadline=now + 1)]
        )
        assert reason(late) == "SIGN_DEADLINE_EXCEEDED"
        assert isinstance(intime, Signed)

    async def test_a_key_that_breaks_fails_its_members_with_no_word_of_why(self) -> None:
        bench = await Bench(ed25519(), hmac256()).ready()

        def broken(self: Ed25519Key, message: bytes) -> bytes:
            raise RuntimeError("private words")

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ed25519Key, "sign", broken)
            requests = [SignRequest(ROOM, REQUEST_ID, algorithm=algorithm) for algorithm in Algorithm]
            failed, fine = await bench.engine.sign(requests)
        assert reason(failed) == "ENGINE_FAILURE"
        assert isinstance(failed, SigngateError)
        assert "private" not in f"{failed} {failed!r}"
        assert isinstance(failed.__cause__, RuntimeError)
        assert isinstance(fine, Signed)

    async def test_the_callers_user_agent_comes_back_or_the_policys(self) -> None:
        bench = await Bench(policy=NativePolicy(user_agent="Default/1")).ready()
        results = await bench.engine.sign(
            [SignRequest(ROOM, REQUEST_ID, user_agent="UA/1"), SignRequest(ROOM, REQUEST_ID)]
        )
        assert [result.user_agent for result in results if isinstance(result, Signed)] == [
            "UA/1",
            "Default/1",
        ]


class TestPlatformTokens:
    async def test_ms_token_stands_in_the_url_and_is_signed(self) -> None:
        bench = await Bench().ready()
        signed = await bench.result(platform_tokens=True)
        assert isinstance(signed, Signed)
        marker = f"&msToken=signgate-{REQUEST_ID}&sg_v=1"
        assert marker in signed.signed_url
        verdict = bench.engine.verify(signed.signed_url, NOW)
        assert (verdict.valid, verdict.room) == (True, ROOM)
        assert bench.verdict(signed.signed_url.replace(marker, "&sg_v=1")) == "BAD_SIGNATURE"
        other = signed.signed_url.replace("msToken=signgate-0", "msToken=signgate-1")
        assert bench.verdict(other) == "NOT_CANONICAL"

    async def test_a_url_without_it_cannot_be_given_one(self) -> None:
        bench = await Bench().ready()
        url = (await bench.signed()).signed_url
        forged = url.replace("&sg_v=1", f"&msToken=signgate-{REQUEST_ID}&sg_v=1")
        assert bench.verdict(forged) == "BAD_SIGNATURE"

    @pytest.mark.parametrize("platform_tokens", [True, False])
    async def test_contract_tokens_are_never_empty(self, *, platform_tokens: bool) -> None:
        signed = await (await Bench().ready()).result(platform_tokens=platform_tokens)
        assert isinstance(signed, Signed)
        tokens = contract_tokens(signed)
        assert tokens["X-Bogus"] == tokens["sg_sig"] != ""
        assert REQUEST_ID in tokens["msToken"]

    def test_an_engines_own_platform_tokens_pass_unchanged(self) -> None:
        own = {"X-Bogus": "x", "msToken": "m", "X-Gnarly": "g"}
        assert contract_tokens(Signed("https://x", Bench().engine.describe().info, tokens=own)) == own


class TestLife:
    async def test_it_signs_only_while_started_and_its_canary_holds(self) -> None:
        bench = Bench()
        seen = []
        for step in (None, bench.engine.start, bench.engine.canary, bench.engine.stop, bench.engine.canary):
            if step is not None:
                await step()
            result = await bench.result()
            status = bench.engine.describe()
            assert status.ready is (status.not_ready_reason == "") is isinstance(result, Signed)
            seen.append(status.ready)
            if isinstance(result, SigngateError):
                assert (result.reason, result.status) == ("ENGINE_UNAVAILABLE", "UNAVAILABLE")
                assert result.retry_after is not None
        assert seen == [False, False, True, False, False]

    async def test_start_without_a_key_for_the_default_algorithm_says_so(self) -> None:
        with pytest.raises(SigngateError, match="no active ed25519 signing key"):
            await Bench(hmac256()).engine.start()

    async def test_a_failing_canary_closes_the_engine_and_a_good_one_opens_it_again(self) -> None:
        bench = await Bench().ready()
        good = bench.keys
        bench.clock.advance(1)
        bench.keys = KeySet((ed25519(exp=EPOCH + 1),))
        status = await bench.engine.canary()
        assert not status.ready
        assert "ed25519" in status.not_ready_reason
        assert status.canary_at == NOW + timedelta(seconds=1)
        assert reason(await bench.result()) == "ENGINE_UNAVAILABLE"
        bench.keys = good
        assert (await bench.engine.canary()).ready
        assert isinstance(await bench.result(), Signed)

    async def test_the_canary_fails_when_all_keys_are_gone(self) -> None:
        bench = await Bench().ready()
        bench.keys = KeySet(())
        assert not (await bench.engine.canary()).ready

    async def test_an_algorithm_whose_last_key_retired_closes_only_itself(self) -> None:
        bench = await Bench(ed25519(), hmac256(exp=EPOCH + 60)).ready()
        bench.clock.advance(60)
        status = await bench.engine.canary()
        assert (status.ready, status.algorithms) == (True, (Algorithm.ED25519,))

    async def test_the_canary_notices_a_key_that_signs_wrongly(self) -> None:
        bench = await Bench().ready()

        def wrong(self: Ed25519Key, message: bytes) -> bytes:
            return bytes(64)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Ed25519Key, "sign", wrong)
            status = await bench.engine.canary()
        assert "BAD_SIGNATURE" in status.not_ready_reason

    async def test_describe_tells_version_age_and_algorithms(self) -> None:
        bench = Bench()
        bench.clock.advance(5)
        await bench.ready()
        status = bench.engine.describe()
        assert status.info.since == NOW + timedelta(seconds=5)
        assert status.info.version == "signed-url-v1"
        assert status.algorithms == (Algorithm.ED25519, Algorithm.HMAC_SHA256)


async def test_no_repr_shows_a_signature_or_a_key() -> None:
    """A signed URL is a credential until it expires, and values get logged."""
    bench = await Bench().ready()
    signed = await bench.signed()
    shown = f"{signed!r} {bench.engine!r} {bench.keys!r}"
    assert signed.tokens["sg_sig"] not in shown
    assert "01010101" not in shown
