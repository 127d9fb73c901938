"""The `signgate` command against the whole stack, as a person or a script uses it."""

from __future__ import annotations

import json
import re
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pyotp
import pytest
from click.testing import CliRunner

from servicekit.apikey import KEY_PATTERN
from signgate.auth.v1 import auth_pb2
from signgate_client import Signgate, SigngateError
from signgate_client.command import main
from tests.conftest import Running
from tests.e2e.conftest import Account, mailed_code

PROGRAM = Path(sys.executable).with_name("signgate")


class Shell:
    """One person's shell: their configuration directory, and the key in their environment."""

    def __init__(self, running: Running, home: Path) -> None:
        self.home, self.key, self.told = home, "", ""
        self._server = running.edge

    def __call__(self, *arguments: str, typed: str = "", status: int = 0) -> str:
        """Run `signgate`; what it wrote to standard output. `told` is what it wrote to standard error."""
        environment = {
            "XDG_CONFIG_HOME": str(self.home),
            "SIGNGATE_SERVER": self._server,
            "SIGNGATE_API_KEY": self.key,
        }
        done = CliRunner().invoke(main, list(arguments), input=typed, env=environment)
        self.told = done.stderr
        assert done.exit_code == status, (arguments, done.output, done.exception)
        return done.stdout

    @property
    def logins(self) -> Path:
        return self.home / "signgate" / "logins.json"


@pytest.fixture
def shell(running: Running, tmp_path: Path) -> Shell:
    return Shell(running, tmp_path)


def test_from_sign_up_to_usage(running: Running, shell: Shell, tmp_path: Path) -> None:
    email, password = f"command-{secrets.token_hex(5)}@example.com", secrets.token_urlsafe(18)
    shell("sign-up", email, "--password-stdin", typed=f"{password}\n")
    assert f"signgate confirm {email}" in shell.told
    shell("confirm", email, mailed_code(running, email))
    assert email in shell("whoami")
    assert shell.logins.stat().st_mode & 0o777 == 0o600

    assert "sg_sig=" in shell("sign", "@by.login")
    key = shell(
        "keys", "create", "ci", "--daily-limit", "5", "--ends-in", "30d", "--from", "127.0.0.0/8"
    ).strip()
    assert re.fullmatch(KEY_PATTERN, key), "a script can take it as it is"
    assert key not in shell.told
    (listed,) = json.loads(shell("--json", "keys", "list"))["keys"]
    assert (listed["dailyLimit"], listed["allowedCidrs"]) == ("5", ["127.0.0.0/8"])
    assert "5" in shell("keys", "update", listed["id"], "--daily-limit", "4", "--name", "[red]ci[/]")
    assert "[red]ci[/]" in shell("keys", "list")

    shell.key = key
    signed = shell("sign", typed="@one\n\nno room\n@two\n", status=1).splitlines()
    assert [re.search(r"@\w+", url)[0] for url in signed] == ["@one", "@two"]  # type: ignore[index]
    assert "no room: " in shell.told
    assert "ROOM_URL_" in shell.told
    assert "yes" in shell("verify", signed[0])
    shell("verify", signed[0].replace("@one", "@other"), status=1)
    (line,) = shell("--json", "sign", "@three").splitlines()
    assert json.loads(line)["signature"]["canonicalUrl"] == "https://www.tiktok.com/@three/live"
    assert re.search(r"key day +4 +1 ", shell("quota"))
    running.eventually(lambda: shell("usage", "list").count("signed") == 3, 30, "the key's three rows")
    assert re.search(r"signed +3 +3 +0 ", shell("usage", "stats", "--by", "result", "--last", "1h"))
    shell("keys", "list", status=1)
    assert "SCOPE_MISSING" in shell.told
    shell.key = shell("keys", "token", "--scope", "sign", "--ttl", "60s").strip()
    assert "sg_sig=" in shell("sign", "@by.token")

    shell.key = ""
    running.eventually(lambda: shell("usage", "list").count("signed") == 5, 30, "the account's five rows")
    assert shell("usage", "export").count("\n") == 7
    file = tmp_path / "usage.parquet"
    shell("usage", "export", "--format", "parquet", "-o", str(file))
    assert pyarrow.parquet.read_table(file).num_rows == 6
    successor = shell("keys", "rotate", listed["id"], "--grace", "0s").strip()
    assert "key.rotated" in shell("keys", "events", listed["id"])
    shell.key = successor
    shell("keys", "revoke-self")
    running.eventually(lambda: refused(shell, "sign", "@x") == "KEY_REVOKED", 30, "the successor's end")
    shell.key = ""
    assert shell("keys", "list").count("\n") == 1
    assert "revoked" in shell("keys", "list", "--all")

    token = json.loads(shell.logins.read_text())[running.edge]["access_token"]
    shell("logout")
    assert json.loads(shell.logins.read_text()) == {}
    with Signgate(running.edge, access_token=token) as left, pytest.raises(SigngateError) as ended:
        left.sign("@x")
    assert ended.value.reason == "SESSION_REVOKED"


