"""The `signgate` command: the same client, from a shell.

    caller      whom a call is made for: a key, or the login that `signgate login` keeps
    logins      the kept logins: one file, readable by its owner only
    show        what people see: tables, or JSON; and errors
    account     sign-up, confirm, login, logout, whoami
    signing     sign, verify, engines
    keys        keys create, list, show, update, rotate, revoke, revoke-self, token, events
    usage       quota, usage list, usage stats, usage export

Needs what the extra `client` installs. Results go to standard output, all else to standard error; the exit
status is 0 when it was done, 1 when it was refused, 2 when the command line is wrong.
"""

from __future__ import annotations

from signgate_client.command.main import main

__all__ = ["main"]
