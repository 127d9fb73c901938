"""The auth service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Self

from limits import parse as parse_rate
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import NoDecode

from servicekit.config import ListenAddress, listed
from servicekit.inside import InsideSettings
from servicekit.mail import SmtpSettings
from services.auth.party import RelyingParty, relying_party
from services.auth.redirects import Pattern


def _rate(text: str) -> str:
    parse_rate(text)  # raises ValueError
    return text


def _bare(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("must begin with https:// or http://")
    if "?" in url or "*" in url:
        raise ValueError("must have no query and no *")
    Pattern.parse(url)  # raises ValueError
    return url.rstrip("/")


def _pattern(text: str) -> str:
    Pattern.parse(text)  # raises ValueError
    return text


Rate = Annotated[str, AfterValidator(_rate)]
"""Such as `10 per 5 minutes`: a sliding window."""
Url = Annotated[str, AfterValidator(_bare)]
Seconds = Annotated[int, Field(gt=0)]
Pepper = Annotated[SecretStr, Field(min_length=32)]


class AuthSettings(InsideSettings, SmtpSettings):
    """What the auth service is told. Times are seconds.

    `jwt_issuer`: this service's address as browsers see it, `https://…/auth/v1`; mailed links begin
    with it. `site_url`: where links lead by default. `redirect_urls`: where else they may lead, with a comma
    between them; `services.auth.redirects` lists the forms.
    `token_pepper`: keys the hashes of codes, links and refresh tokens, and the encryption of second
    factors' secrets. Changing it signs everybody out and loses the second factors.
    `signup_tells_existing`: a sign-up for an address that has a confirmed account is answered with
    `identities: []`, as clients of Supabase expect. False: all sign-ups are answered alike.
    `auto_confirm`: accounts count as confirmed without a mail. For development only.
    `reuse_window`: for how long a used refresh token gives further live ones, for tabs that refresh
    at once. `session_inactivity`: a session that is not refreshed for so long is over.
    `webauthn_rp_id`: the domain name that passkeys are bound to; without it, that of `site_url`. Changing
    it makes all passkeys unusable. `webauthn_origins`: further origins that may use them, beside that of
    `site_url`: https origins of this domain or below it, and Android apps (`android:apk-key-hash:…`).
    `hash_threads`: passwords hashed at once. `hash_queue`: the most that wait; `hash_max_wait`: the longest
    estimated wait. Beyond either, OVERLOADED.
    `imported_…`: the highest costs of password hashes that administrators bring from elsewhere.
    `even_answer`: answers that could tell whether an address is known come at multiples of this.
    `limits_redis_url`: a separate Redis for the rate limit counters, because unauthenticated callers
    determine their number (deploy/redis/limits.conf); without it they share `redis_url`'s memory.
    Rates: see docs/accounts.md for what each limits.
    """

    postgres_dsn: SecretStr
    redis_url: SecretStr
    limits_redis_url: SecretStr | None = None
    keys_addr: str
    http_listen: ListenAddress | None = None
    postgres_pool: Annotated[int, Field(ge=2)] = 8

    jwt_keyset_file: Path
    jwt_issuer: Url
    jwt_audience: str = "authenticated"
    access_token_ttl: Seconds = 3600
    token_pepper: Pepper

    site_url: Url
    redirect_urls: Annotated[
        tuple[Annotated[str, AfterValidator(_pattern)], ...], NoDecode, BeforeValidator(listed)
    ] = ()
    signup_enabled: bool = True
    signup_tells_existing: bool = True
    auto_confirm: bool = False
    secure_email_change: bool = True
    reuse_window: Annotated[int, Field(ge=0, le=300)] = 30
    session_inactivity: Seconds = 30 * 86400
    session_timebox: Seconds | None = None
    code_ttl: Seconds = 3600
    invite_ttl: Seconds = 7 * 86400
    flow_ttl: Seconds = 300
    challenge_ttl: Seconds = 300
    totp_issuer: str = "Signgate"
    webauthn_rp_id: str = ""
    webauthn_origins: Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed)] = ()

    password_min_length: Annotated[int, Field(ge=6, le=64)] = 8
    argon2_time_cost: Annotated[int, Field(ge=1, le=20)] = 2
    argon2_memory_kib: Annotated[int, Field(ge=8192, le=1048576)] = 19456
    argon2_parallelism: Annotated[int, Field(ge=1, le=8)] = 1
    imported_bcrypt_cost: Annotated[int, Field(ge=4, le=14)] = 12
    imported_argon2_time_cost: Annotated[int, Field(ge=1, le=20)] = 4
    imported_argon2_memory_kib: Annotated[int, Field(ge=64, le=1048576)] = 65536
    imported_argon2_parallelism: Annotated[int, Field(ge=1, le=8)] = 4
    hash_threads: Annotated[int, Field(ge=1, le=64)] = 2
    hash_queue: Annotated[int, Field(ge=1)] = 64
    hash_max_wait: Annotated[float, Field(gt=0, le=30)] = 2.5
    even_answer: Annotated[float, Field(ge=0, le=5)] = 0.25

    mail_queue: Annotated[int, Field(ge=1)] = 1000
    mail_templates: Path | None = None

    rate_sign_in_ip: Rate = "300 per 5 minutes"
    rate_sign_in_net: Rate = "3000 per 5 minutes"
    rate_sign_in_account: Rate = "100 per hour"
    rate_sign_in_account_ip: Rate = "10 per 5 minutes"
    rate_sign_up_ip: Rate = "200 per hour"
    rate_sign_up_net: Rate = "2000 per hour"
    rate_verify_ip: Rate = "300 per 5 minutes"
    rate_verify_net: Rate = "3000 per 5 minutes"
    rate_verify_account: Rate = "20 per 5 minutes"
    rate_refresh_ip: Rate = "1800 per 5 minutes"
    rate_mail_address: Rate = "6 per 10 minutes"
    rate_mail_address_day: Rate = "40 per day"
    rate_mail_ip: Rate = "200 per hour"
    rate_mail_net: Rate = "2000 per hour"
    rate_nonce_account: Rate = "6 per 10 minutes"
    rate_nonce_account_day: Rate = "20 per day"
    rate_notice_account: Rate = "5 per day"
    rate_factor_account: Rate = "15 per 5 minutes"
    rate_key_notice: Rate = "10 per hour"
    rate_factor_account_day: Rate = "30 per day"

    def passkeys(self) -> RelyingParty:
        """Where passkeys may be used. Raises `ValueError`."""
        return relying_party(self.site_url, self.webauthn_rp_id, self.webauthn_origins)

    @model_validator(mode="after")
    def _passkeys_hold(self) -> Self:
        self.passkeys()
        return self
