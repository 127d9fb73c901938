"""One's own account."""

from __future__ import annotations

import sys

import click

from signgate.auth.v1 import auth_pb2, user_pb2
from signgate_client.command.caller import Caller, pass_caller
from signgate_client.command.show import as_json, facts, moment, say, show
from signgate_client.sync import Signgate

password_stdin = click.option(
    "--password-stdin", is_flag=True, help="Read the password from standard input, and ask for nothing."
)


@click.command("sign-up")
@click.argument("email")
@password_stdin
@pass_caller
def sign_up(caller: Caller, email: str, *, password_stdin: bool) -> None:
    """Make an account. A code to confirm the address is mailed."""
    password = _password(stdin=password_stdin, confirmation=True)
    with caller.anyone() as client:
        client.sign_up(email, password)
        say(f"A mail with a code is on its way to {email}.")
        if password_stdin:
            say(f"Confirm with: signgate confirm {email} CODE")
        else:
            _signed_in(caller, client.confirm(email, click.prompt("Code", err=True)))


@click.command()
@click.argument("email")
@click.argument("code")
@pass_caller
def confirm(caller: Caller, email: str, code: str) -> None:
    """Confirm the address with the mailed code, and sign in."""
    with caller.anyone() as client:
        _signed_in(caller, client.confirm(email, code))


@click.command()
@click.argument("email")
@click.option("--by-code", is_flag=True, help="Without the password, by a code that is mailed.")
@password_stdin
@pass_caller
def login(caller: Caller, email: str, *, by_code: bool, password_stdin: bool) -> None:
    """Sign in, and stay signed in for the commands to come."""
    with caller.anyone() as client:
        if by_code:
            client.call(client.auth.SendOtp, auth_pb2.SendOtpRequest(email=email))
            say(f"If {email} has an account, a code is on its way.")
            request = auth_pb2.VerifyRequest(type=auth_pb2.OTP_TYPE_EMAIL, email=email)
            request.token = click.prompt("Code", err=True).strip()
            session = client.call(client.auth.Verify, request).session
        else:
            session = client.sign_in(email, _password(stdin=password_stdin))
    factor = next(
        (one for one in session.user.factors if one.status == user_pb2.FACTOR_STATUS_VERIFIED), None
    )
    if factor and not password_stdin:
        session = _second_factor(caller, session, factor.id)
    _signed_in(caller, session)


@click.command()
@click.option("--everywhere", is_flag=True, help="End all sessions of the account, not this one only.")
@pass_caller
def logout(caller: Caller, *, everywhere: bool) -> None:
    """Sign out: the session's tokens are refused from now on."""
    scope = auth_pb2.SIGN_OUT_SCOPE_GLOBAL if everywhere else auth_pb2.SIGN_OUT_SCOPE_LOCAL
    try:
        with caller.user() as client:
            client.call(client.auth.SignOut, auth_pb2.SignOutRequest(scope=scope))
    finally:
        caller.logins.forget(caller.server)
    say("Signed out.")


@click.command()
@pass_caller
def whoami(caller: Caller) -> None:
    """Show whose calls these are."""
    with caller.signed_in() as client:
        user = client.call(client.auth.GetUser, auth_pb2.GetUserRequest()).user
    if caller.as_json:
        as_json(user)
        return
    show(
        facts(
            [
                ("account", user.email),
                ("id", user.id),
                ("tier", user.tier),
                ("by", "API key" if caller.api_key else "login"),
                ("last login", moment(user.last_login)),
            ]
        )
    )


def _second_factor(caller: Caller, session: user_pb2.Session, factor_id: str) -> user_pb2.Session:
    """The session raised by the factor's code; as it is where none is given."""
    code = click.prompt(
        "Code of your second factor (empty: without)", default="", show_default=False, err=True
    )
    if not code:
        return session
    with Signgate(
        caller.server, access_token=session.access_token, timeout=caller.timeout, tls=caller.tls
    ) as client:
        challenge = client.call(
            client.auth.ChallengeFactor, auth_pb2.ChallengeFactorRequest(factor_id=factor_id)
        )
        answer = auth_pb2.VerifyFactorRequest(
            factor_id=factor_id, challenge_id=challenge.challenge_id, code=code.strip()
        )
        raised: user_pb2.Session = client.call(client.auth.VerifyFactor, answer).session
    return raised


def _signed_in(caller: Caller, session: user_pb2.Session) -> None:
    caller.begin(session)
    say(f"Signed in as {session.user.email}.")


def _password(*, stdin: bool, confirmation: bool = False) -> str:
    if stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=confirmation, err=True))


COMMANDS = (sign_up, confirm, login, logout, whoami)
