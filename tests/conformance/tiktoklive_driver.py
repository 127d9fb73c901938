"""Runs inside TikTokLive's own environment: asks as its users do, and prints what came of it.

One JSON object a line in, one out. Nothing of the library is changed; it is told where to ask by the
two environment variables that its users set.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any


async def ask(case: dict[str, Any]) -> dict[str, Any]:
    os.environ["SIGN_API_URL"] = case["server"]
    os.environ["SIGN_API_KEY"] = case["key"]
    # After the environment is set, as in a program of its users; and not in our own environment.
    from TikTokLive import TikTokLiveClient  # type: ignore[import-not-found]  # noqa: PLC0415

    client = TikTokLiveClient("@somebody")
    signer = client.web.signer
    try:
        if case.get("limits"):
            from EulerApiSdk.api.tik_tok_live import (  # type: ignore[import-not-found]  # noqa: PLC0415
                get_rate_limits,
            )

            found = await get_rate_limits.asyncio_detailed(client=signer.sdk_client)
            return {"parsed": None if found.parsed is None else found.parsed.to_dict()}
        signed = await signer.webcast_sign(
            url=case["url"],
            method="GET",
            sign_url_type="xhr",
            payload="",
            user_agent=case.get("agent", "UA/1"),
            session_id=None,
        )
    except Exception as error:  # noqa: BLE001  # what it raises is what is looked at
        response = getattr(error, "response", None)
        return {
            "raised": type(error).__name__,
            "text": str(error),
            "caused_by": type(error.__cause__).__name__,
            "status": getattr(response, "status_code", None),
            "log_id": getattr(error, "log_id", None),
            "body": None if response is None else response.json(),
        }
    return {
        "signed_url": signed.signed_url,
        "user_agent": signed.user_agent,
        "tokens": signed.tokens.to_dict(),
    }


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps(asyncio.run(ask(json.loads(line)))) + "\n")
        sys.stdout.flush()


main()
