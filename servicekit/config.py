"""The base of every service's configuration: frozen, validated at start, the only reader of the environment.

Each setting is an environment variable with the prefix `SIGNGATE_`. A secret (a `SecretStr` field)
may be given instead as a file: `SIGNGATE_POSTGRES_DSN_FILE=/run/secrets/dsn` fills
`postgres_dsn` with that file's text, less a trailing newline; the file wins over the variable. A setting
that is a file itself (a `Path`, such as `SIGNGATE_SERVICE_KEY`) takes the same name: `…_FILE` is its path.

    class KeysSettings(ServiceSettings):
        postgres_dsn: SecretStr
        max_age_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0

    settings = load(KeysSettings)

No value of any setting is printed, neither by an error nor by `repr` of a secret.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, Self, TypeVar

import pydantic_settings
from pydantic import BeforeValidator, PlainSerializer, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from servicekit import stores

PREFIX: Final = "SIGNGATE_"
EX_CONFIG: Final = 78
"""Exit status of a process whose configuration is wrong (sysexits.h)."""


_MAX_PORT: Final = 65535


class Address(NamedTuple):
    """A host and a port to listen on. Port 0 asks the system for a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(text: object) -> Address:
    """`127.0.0.1:7101`, `[::1]:7101`, or `:7101` for every interface. Raises `ValueError`."""
    if isinstance(text, Address):
        return text
    if not isinstance(text, str):
        raise ValueError("must be text of the form host:port")  # noqa: TRY004  # pydantic wants ValueError
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ValueError("must be host:port with a port from 0 to 65535")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 host stands in brackets, as in [::1]:7101")
    return Address(host or "::", int(port))


ListenAddress = Annotated[Address, NoDecode, BeforeValidator(parse_address), PlainSerializer(str)]
"""The type of a setting that says where to listen."""


class SecretFiles(PydanticBaseSettingsSource):
    """Fills a secret field from the file named by `<PREFIX><FIELD>_FILE`, a path with the name itself."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The file's text, or `None` when no file is named. Raises `OSError` when it can't be read."""
        path = os.environ.get(f"{PREFIX}{field_name.upper()}_FILE")
        kind = repr(field.annotation)
        if path and "Path" in kind:
            return path, field_name, False
        if not path or "SecretStr" not in kind:
            return None, field_name, False
        return Path(path).read_text(encoding="utf-8").rstrip("\r\n"), field_name, False

    def __call__(self) -> dict[str, Any]:
        """All secrets that are given as files."""
        found = {}
        for name, field in self.settings_cls.model_fields.items():
            value, _, _ = self.get_field_value(field, name)
            if value is not None:
                found[name] = value
        return found


class Settings(BaseSettings):
    """A frozen set of settings with the prefix `SIGNGATE_`."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="ignore", hide_input_in_errors=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # pydantic's signature
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003  # likewise
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments first (tests), then secret files, then the environment; no dotenv."""
        return init_settings, SecretFiles(settings_cls), env_settings


def listed(text: object) -> object:
    """The parts of a comma-separated setting."""
    return [part.strip() for part in text.split(",") if part.strip()] if isinstance(text, str) else text


class StoreSettings(Settings):
    """Where PostgreSQL and Redis are, for whatever has settings named `…postgres_dsn` or `…redis_url`.

    A remote store without TLS is refused at start; see `servicekit.stores`.
    `redis_ca`: a file with the authority of Redis' certificate; without it the system's authorities are used.
    PostgreSQL's authority is in the connection string, as `sslrootcert`.
    `plaintext_stores`: hosts that may be reached in plain text, separated by commas.
    """

    redis_ca: Path | None = None
    plaintext_stores: Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed)] = ()

    @model_validator(mode="after")
    def _no_plain_text(self) -> Self:
        for name in type(self).model_fields:
            value = getattr(self, name)
            if not isinstance(value, SecretStr):
                continue
            if name.endswith("postgres_dsn"):
                found = stores.postgres_in_clear(value.get_secret_value(), os.environ)
            elif name.endswith("redis_url"):
                found = stores.redis_in_clear(value.get_secret_value())
            else:
                continue
            stores.refuse(f"{PREFIX}{name.upper()}", found, self.plaintext_stores)
        return self

    def redis_address(self, name: str = "redis_url") -> str:
        """The Redis URL of this setting, with the CA in it: a secret. Raises `ValueError` for none."""
        found = self.other_redis_address(name)
        if found is None:
            raise ValueError(f"{PREFIX}{name.upper()} is not set")
        return found

    def other_redis_address(self, name: str) -> str | None:
        """As `redis_address`, for a setting that may be left out: then `None`."""
        secret: SecretStr | None = getattr(self, name)
        return None if secret is None else stores.with_ca(secret.get_secret_value(), self.redis_ca)


class ServiceSettings(StoreSettings):
    """What every service is told. Times are seconds.

    `drain_grace`: how long calls in flight may go on after a stop signal.
    `lame_duck`: how long the server still takes calls after it reports itself not ready, so that
    whoever balances load towards it has seen that: a fifth of a second is enough for peers.
    `otlp_endpoint`: where spans go, OTLP over gRPC, as `host:port` of a collector nearby (the connection
    is in the clear); "": nothing is traced. Takes the extra `trace`.
    `startup_timeout`: how long to wait for dependencies before giving up with exit status 1.
    `tls_cert`, `tls_key`: files with the certificate and private key of the gRPC and HTTP listeners; without
    them these are in plain text. `tls_ca`: see `servicekit.tls`; with it peers are called over TLS.
    """

    grpc_listen: ListenAddress
    metrics_listen: ListenAddress | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    otlp_endpoint: str = ""
    drain_grace: float = 10.0
    lame_duck: float = 0.0
    startup_timeout: float = 60.0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None

    @model_validator(mode="after")
    def _whole_pair(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError(f"{PREFIX}TLS_CERT and {PREFIX}TLS_KEY go together")
        return self


S = TypeVar("S", bound=Settings)


class SettingsError(Exception):
    """The configuration is wrong. `str` is a list of what is, one a line, without any value."""


def parse(kind: type[S], **overrides: object) -> S:
    """The settings from the environment. Raises `SettingsError` listing everything that is wrong."""
    try:
        return kind(**overrides)  # type: ignore[arg-type]  # fields are checked by pydantic
    except ValidationError as error:
        raise SettingsError(_explain(kind, error)) from None
    except pydantic_settings.SettingsError as error:
        raise SettingsError(f"  {error}") from None
    except OSError as error:
        raise SettingsError(f"  {error.filename}, named by a *_FILE setting: {error.strerror}") from None


def load(kind: type[S]) -> S:
    """As `parse`, for a service's `__main__`: prints the list to stderr and exits with `EX_CONFIG`."""
    try:
        return parse(kind)
    except SettingsError as error:
        sys.stderr.write(f"The configuration is not valid:\n{error}\n")
        raise SystemExit(EX_CONFIG) from None


def _explain(kind: type[Settings], error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        where = problem["loc"]
        name = f"{PREFIX}{str(where[0]).upper()}" if where else kind.__name__
        path = "".join(f"[{part}]" for part in where[1:] if isinstance(part, int))
        what = "is required" if problem["type"] == "missing" else problem["msg"]
        # What several settings have to do with each other names them itself.
        lines.append(f"  {name}{path}: {what}" if where else f"  {what.removeprefix('Value error, ')}")
    return "\n".join(dict.fromkeys(lines))
