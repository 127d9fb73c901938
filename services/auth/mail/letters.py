"""Letters in text and HTML. A deployment may lay templates of its own over these, by the same names."""

from __future__ import annotations

from dataclasses import dataclass, field
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime, make_msgid, parseaddr
from pathlib import Path
from typing import Final, Literal

from jinja2 import (
    ChoiceLoader,
    Environment,
    FileSystemLoader,
    PackageLoader,
    StrictUndefined,
    select_autoescape,
)

from servicekit.clock import Clock
from services.auth.domain import Purpose

Notice = Literal[
    "account_exists",
    "address_taken",
    "password_changed",
    "email_changed",
    "factor_changed",
    "new_sign_in",
    "key_created",
    "key_rotated",
    "key_revoked",
    "factor_guessed",
    "recovery_code_used",
    "recovery_codes_made",
]

# Lines of links stay whole up to this many characters, readable in the raw message too.
_policy: Final = SMTP.clone(max_line_length=500)


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail to write. `code` and `link` are secrets; a notice has neither.

    `contested`: several parties signed up for the address, so its code sets no password.
    `at`, `ip` and `program`: when, from where and with what; `key`, `masked`, `count`: of what key, or of how
    many; `left`: how many recovery codes are left.
    """

    kind: Purpose | Notice
    to: str = field(repr=False)
    code: str = field(default="", repr=False)
    link: str = field(default="", repr=False)
    minutes: int = 0
    new_email: str = field(default="", repr=False)
    contested: bool = False
    at: str = ""
    ip: str = field(default="", repr=False)
    program: str = ""
    key: str = ""
    masked: str = ""
    count: int = 1
    left: int = 0


class LetterWriter:
    """Turns letters into messages. `overrides` is a folder of templates that come first."""

    def __init__(self, sender: str, product: str, site: str, clock: Clock, overrides: Path | None) -> None:
        built_in = PackageLoader("services.auth", "mail/templates")
        loader = ChoiceLoader([FileSystemLoader(overrides), built_in]) if overrides else built_in
        self._templates = Environment(  # by the kind of template: text has nothing to escape
            loader=loader,
            # Text has nothing to escape.
            autoescape=select_autoescape(("html",)),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._sender = sender
        self._product, self._site, self._clock = product, site, clock

    def write(self, letter: Letter) -> EmailMessage:
        """The message, its first line of text the subject. Raises jinja2's errors for a bad template."""
        facts = {"letter": letter, "product": self._product, "site": self._site}
        subject, _, text = self._templates.get_template(f"{letter.kind}.txt").render(facts).partition("\n")
        html = self._templates.get_template(f"{letter.kind}.html").render(facts)
        name, address = parseaddr(self._sender)
        message = EmailMessage(policy=_policy)
        message["From"] = Address(name, addr_spec=address)
        message["To"] = Address(addr_spec=letter.to)
        message["Subject"] = subject.strip()
        message["Date"] = format_datetime(self._clock.now())
        message["Message-ID"] = make_msgid(domain=address.rpartition("@")[2] or "localhost")
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(text.lstrip("\n"))
        message.add_alternative(html, subtype="html")
        return message
