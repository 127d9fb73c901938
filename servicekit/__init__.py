"""What every service shares; it knows no service.

    errors      the one error tree: status, reason, public message
    principal   who is calling, and scopes
    context     request id, principal and deadline of the call being served
    config      frozen settings from the environment, checked at start
    clock       time, ids and randomness, passed in
    log         JSON lines, redacted
    telemetry   Prometheus metrics
    rpc         gRPC servers and channels: policy, authentication, errors on the wire, metrics
    inside      a service among others: its `identity`, who may call it, the `edge` that it trusts
    tls         certificates of listeners and channels; `stores`, which stores are reached without
    watched     files that are replaced under a running service
    authn       metadata to principal; `tokens` verifies JWTs, `peers` asks the key service
    apikey      the format of API keys, and its checksum
    batching    the coalescing batcher
    postgres    pool, transactions, reading as a user
    redis       client, scripts, the deny-set of sessions
    keyset      signing keys in files, with rotation
    runner      ordered start and stop of a process; `http` serves an ASGI app in it
    testing     fakes and fixtures for tests

A service's `server.py` composes it, from what is needed first to what takes calls:

    async def compose(settings: KeysSettings, run: Runtime) -> None:
        database = await run.connect("postgres", partial(open_database, dsn, name="keys"))
        redis = await run.connect("redis", partial(open_redis, redis_url))
        service = KeysService(PostgresKeyStore(database), clock=SystemClock(), ids=SystemIds())
        run.background("invalidations", service.listen_for_revocations())
        run.readiness("postgres", database.ping)

        tokens = JwtVerifier([Issuer(settings.jwt_issuer, settings.jwks_url)])
        authenticator = CredentialAuthenticator(tokens, DeniedSessions(redis), LocalKeys(service))
        inside = Inside.of("keys", settings)
        server = create_server(authenticator=authenticator, callers=inside.callers, edge=inside.edge)
        server.add(KeysServicer(service), add_KeysServiceServicer_to_server)
        await run.serve(server, settings.grpc_listen)

and `__main__.py` runs it:

    settings = load(KeysSettings)
    run("keys", settings, partial(compose, settings))
"""
