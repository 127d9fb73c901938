"""Whose access tokens a service takes: its own auth service's, and those of issuers outside.

A team that already runs Supabase keeps its accounts there:

    SIGNGATE_OUTSIDE_ISSUERS='[{"name": "https://<project>/auth/v1",
                                "jwks_url": "https://<project>/auth/v1/.well-known/jwks.json"}]'

An outside issuer is trusted to say who a user is: its `sub` is the user's id here. It is not trusted to
make administrators: a token of its role `service_role` is refused. Signing out there is not seen here
before the token expires.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from servicekit.config import ServiceSettings
from servicekit.tokens import Issuer


class OutsideIssuer(BaseModel):
    """An issuer that somebody else runs. `name` is the `iss` of its tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    jwks_url: HttpUrl
    audience: str = "authenticated"


class TokenSettings(ServiceSettings):
    """The settings of a service that takes access tokens."""

    jwks_url: str
    jwt_issuer: str
    jwt_audience: str = "authenticated"
    outside_issuers: tuple[OutsideIssuer, ...] = ()

    def issuers(self) -> list[Issuer]:
        """All that are trusted, our own first."""
        own = Issuer(self.jwt_issuer, self.jwks_url, self.jwt_audience)
        outside = (
            Issuer(other.name, str(other.jwks_url), other.audience, roles=frozenset({"authenticated"}))
            for other in self.outside_issuers
        )
        return [own, *outside]
