"""Which credential counts, what it must be, and that doubt refuses."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from servicekit import context
from servicekit.authn import CredentialAuthenticator, SessionState, find_credential
from servicekit.errors import SigngateError, Unauthenticated, Unavailable
from servicekit.keyset import generate
from servicekit.principal import ALL_SCOPES, Principal
from servicekit.testing.clock import ManualClock
from servicekit.testing.tokens import FakeKeys, FakeSessions, TokenMint
from servicekit.tokens import NOBODY, Issuer, TokenAudience, TokenExpired, TokenInvalid

USER = uuid4()
KEY = Principal(USER, api_key_id=uuid4(), scopes=frozenset({"sign"}))
JWT = "eyJh.eyJi.c2ln"


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode("latin-1")).decode()


class TestFindCredential:
    def test_none(self) -> None:
        assert find_credential([("user-agent", "x")]) is None

    @pytest.mark.parametrize(
        ("metadata", "kind", "secret"),
        [
            (bearer(JWT), "jwt", JWT),
            (bearer("sgk_live_abc"), "key", "sgk_live_abc"),
            ([("authorization", f"bearer  {JWT} ")], "jwt", JWT),
            ([("x-api-key", " sgk_live_abc ")], "key", "sgk_live_abc"),
            ([("x-api-key", JWT)], "key", JWT),
            ([*bearer(JWT), ("x-api-key", "sgk_live_abc")], "key", "sgk_live_abc"),
            (bearer("eyJ.two-parts"), "key", "eyJ.two-parts"),
            ([("authorization", basic("sgk_live_abc:"))], "key", "sgk_live_abc"),
            ([("authorization", basic("sgt_a.b.c:").replace("Basic", "bAsIC "))], "key", "sgt_a.b.c"),
            ([("x-api-key", " "), *bearer(JWT)], "jwt", JWT),
            ([("x-api-key", ""), ("x-api-key", "sgk_live_abc")], "key", "sgk_live_abc"),
            ([("apikey", "sgk_live_other"), *bearer("sgk_live_abc")], "key", "sgk_live_abc"),
            ([("apikey", "a"), ("apikey", "b"), *bearer(JWT)], "jwt", JWT),
        ],
    )
    def test_kind_and_secret(self, metadata: list[tuple[str, str]], kind: str, secret: str) -> None:
        found = find_credential(metadata)
        assert found is not None
        assert (found.kind, found.secret) == (kind, secret)

    @pytest.mark.parametrize(
        "value",
        [
            "Bearer",
            "Bearer   ",
            "sgk_live_abc",
            "Digest sgk_live_abc",
            "Basic",
            "Basic ",
            basic("u:p"),
            basic("sgk_live_abc"),
            basic(":sgk_live_abc"),
            basic("sgk_live_abc:x"),
            basic("sgk_live_abc::"),
            basic(":"),
            basic("sgk_live_abc\xff:"),
            basic("sgk_live_abc:").rstrip("="),
            basic("sgk_live_abc:") + "*",
            "Basic sgk_live_abc",
            basic("k" * 1100 + ":"),
        ],
    )
    def test_another_scheme_is_refused_rather_than_passed_over(self, value: str) -> None:
        with pytest.raises(Unauthenticated) as caught:
            find_credential([("authorization", value)])
        assert caught.value.reason == "CREDENTIAL_MALFORMED"

    @pytest.mark.parametrize(
        "metadata",
        [
            [("x-api-key", "sgk_live_abc"), ("x-api-key", "sgk_live_def")],
            [("x-api-key", "sgk_live_abc"), ("x-api-key", "sgk_live_abc")],
            [("x-api-key", "sgk_live_abc"), ("x-api-key", b"sgk_live_abc\xff")],
            [("x-api-key", "sgk_live_abc,sgk_live_def")],
            [("x-api-key", "sgk_live_abc, ")],
            [*bearer("sgk_live_abc"), *bearer("sgk_live_abc")],
            [*bearer(JWT), *bearer(JWT)],
            [*bearer(JWT), ("x-api-key", "sgk_live_abc"), *bearer("eyJh.eyJi.b3RoZXI")],
            bearer(f"{JWT},Bearer {JWT}"),
            bearer("sgk_live_abc, Bearer sgk_live_def"),
            [*bearer("sgk_live_abc"), ("x-api-key", "sgk_live_abc")],
            [("x-api-key", "sgk_live_abc"), ("authorization", basic("sgk_live_def:"))],
            [("x-api-key", "sgk_live_abc"), ("authorization", basic("sgk_live_abc:"))],
            [("x-api-key", "sgk_live_abc"), ("authorization", "Digest x")],
            [*bearer(JWT), ("authorization", basic("sgk_live_abc:"))],
        ],
    )
    @pytest.mark.parametrize("turn", [list, lambda pairs: pairs[::-1], iter])
    def test_more_than_one_is_refused(
        self, metadata: list[tuple[str, str | bytes]], turn: Callable[[Any], Any]
    ) -> None:
        """S25."""
        with pytest.raises(Unauthenticated) as caught:
            find_credential(turn(metadata))
        assert caught.value.reason == "CREDENTIAL_AMBIGUOUS"

    @pytest.mark.parametrize(
        ("metadata", "reason"),
        [
            ([("x-api-key", "k" * 1025)], "KEY_MALFORMED"),
            ([("authorization", "Bearer " + "k" * 1025)], "KEY_MALFORMED"),
            ([("authorization", "Bearer eyJ" + "." * 1025)], "KEY_MALFORMED"),
            ([("x-api-key", "k" * 20_000)], "CREDENTIAL_MALFORMED"),
            ([("authorization", "Bearer eyJ." + "a" * 20_000 + ".b")], "CREDENTIAL_MALFORMED"),
        ],
    )
    def test_what_is_longer_than_any_credential_is_not_read(
        self, metadata: list[tuple[str, str]], reason: str
    ) -> None:
        with pytest.raises(Unauthenticated) as refused:
            find_credential(metadata)
        assert refused.value.reason == reason

    def test_a_credential_does_not_show_in_a_repr(self) -> None:
        assert "abc" not in repr(find_credential(bearer("sgk_live_abc")))

    def test_a_keys_address_is_that_of_the_call_and_not_what_its_headers_say(self) -> None:
        token = context.enter(context.CallContext(locate=lambda *_: "10.0.0.9"))
        found = find_credential([("x-api-key", "k"), ("x-forwarded-for", "6.6.6.6")])
        context.leave(token)
        assert found is not None
        assert found.client_ip == "10.0.0.9"


class TestTokens:
    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def mint(self, clock: ManualClock) -> TokenMint:
        return TokenMint(clock=clock)

    async def test_a_good_token_is_its_user(self, mint: TokenMint) -> None:
        session = uuid4()
        principal = await mint.verifier().verify(mint.token(USER, session_id=str(session), aal="aal2"))
        proved = int(mint.clock.time())
        assert principal == Principal(
            USER, session_id=session, aal="aal2", scopes=ALL_SCOPES, proved_at=proved
        )

    async def test_tier_comes_from_the_issuers_own_metadata(self, mint: TokenMint) -> None:
        """`user_metadata` is the user's own to write."""
        token = mint.token(app_metadata={"tier": "api_key"}, user_metadata={"tier": "gold"})
        assert (await mint.verifier().verify(token)).tier == "api_key"

    async def test_a_service_role_token_needs_no_user(self, mint: TokenMint) -> None:
        claims: dict[str, Any] = {"role": "service_role", "sub": None, "session_id": None}
        principal = await mint.verifier().verify(mint.token(**claims))
        assert principal.is_service_role
        assert principal.user_id == NOBODY

    @pytest.mark.parametrize(
        "changes",
        [
            {"sub": None},
            {"sub": "not-a-uuid"},
            {"session_id": None},
            {"role": "anon"},
            {"role": "postgres"},
            {"role": None},
            {"iss": "http://elsewhere.test"},
            {"exp": None},
            {"iat": None},
            {"aud": None},
            {"exp": "tomorrow"},
            {"session_id": 5},
            {"aal": 2},
            {"mfa": "false"},
            {"mfa": 0},
            {"assurance_version": "0"},
            {"assurance_version": True},
            {"assurance_version": -1},
            {"assurance_version": 1.0},
            {"amr": {}},
            {"amr": "otp"},
            {"amr": ["otp"]},
            {"amr": [{"method": "otp", "timestamp": "now"}]},
            {"amr": [{"method": "otp", "timestamp": True}]},
            {"amr": [{"method": "otp", "timestamp": 10**400}]},
        ],
    )
    async def test_wrong_claims(self, mint: TokenMint, changes: dict[str, object]) -> None:
        with pytest.raises((TokenInvalid, TokenAudience)):
            await mint.verifier().verify(mint.token(USER, **changes))

    async def test_a_token_says_how_it_was_proved(self, mint: TokenMint) -> None:
        amr = [{"method": "totp", "timestamp": 500}, {"method": "password", "timestamp": 700}]
        token = mint.token(USER, mfa=True, assurance_version=3, amr=amr)
        found = await mint.verifier().verify(token)
        assert (found.has_factor, found.assurance_version, found.proved_at) == (True, 3, 700)

    async def test_an_own_token_without_the_claims_counts_as_of_an_old_sign_in_to_a_protected_account(
        self, mint: TokenMint
    ) -> None:
        found = await mint.verifier().verify(mint.token(USER, mfa=None, assurance_version=None, amr=None))
        assert (found.has_factor, found.assurance_version, found.proved_at) == (True, 0, 0)

    @pytest.mark.parametrize(
        ("claims", "proved"),
        [
            ({"amr": None}, 0),
            ({"amr": ["pwd", "otp"]}, 0),
            ({"amr": ["pwd"], "auth_time": 600}, 600),
            ({"amr": [{"method": "password", "timestamp": 700}], "auth_time": 600}, 700),
        ],
    )
    async def test_an_outside_issuer_decides_about_its_own_factors(
        self, mint: TokenMint, claims: dict[str, Any], proved: int
    ) -> None:
        mint.issuer = replace(mint.issuer, own=False)
        token = mint.token(USER, mfa="of another meaning", assurance_version="v2", **claims)
        found = await mint.verifier().verify(token)
        assert (found.has_factor, found.assurance_version, found.proved_at) == (False, 0, proved)

    @pytest.mark.parametrize("auth_time", ["now", True, -1, 1.5, 10**400])
    async def test_an_outside_issuers_odd_times(self, mint: TokenMint, auth_time: object) -> None:
        mint.issuer = replace(mint.issuer, own=False)
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(mint.token(USER, auth_time=auth_time))

    async def test_another_audience(self, mint: TokenMint) -> None:
        with pytest.raises(TokenAudience):
            await mint.verifier().verify(mint.token(USER, aud="somebody-else"))

    async def test_a_token_from_the_future(self, mint: TokenMint, clock: ManualClock) -> None:
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(mint.token(USER, nbf=int(clock.time()) + 60))

    async def test_expiry_holds_also_for_a_token_that_was_seen_before(
        self, mint: TokenMint, clock: ManualClock
    ) -> None:
        verifier, token = mint.verifier(), mint.token(USER)
        await verifier.verify(token)
        clock.advance(3600 + 4)
        await verifier.verify(token)
        clock.advance(1)
        with pytest.raises(TokenExpired):
            await verifier.verify(token)
        with pytest.raises(TokenExpired):
            await verifier.verify(token)

    async def test_a_forged_signature(self, mint: TokenMint) -> None:
        head, body, signature = mint.token(USER).split(".")
        forged = ("A" if signature[0] != "A" else "B") + signature[1:]
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(f"{head}.{body}.{forged}")

    async def test_a_payload_that_was_changed(self, mint: TokenMint) -> None:
        head, _, signature = mint.token(USER).split(".")
        other = mint.token(uuid4()).split(".")[1]
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(f"{head}.{other}.{signature}")

    async def test_a_good_signature_by_a_key_of_the_same_id_that_is_not_published(
        self, mint: TokenMint
    ) -> None:
        stranger = generate("ES256", 0)
        token = jwt.encode(mint.claims(USER), stranger.key, algorithm="ES256", headers={"kid": mint.key.kid})
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(token)

    async def test_an_unsigned_token(self, mint: TokenMint) -> None:
        token = jwt.encode(mint.claims(USER), "", algorithm="none", headers={"kid": mint.key.kid})
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(token)

    @pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
    async def test_the_public_key_used_as_a_shared_secret(self, mint: TokenMint) -> None:
        secret = str(mint.key.public_jwk()["x"])
        token = jwt.encode(mint.claims(USER), secret, algorithm="HS256", headers={"kid": mint.key.kid})
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(token)

    @pytest.mark.parametrize("kid", [None, "unknown"])
    async def test_no_key_or_an_unknown_one(self, mint: TokenMint, kid: str | None) -> None:
        headers = {"kid": kid} if kid else {}
        token = jwt.encode(mint.claims(USER), mint.key.key, algorithm="ES256", headers=headers)
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(token)

    @pytest.mark.parametrize("token", ["", "eyJ..", JWT, "a.b.c", "é.é.é", "eyJ" + "A" * 9000 + ".a.b"])
    async def test_garbage(self, mint: TokenMint, token: str) -> None:
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(token)

    @pytest.mark.parametrize("part", ["header", "payload"])
    async def test_json_that_is_as_deep_as_the_token_is_long(self, mint: TokenMint, part: str) -> None:
        deep = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"k","iss":' + b"[" * 9000).decode().rstrip("=")
        plain = base64.urlsafe_b64encode(b'{"alg":"ES256","kid":"k"}').decode().rstrip("=")
        token = f"{deep}.{plain}.AA" if part == "header" else f"{plain}.{deep}.AA"
        with pytest.raises(TokenInvalid):
            await mint.verifier().verify(token)

    def test_symmetric_algorithms_can_not_be_configured(self) -> None:
        with pytest.raises(ValueError, match="ES256"):
            Issuer("i", "u", algorithms=("HS256",))

    async def test_the_cache_is_bounded(self, mint: TokenMint) -> None:
        verifier = mint.verifier()
        verifier._size = 3
        for _ in range(10):
            await verifier.verify(mint.token())
        assert len(verifier._good) == 3