def test_keys_are_found_by_their_notes_and_revoked_together(running: Running, shell: Shell) -> None:
    email, password = f"command-{secrets.token_hex(5)}@example.com", secrets.token_urlsafe(18)
    shell("sign-up", email, "--password-stdin", typed=f"{password}\n")
    shell("confirm", email, mailed_code(running, email))
    make = ("keys", "create", "ci", "--metadata", "team=a", "--metadata", "expr=x=1", "--external-id", "c-1")
    first = shell(*make, "--idempotency-key", "once")
    assert shell(*make, "--idempotency-key", "once") == first
    shell("keys", "create", "other", "--idempotency-key", "once", status=1)
    assert "IDEMPOTENCY_KEY_REUSED" in shell.told
    second = shell("keys", "create", "batch", "--metadata", "team=a").strip()
    for options, names in (
        (("--metadata", "team=a"), ["batch", "ci"]),
        (("--metadata", "team=a", "--metadata", "expr=x=1"), ["ci"]),
        (("--external-id", "c-1"), ["ci"]),
        (("--name", "BAT"), ["batch"]),
    ):
        assert [key["name"] for key in json.loads(shell("--json", "keys", "list", *options))["keys"]] == names
    (found,) = json.loads(shell("--json", "keys", "list", "--external-id", "c-1"))["keys"]
    shown = shell("keys", "update", found["id"], "--metadata", "team=", "--metadata", "env=prod")
    assert "env=prod expr=x=1" in shown
    assert "c-1" in shown
    assert "write name=value" in refusal(shell, "keys", "list", "--metadata", "team")
    turned = shell("keys", "rotate", found["id"], "--idempotency-key", "turn")
    assert shell("keys", "rotate", found["id"], "--idempotency-key", "turn") == turned

    assert "Aborted" in refusal(shell, "keys", "revoke-all", typed="n\n", status=1)
    (kept,) = json.loads(shell("--json", "keys", "list", "--name", "batch"))["keys"]
    assert shell("keys", "revoke-all", "--yes", "--except", kept["id"]).count("\n") == 2
    shell.key = second
    assert shell("quota")
    shell.key = ""
    assert shell("keys", "revoke-all", typed="y\n").strip() == kept["id"]
    assert shell("keys", "list").count("\n") == 1


def refusal(shell: Shell, *arguments: str, status: int = 2, typed: str = "") -> str:
    """What is said of a command that fails."""
    shell(*arguments, status=status, typed=typed)
    return shell.told


def refused(shell: Shell, *arguments: str) -> str:
    """The reason of a refusal; "" while it is none."""
    try:
        shell(*arguments, status=1)
    except AssertionError:
        return ""
    found = re.search(r"\(([A-Z_]+)\)$", shell.told, re.MULTILINE)
    return found[1] if found else ""


def test_a_login_is_renewed_when_its_token_ends_and_forgotten_when_it_is_over(
    running: Running, shell: Shell, account: Account
) -> None:
    shell("login", account.email, "--password-stdin", typed=f"{account.password}\n")
    kept = json.loads(shell.logins.read_text())
    kept[running.edge]["expires_at"] = 0
    shell.logins.write_text(json.dumps(kept))
    assert account.email in shell("whoami")
    renewed = json.loads(shell.logins.read_text())[running.edge]
    assert renewed["refresh_token"] != kept[running.edge]["refresh_token"]
    assert renewed["expires_at"] > 0

    kept[running.edge]["refresh_token"] = "none of theirs"
    shell.logins.write_text(json.dumps(kept))
    shell("whoami", status=1)
    assert "REFRESH_TOKEN_NOT_FOUND" in shell.told
    assert json.loads(shell.logins.read_text()) == {}


def test_a_login_by_mailed_code(running: Running, shell: Shell, account: Account) -> None:
    """It asks for the code once the mail is under way."""
    shell("login", account.email, "--by-code", typed="000000\n", status=1)
    assert "OTP_EXPIRED" in shell.told
    with subprocess.Popen(
        [str(PROGRAM), "--server", running.edge, "login", account.email, "--by-code"],
        env={"XDG_CONFIG_HOME": str(shell.home)},
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as login:
        running.wait_for_mail(account.email, after=2)
        _, told = login.communicate(mailed_code(running, account.email) + "\n", timeout=20)
    assert login.returncode == 0, told
    assert account.email in shell("whoami")


def test_a_login_asks_for_the_second_factor(
    running: Running, shell: Shell, new_account: Callable[[], Account]
) -> None:
    account = new_account()
    with Signgate(running.edge, access_token=account.session.access_token) as user:
        enrolled = user.call(user.auth.EnrollFactor, auth_pb2.EnrollFactorRequest(factor_type="totp"))
        challenge = user.call(
            user.auth.ChallengeFactor, auth_pb2.ChallengeFactorRequest(factor_id=enrolled.factor.id)
        )
        clock = pyotp.TOTP(enrolled.secret)
        answer = auth_pb2.VerifyFactorRequest(
            factor_id=enrolled.factor.id, challenge_id=challenge.challenge_id, code=clock.now()
        )
        user.call(user.auth.VerifyFactor, answer)
    shell("login", account.email, typed=f"{account.password}\n12345\n", status=1)
    assert "MFA_VERIFICATION_FAILED" in shell.told
    shell("login", account.email, typed=f"{account.password}\n\n")
    assert "Signed in" in shell.told


def test_it_is_installed_as_a_command(running: Running) -> None:
    done = subprocess.run(
        [str(PROGRAM), "--server", running.edge, "engines"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "native (default)" in done.stdout
