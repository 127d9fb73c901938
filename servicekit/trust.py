"""Whose access tokens a service takes: its own auth service's, and those of issuers outside.

A team that already runs Supabase keeps its accounts there:

    SIGNGATE_OUTSIDE_ISSUERS='[{"name": "https://<project>/auth/v1",
                                "jwks_url": "https://<project>/auth/v1/.well-known/jwks.json"}]'

Keys of an outside issuer are read over https, from public addresses (`servicekit.outbound`). One in the
deployment's own network needs `"internal": true`; then http is allowed too. `SIGNGATE_JWKS_URL`, our own
auth service's, is internal by definition.

An outside issuer is trusted to say who a user is: its `sub` is the user's id here. It is not trusted to
make administrators: a token of its role `service_role` is refused. Signing out there is not seen here
before the token expires.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, model_validator

from servicekit.inside import InsideSettings
from servicekit.outbound import refused_literal
from servicekit.tokens import Issuer


class OutsideIssuer(BaseModel):
    """An issuer that a third party runs. `name` is the `iss` of its tokens.

    `internal`: its keys are at an address in the deployment's network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    jwks_url: HttpUrl
    audience: str = "authenticated"
    internal: bool = False

    @model_validator(mode="after")
    def _is_reached_as_it_says(self) -> Self:
        host = (self.jwks_url.host or "").strip("[]")
        if not self.internal and (self.jwks_url.scheme != "https" or refused_literal(host)):
            raise ValueError('jwks_url must be https and public, unless "internal" is true')
        return self


class TokenSettings(InsideSettings):
    """The settings of a service that takes access tokens."""

    jwks_url: str
    jwt_issuer: str
    jwt_audience: str = "authenticated"
    outside_issuers: tuple[OutsideIssuer, ...] = ()

    def issuers(self) -> list[Issuer]:
        """All that are trusted, our own first."""
        own = Issuer(self.jwt_issuer, self.jwks_url, self.jwt_audience, ca=self.tls_ca)
        outside = (
            Issuer(
                other.name,
                str(other.jwks_url),
                other.audience,
                roles=frozenset({"authenticated"}),
                internal=other.internal,
                own=False,
            )
            for other in self.outside_issuers
        )
        return [own, *outside]