class Down:
    async def states(self, session_ids: Sequence[str]) -> Sequence[SessionState]:
        raise Unavailable(reason="REDIS_UNAVAILABLE")


class TestAuthenticator:
    def authenticator(self, mint: TokenMint, sessions: object = None) -> CredentialAuthenticator:
        return CredentialAuthenticator(
            mint.verifier(),
            sessions or FakeSessions(),  # type: ignore[arg-type]
            FakeKeys({"sgk_live_good": KEY}),
        )

    async def reason(self, authenticator: CredentialAuthenticator, metadata: list[tuple[str, str]]) -> str:
        with pytest.raises(SigngateError) as caught:
            await authenticator.authenticate(metadata)
        return caught.value.reason

    async def test_either_kind(self) -> None:
        mint = TokenMint()
        both = self.authenticator(mint)
        assert await both.authenticate([("x-api-key", "sgk_live_good")]) == KEY
        assert (await both.authenticate(bearer(mint.token(USER)))).user_id == USER

    async def test_nothing(self) -> None:
        assert await self.reason(self.authenticator(TokenMint()), []) == "CREDENTIAL_MISSING"

    async def test_a_bad_key_is_not_rescued_by_a_good_token(self) -> None:
        mint = TokenMint()
        metadata = [*bearer(mint.token(USER)), ("x-api-key", "sgk_live_bad")]
        assert await self.reason(self.authenticator(mint), metadata) == "KEY_UNKNOWN"

    async def test_a_revoked_session_is_refused_though_its_token_holds(self) -> None:
        mint, sessions, session = TokenMint(), FakeSessions(), str(uuid4())
        authenticator = self.authenticator(mint, sessions)
        token = mint.token(USER, session_id=session)
        assert (await authenticator.authenticate(bearer(token))).session_id == UUID(session)
        sessions.revoked.add(session)
        assert await self.reason(authenticator, bearer(token)) == "SESSION_REVOKED"

    @pytest.mark.parametrize("protected", [True, False])
    async def test_older_tokens_of_a_lowered_session_count_as_aal1(self, *, protected: bool) -> None:
        """S11. Newer ones say what is so; without any factor left there is nothing to protect."""
        mint, sessions, session = TokenMint(), FakeSessions(), str(uuid4())
        authenticator = self.authenticator(mint, sessions)
        sessions.lowered[session] = 3
        if not protected:
            sessions.unprotected.add(session)
        for version, aal, factor in ((0, "aal1", protected), (2, "aal1", protected), (3, "aal2", None)):
            claims = {"session_id": session, "aal": "aal2", "assurance_version": version}
            for mfa in (True, False):
                found = await authenticator.authenticate(bearer(mint.token(USER, mfa=mfa, **claims)))
                assert (found.aal, found.has_factor) == (aal, mfa if factor is None else factor), version

    async def test_without_the_deny_set_nobody_is_let_in(self) -> None:
        mint = TokenMint()
        authenticator = self.authenticator(mint, Down())
        assert await self.reason(authenticator, bearer(mint.token(USER))) == "REDIS_UNAVAILABLE"

    def test_tokens_without_a_deny_set_can_not_be_configured(self) -> None:
        with pytest.raises(ValueError, match="revoked"):
            CredentialAuthenticator(TokenMint().verifier(), None, None)

    async def test_a_service_may_take_one_kind_only(self) -> None:
        mint = TokenMint()
        tokens_only = CredentialAuthenticator(mint.verifier(), FakeSessions(), None)
        keys_only = CredentialAuthenticator(None, None, FakeKeys())
        assert await self.reason(tokens_only, [("x-api-key", "k")]) == "ACCESS_TOKEN_REQUIRED"
        assert await self.reason(keys_only, bearer(mint.token(USER))) == "API_KEY_REQUIRED"


async def test_a_clock_that_runs_a_little_ahead_is_borne_with() -> None:
    clock = ManualClock()
    mint = TokenMint(clock=clock)
    verifier = mint.verifier()
    token = mint.token(USER, iat=int(clock.time()) + 4)
    assert (await verifier.verify(token)).user_id == USER
    late = mint.token(USER, exp=int((clock.now() - timedelta(seconds=4)).timestamp()))
    assert (await verifier.verify(late)).user_id == USER
