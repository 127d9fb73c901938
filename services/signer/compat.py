"""What the sign-server contract's clients look for in an answer, made from any engine's signature.

Their libraries refuse an answer without `tokens["X-Bogus"]`, or without `msToken` in the signed URL:
those are names of the platform's own parameters. A native signature has none of the platform's, so
its own values stand under these names. They satisfy the libraries and nothing else; see
docs/signed-urls.md.
"""

from __future__ import annotations

from services.signer.domain import Signed


def contract_tokens(signed: Signed) -> dict[str, str]:
    """The `tokens` member of the contract's answer: never empty, `X-Bogus` and `msToken` always there.

    An engine that knows the platform's values has them in `signed.tokens`, and they pass unchanged.
    `msToken` is in `signed.signed_url` as well when the request asked for `platform_tokens`.
    """
    ours = signed.tokens
    return {
        "X-Bogus": ours.get("X-Bogus") or ours.get("sg_sig", ""),
        "msToken": ours.get("msToken") or ours.get("sg_id", ""),
        **{name: value for name, value in ours.items() if name not in {"X-Bogus", "msToken"}},
    }
