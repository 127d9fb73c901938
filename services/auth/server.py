"""How the auth service is put together, and in which order it starts; it stops in the reverse."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from argon2 import PasswordHasher

from servicekit import log
from servicekit.authn import CredentialAuthenticator
from servicekit.clock import SystemClock, SystemEntropy, SystemIds
from servicekit.errors import Unavailable
from servicekit.inside import Inside
from servicekit.keyset import KeySetFile
from servicekit.mail import Smtp
from servicekit.peers import KeyServiceClient
from servicekit.postgres import open_database
from servicekit.redis import CONNECTIONS, DeniedSessions, open_redis
from servicekit.rpc import create_channel, create_server
from servicekit.runner import Runtime
from servicekit.tokens import Issuer, JwtVerifier
from services.auth.config import AuthSettings
from services.auth.hash_formats import ImportLimits
from services.auth.http import create_app
from services.auth.later import Later
from services.auth.limits import LIMITS, RateLimits
from services.auth.mail.letters import LetterWriter
from services.auth.mail.outbox import Outbox
from services.auth.passwords import Passwords, breached
from services.auth.redirects import Redirects
from services.auth.secrets import Secrets
from services.auth.service import AuthService, Kit, Rules
from services.auth.service.familiar import Familiar
from services.auth.service.revocation import keep_denying
from services.auth.servicer import AuthAdminServicer, AuthServicer, NoticeServicer
from services.auth.store import Store
from services.auth.tokens import AccessTokens, OwnKeys
from signgate.auth.v1.admin_pb2_grpc import add_AuthAdminServiceServicer_to_server
from signgate.auth.v1.auth_pb2_grpc import add_AuthServiceServicer_to_server
from signgate.auth.v1.notices_pb2_grpc import add_NoticeServiceServicer_to_server

SWEEP_EVERY: Final = 600.0
_redis_timeout: Final = 1.0
_log = log.get("auth")


async def compose(runtime: Runtime) -> None:
    """Keys → PostgreSQL → Redis → mail → use cases → gRPC and HTTP faces."""
    settings = runtime.settings
    if not isinstance(settings, AuthSettings):
        raise TypeError("auth's settings")
    clock, ids = SystemClock(), SystemIds()
    inside = Inside.of("auth", settings, clock)
    pepper, redis_url = settings.token_pepper.get_secret_value(), settings.redis_address()
    keys = KeySetFile(settings.jwt_keyset_file, clock)
    database = await runtime.connect(
        "PostgreSQL",
        lambda: open_database(
            settings.postgres_dsn.get_secret_value(), name="auth", max_size=settings.postgres_pool
        ),
    )
    redis = await runtime.connect("Redis", lambda: open_redis(redis_url, timeout=_redis_timeout, name="auth"))
    if settings.limits_redis_url is None:
        _log.warning("the rate limits' counters share the memory that signing needs")
    store, secrets = Store(database), Secrets(pepper, SystemEntropy())
    limits = RateLimits(
        settings.other_redis_address("limits_redis_url") or redis_url,
        {name: getattr(settings, name) for name in LIMITS},
        pepper,
        clock,
        Familiar(store, secrets, clock),
        socket_timeout=_redis_timeout,
        client_name="auth-limits",
        **CONNECTIONS,
    )
    runtime.stack.push_async_callback(limits.close)
    passwords = _passwords(settings)
    runtime.stack.callback(passwords.close)
    breached()  # read now rather than in somebody's sign-up
    outbox = _outbox(settings, clock)
    runtime.background("mail", outbox.run())
    runtime.stack.push_async_callback(outbox.drain, settings.drain_grace)
    denials = DeniedSessions(redis)
    runtime.background("sweep", _sweep(store))
    later = Later()
    runtime.stack.push_async_callback(later.drain, settings.drain_grace)
    tokens = AccessTokens(
        keys,
        clock,
        ids,
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        ttl=settings.access_token_ttl,
    )
    kit = Kit(
        store=store,
        passwords=passwords,
        secrets=secrets,
        tokens=tokens,
        postman=outbox,
        background=later,
        limits=limits,
        denials=denials,
        clock=clock,
        ids=ids,
        rules=rules(settings),
    )
    runtime.background("revocation", keep_denying(kit))
    service = AuthService(kit)
    keys_channel = await runtime.enter(create_channel(settings.keys_addr, peer=inside.peer("keys")))
    issuer = Issuer(settings.jwt_issuer, "", settings.jwt_audience)
    authenticator = CredentialAuthenticator(
        JwtVerifier([issuer], clock=clock, keys={issuer.name: OwnKeys(keys)}),
        denials,
        KeyServiceClient(keys_channel),
    )
    server = create_server(authenticator=authenticator, callers=inside.callers, edge=inside.edge, clock=clock)
    server.add(AuthServicer(service), add_AuthServiceServicer_to_server)
    server.add(AuthAdminServicer(service), add_AuthAdminServiceServicer_to_server)
    server.add(NoticeServicer(service.notices), add_NoticeServiceServicer_to_server)
    runtime.readiness("postgres", database.ping)
    if settings.http_listen is not None:
        await runtime.serve_http(create_app(service, authenticator, inside.edge, clock), settings.http_listen)
    await runtime.serve(server, settings.grpc_listen)


def rules(settings: AuthSettings) -> Rules:
    """The deployment's choices as the use cases want them."""
    timebox = settings.session_timebox
    return Rules(
        site_url=settings.site_url,
        link_base=settings.jwt_issuer,
        redirects=Redirects(settings.site_url, settings.redirect_urls),
        signup_enabled=settings.signup_enabled,
        signup_tells_existing=settings.signup_tells_existing,
        auto_confirm=settings.auto_confirm,
        secure_email_change=settings.secure_email_change,
        password_min_length=settings.password_min_length,
        names=("signgate", settings.mail_product, *(urlsplit(settings.site_url).hostname or "").split(".")),
        reuse_window=timedelta(seconds=settings.reuse_window),
        session_inactivity=timedelta(seconds=settings.session_inactivity),
        session_timebox=None if timebox is None else timedelta(seconds=timebox),
        code_ttl=timedelta(seconds=settings.code_ttl),
        invite_ttl=timedelta(seconds=settings.invite_ttl),
        flow_ttl=timedelta(seconds=settings.flow_ttl),
        challenge_ttl=timedelta(seconds=settings.challenge_ttl),
        totp_issuer=settings.totp_issuer,
        even_answer=settings.even_answer,
        passkeys=settings.passkeys(),
        imported_hashes=ImportLimits(
            bcrypt_cost=settings.imported_bcrypt_cost,
            argon2_memory_kib=settings.imported_argon2_memory_kib,
            argon2_time_cost=settings.imported_argon2_time_cost,
            argon2_parallelism=settings.imported_argon2_parallelism,
        ),
    )


def _passwords(settings: AuthSettings) -> Passwords:
    hasher = PasswordHasher(
        time_cost=settings.argon2_time_cost,
        memory_cost=settings.argon2_memory_kib,
        parallelism=settings.argon2_parallelism,
    )
    return Passwords(
        hasher, threads=settings.hash_threads, queue=settings.hash_queue, max_wait=settings.hash_max_wait
    )


def _outbox(settings: AuthSettings, clock: SystemClock) -> Outbox:
    writer = LetterWriter(
        settings.mail_from, settings.mail_product, settings.site_url, clock, settings.mail_templates
    )
    return Outbox(Smtp(settings), writer, room=settings.mail_queue)


async def _sweep(store: Store) -> None:
    while True:
        await asyncio.sleep(SWEEP_EVERY)
        try:
            await store.sweep()
        except Unavailable as error:
            _log.warning("the sweep was put off", cause=error.__cause__)
