"""An alert as a mail. Text is enough: there is one thing to say."""

from __future__ import annotations

from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, parseaddr

from servicekit.clock import Clock
from services.logger.alerts.model import Due

POOLS = {"free": "signing while logged in, without a key", "api_key": "signing with API keys"}


def write(due: Due, sender: str, product: str, clock: Clock) -> EmailMessage:
    """The message to the account's address. Raises `ValueError` when there is none."""
    if due.email is None:
        raise ValueError("no address")
    name, address = parseaddr(sender)
    message = EmailMessage(policy=SMTP)
    message["From"] = Address(name, addr_spec=address)
    message["To"] = Address(addr_spec=due.email)
    if due.threshold >= 100:  # noqa: PLR2004 - per cent
        message["Subject"] = f"{product}: today's quota is used up"
        state = "All signatures of today's quota are used: further requests are refused until midnight UTC."
    else:
        message["Subject"] = f"{product}: {due.threshold} % of today's quota is used"
        state = f"More than {due.threshold} % of today's quota is used."
    message["Date"] = format_datetime(clock.now())
    # The same in each attempt: a mail that arrives twice is one.
    message["Message-ID"] = f"<{due.id}@{address.rpartition('@')[2] or 'localhost'}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"{state}\n\n"
        f"  quota of    {POOLS.get(due.pool, due.pool)}\n"
        f"  day (UTC)   {due.date.isoformat()}\n"
        f"  signatures  {due.used:,} of {due.daily_limit:,}\n\n"
        "A new day begins at midnight UTC. These mails can be turned off in the settings of alerts.\n"
    )
    return message
