"""How the keys service is put together, and in which order it starts; it stops in the reverse.

It validates on without Redis, so it starts without Redis too: revocations then take the records'
soft age, and logins are refused, for nobody can say which sessions were revoked.
"""

from __future__ import annotations

from servicekit.authn import CredentialAuthenticator
from servicekit.clock import SystemClock, SystemEntropy, SystemIds
from servicekit.inside import Inside
from servicekit.postgres import open_database
from servicekit.redis import DeniedSessions, open_redis
from servicekit.rpc import create_server
from servicekit.runner import Runtime
from servicekit.tokens import JwtVerifier
from servicekit.turns import SharedDatabase, Turns
from services.keys.config import KeysSettings
from services.keys.derived import DerivedTokens, token_keyring
from services.keys.invalidation import Invalidation, Subscription
from services.keys.local import LocalKeys, ProvenKeys
from services.keys.notices import open_notices
from services.keys.operators import KeyOperators
from services.keys.peppers import Peppers
from services.keys.record_store import RecordStore
from services.keys.records import Bounds, Records
from services.keys.rehash import Rehasher
from services.keys.service import KeysService, Minting
from services.keys.servicer import DEFERRED, KeysAdminServicer, KeysServicer, KeyValidationServicer
from services.keys.store import KeyStore
from services.keys.sweep import sweep
from services.keys.validation import Validator
from signgate.keys.v1.admin_pb2_grpc import add_KeysAdminServiceServicer_to_server
from signgate.keys.v1.keys_pb2_grpc import add_KeysServiceServicer_to_server
from signgate.keys.v1.validation_pb2_grpc import add_KeyValidationServiceServicer_to_server


async def compose(runtime: Runtime) -> None:
    """Pools → records → validator → service → servicers."""
    settings = runtime.settings
    if not isinstance(settings, KeysSettings):
        raise TypeError("the keys service's settings")
    clock = SystemClock()
    inside = Inside.of("keys", settings, clock)
    dsn, redis_url = settings.postgres_dsn.get_secret_value(), settings.redis_address()

    owners = await runtime.connect("PostgreSQL", lambda: open_database(dsn, name="keys"))
    # Reads for validation have connections of their own, which owners' work can't use up, and give
    # up sooner: while they wait, signatures wait.
    reads = await runtime.connect(
        "PostgreSQL",
        lambda: open_database(
            dsn, name="keys-records", max_size=3, acquire_timeout=1.0, statement_timeout=1.0
        ),
    )
    redis = await runtime.enter(open_redis(redis_url, name="keys", timeout=1.0, must_answer=False))

    keyring = settings.keyring()
    peppers, tokens = Peppers(keyring), DerivedTokens(token_keyring(keyring), clock)
    record_store = RecordStore(reads)
    bounds = Bounds(soft=settings.soft_age, hard=settings.hard_age, size=settings.record_cache)
    records = Records(record_store.read, clock, bounds)
    rehasher = Rehasher(record_store.repepper, peppers)
    validator = Validator(records, peppers, tokens, clock, rehasher.add)
    subscription = Subscription(redis_url, records.forget, records.distrust_all)
    # Changes of one user's keys wait for each other inside the database, each with a connection.
    store = KeyStore(SharedDatabase(owners, Turns(at_once=2, waiting=64)))
    invalidation = Invalidation(redis, records.forget)
    notices = await open_notices(runtime, inside, settings.auth_addr, clock)
    service = KeysService(
        store,
        invalidation,
        Minting(keyring, peppers, tokens, clock, SystemIds(), SystemEntropy()),
        notices=notices,
        engines=frozenset(settings.engines),
        key_limit=settings.key_limit,
    )
    access_tokens, sessions = JwtVerifier(settings.issuers(), clock=clock), DeniedSessions(redis)
    authenticator = CredentialAuthenticator(access_tokens, sessions, LocalKeys(validator))
    finders = CredentialAuthenticator(access_tokens, sessions, ProvenKeys(validator))

    server = create_server(
        authenticator=authenticator,
        deferred=DEFERRED,
        callers=inside.callers,
        edge=inside.edge,
        clock=clock,
    )
    server.add(KeysServicer(service, clock, finders), add_KeysServiceServicer_to_server)
    operators = KeyOperators(store, invalidation, notices, clock)
    server.add(KeysAdminServicer(operators, clock), add_KeysAdminServiceServicer_to_server)
    server.add(KeyValidationServicer(validator), add_KeyValidationServiceServicer_to_server)
    runtime.background("rehash", rehasher.run())
    runtime.background("keep records fresh", records.keep_fresh())
    runtime.background("old answers", sweep(record_store.drop_old_answers))
    runtime.background("invalidations", subscription.run())
    # Not PostgreSQL: warm keys are validated without it, and a replica that withdrew could serve none.
    await runtime.serve(server, settings.grpc_listen)
