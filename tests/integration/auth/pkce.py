"""PKCE flows as tests begin and follow them."""

from __future__ import annotations

import base64
import hashlib
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from signgate.auth.v1 import auth_pb2
from tests.integration.auth.world import World


class Client(NamedTuple):
    """A client that keeps its verifier to itself."""

    verifier: str

    @property
    def pkce(self) -> auth_pb2.Pkce:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        return auth_pb2.Pkce(code_challenge=challenge, code_challenge_method="s256")

    async def exchange(self, world: World, code: str) -> auth_pb2.ExchangeCodeResponse:
        request = auth_pb2.ExchangeCodeRequest(auth_code=code, code_verifier=self.verifier)
        return await world.rpc.ExchangeCode(request)


OWNER, THIEF = Client("o" * 50), Client("t" * 50)


async def press(world: World, link: dict[str, str]) -> dict[str, str]:
    """The button of a mailed link's page: what it leads on with, in query and fragment."""
    page = await world.auth.http.post("/verify", data={"token": link["token"], "type": link["type"]})
    assert page.status_code == 303
    where = urlsplit(page.headers["location"])
    found = {**parse_qs(where.query), **parse_qs(where.fragment)}
    return {name: values[0] for name, values in found.items()}
