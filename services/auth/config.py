"""The auth service's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from limits import parse as parse_rate
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from servicekit.config import ListenAddress, listed
from servicekit.inside import InsideSettings
from servicekit.mail import SmtpSettings


def _rate(text: str) -> str:
    parse_rate(text)  # raises ValueError
    return text


def _bare(url: str) -> str:
    if not url.startswith(("https://", "http://")):
        raise ValueError("must begin with https:// or http://")
    return url.rstrip("/")


Rate = Annotated[str, AfterValidator(_rate)]
"""Such as `10 per 5 minutes`: a sliding window."""
Url = Annotated[str, AfterValidator(_bare)]
Seconds = Annotated[int, Field(gt=0)]
Pepper = Annotated[SecretStr, Field(min_length=32)]


class AuthSettings(InsideSettings, SmtpSettings):
    """What the auth service is told. Times are seconds.

    `jwt_issuer`: this service's address as browsers see it, `https://…/auth/v1`; mailed links begin
    with it. `site_url`: where links lead when nobody said otherwise. `redirect_urls`: where else they
    may lead, each an address or one ending in `*`.
    `token_pepper`: keys the hashes of codes, links and refresh tokens, and the encryption of second
    factors' secrets. Changing it signs everybody out and loses the second factors.
    `auto_confirm`: accounts count as confirmed without a mail. For development only.
    `reuse_window`: for how long a used refresh token gives further live ones, for tabs that refresh
    at once. `session_inactivity`: a session that is not refreshed for so long is over.
    `fresh_sign_in`: how old a sign-in may be to change a password without further proof.
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
    redirect_urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(listed)] = ()
    signup_enabled: bool = True
    auto_confirm: bool = False
    secure_email_change: bool = True
    secure_password_change: bool = True
    reuse_window: Annotated[int, Field(ge=0, le=300)] = 30
    session_inactivity: Seconds = 30 * 86400
    session_timebox: Seconds | None = None
    fresh_sign_in: Seconds = 86400
    code_ttl: Seconds = 3600
    invite_ttl: Seconds = 7 * 86400
    flow_ttl: Seconds = 300
    challenge_ttl: Seconds = 300
    totp_issuer: str = "Signgate"

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
    rate_sign_in_account: Rate = "100 per hour"
    rate_sign_in_account_ip: Rate = "10 per 5 minutes"
    rate_sign_up_ip: Rate = "200 per hour"
    rate_verify_ip: Rate = "300 per 5 minutes"
    rate_verify_account: Rate = "20 per 5 minutes"
    rate_refresh_ip: Rate = "1800 per 5 minutes"
    rate_mail_address: Rate = "6 per 10 minutes"
    rate_mail_address_day: Rate = "40 per day"
    rate_mail_ip: Rate = "200 per hour"
    rate_factor_account: Rate = "15 per 5 minutes"
