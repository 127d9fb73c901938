"""The Python client of Signgate.

    from signgate_client import Signgate

    with Signgate("127.0.0.1:8080", api_key="sgk_live_…") as signgate:
        print(signgate.sign("https://www.tiktok.com/@name/live").signed_url)

`Signgate` is for threads, `AsyncSigngate` for asyncio; both speak gRPC to the edge and have the same
methods. Answers are the contract's own messages. Whatever fails raises `SigngateError`, whose `reason`
is stable; what only reads is tried a few times, for a second or so, while a service is unavailable. What
the methods do not cover is reached by the stubs: `signgate.keys.RotateKey(…)`.
"""

from signgate_client.aio import AsyncSigngate
from signgate_client.errors import SigngateError
from signgate_client.sync import Signgate

__all__ = ["AsyncSigngate", "Signgate", "SigngateError"]
