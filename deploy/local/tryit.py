"""What the demo ends with: commands that work when pasted. A test pastes each of them."""

from __future__ import annotations


def commands(edge_url: str, key: str) -> dict[str, str]:
    """By what they need: each one line of shell. The first names the key and the edge for the others."""
    host = edge_url.removeprefix("http://")
    return {
        "the key": f"export SIGNGATE_API_KEY={key} SIGNGATE_SERVER={host}",
        "signgate": ".venv/bin/signgate sign @signgate.demo && .venv/bin/signgate usage list",
        "curl": (
            f'curl -s {edge_url}/v1/sign -H "x-api-key: $SIGNGATE_API_KEY"'
            " -H 'content-type: application/json' -d '{\"roomUrl\": \"@signgate.demo\"}'"
        ),
        "grpcurl": (
            'grpcurl -plaintext -protoset gen/signgate.binpb -H "x-api-key: $SIGNGATE_API_KEY"'
            f' -d \'{{"room_url": "@signgate.demo"}}\' {host} signgate.signer.v1.SignerService/Sign'
        ),
        "python": (
            ".venv/bin/python -c \"import os, signgate_client as s; key = os.environ['SIGNGATE_API_KEY'];"
            f" print(s.Signgate('{host}', api_key=key).sign('@signgate.demo').signed_url)\""
        ),
    }


def next_steps(edge_url: str, key: str, email: str, password: str) -> str:
    """The demo's last words. Key and password are the demo account's own, and are shown to its owner."""
    lines = [f"[dim]# {name}[/]\n{command}" for name, command in commands(edge_url, key).items()]
    lines.append(f"[dim]# browser: sign in as {email}, password {password}[/]\n{edge_url}/console/")
    lines.append(
        "[dim]# what runs; stop it, keeping its data; all else[/]\nmake status\nmake down\nmake help"
    )
    return "\n\n".join(lines)
