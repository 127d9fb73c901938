"""The sign-server HTTP face, `/webcast/*` and `/tiktok/*`: what TikTok LIVE libraries speak.

app           the routes, and what every one of them does around its work
questions     from an HTTP request to who asks and what for
answers       from a signature or limits to the JSON and the headers that the libraries read
refusals      from an error to a status, a body and headers that crash none of them
openapi.json  the same for people and tools; served as /webcast/openapi.json
"""

from services.signer.http.app import create_app

__all__ = ["create_app"]
