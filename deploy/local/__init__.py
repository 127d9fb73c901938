"""The whole product on one machine, from wheels: PostgreSQL, Redis, a mail catcher, the services, Envoy.

Everything it writes is under one run directory (`SIGNGATE_RUN_DIR`, by default `.run`), every port is
shifted by `SIGNGATE_PORT_SHIFT`, so that several stacks can run side by side. supervisord keeps the
processes; this package writes its configuration, brings the parts up in order and waits until they serve.

    layout       where things are: paths and ports
    secrets      passwords, peppers and key sets, made once
    unprivileged PostgreSQL refuses to run as root: as whom, and from where, it runs
    postgres     the database: created, migrated, passwords set
    programs     what runs, as supervisord's configuration
    supervisor   talking to supervisord
    ports        is a port free, and who has it
    readiness    waiting until a part serves
    stack        the commands: up, down, restart, ...
    mail         the mail catcher, a program of its own
"""
