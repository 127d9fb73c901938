"""Handing mail to an SMTP server. Needs `aiosmtplib`, which the services that mail have as an extra."""

from __future__ import annotations

import asyncio
from email.message import EmailMessage
from typing import Annotated, Final, Literal

import aiosmtplib
from pydantic import Field, SecretStr

from servicekit.config import Settings


class SmtpSettings(Settings):
    """How to reach the mail server. Times are seconds. `mail_from`: who mails are from.

    Without a `smtp_username` there is no login, whatever the password.
    """

    smtp_host: str
    smtp_port: Annotated[int, Field(gt=0, le=65535)] = 25
    smtp_security: Literal["none", "starttls", "tls"] = "none"
    smtp_username: str = ""
    smtp_password: SecretStr = SecretStr("")
    smtp_timeout: Annotated[float, Field(gt=0)] = 10.0
    mail_from: str = "Signgate <no-reply@signgate.example>"
    mail_product: str = "Signgate"


OVERALL: Final = 2.0
"""`smtp_timeout` bounds each command; a server that is slow with every one of them is given up sooner."""


class Smtp:
    """A connection a letter: services mail seldom."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings

    async def send(self, message: EmailMessage) -> None:
        """Hand one message over, in at most `OVERALL` times `smtp_timeout`.

        Raises `aiosmtplib.SMTPException` or `OSError`.
        """
        settings = self._settings
        async with asyncio.timeout(settings.smtp_timeout * OVERALL):
            await aiosmtplib.send(
                message,
                hostname=settings.smtp_host,
                port=settings.smtp_port,
                use_tls=settings.smtp_security == "tls",
                start_tls=settings.smtp_security == "starttls",
                username=settings.smtp_username or None,
                password=settings.smtp_password.get_secret_value() if settings.smtp_username else None,
                timeout=settings.smtp_timeout,
            )
