"""Where mailed links lead (S30): addresses are compared as browsers parse them."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from services.auth.config import AuthSettings
from services.auth.redirects import Redirects

SITE = "https://signgate.test"
PATTERNS = ("https://app.test/*", "myapp://login", "https://exact.test/cb", "https://exact.test/q?a=1")
REDIRECTS = Redirects(SITE, PATTERNS)


@pytest.mark.parametrize(
    "wanted",
    [
        SITE,
        f"{SITE}/",
        f"{SITE}/console?x=1#y",
        "https://app.test/",
        "https://app.test/a/b?c=d",
        "https://app.test:443/a",
        "https://APP.test/a",
        "myapp://login",
        "https://exact.test/cb",
        "https://exact.test/q?a=1",
        "https://exact.test/q",
    ],
)
def test_links_lead_where_the_deployment_says(wanted: str) -> None:
    assert REDIRECTS.choose(wanted) == wanted


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        "https://evil.test/",
        f"{SITE}.evil.test/",
        f"{SITE}@evil.test/",
        f"{SITE}:443@evil.test/",
        f"{SITE}:9/",
        "http://signgate.test/",
        "https://user@app.test/",
        "https://user:password@app.test/",
        "https://app.test.evil.test/",
        "https://app.test/a%2fb",
        "https://app.test/a%5cb",
        "myapp://login/evil",
        "myapp://login.evil",
        "myapp2://login",
        "javascript:alert(1)",
        "JavaScript://app.test/%0aalert(1)",
        "data:text/html,x",
        "//evil.test",
        "https:evil.test",
        "https:///evil.test",
        "https:app.test/",
        "https:/app.test/",
        "HTTPS:app.test/",
        "https://app.test/a/..;/b",
        "https://app.test/\r\nSet-Cookie: a=b",
        "https://app.test/\\@evil.test",
        "https://evil.test\\@app.test/",
        "https://\u0430pp.test/",
        "https://app.test\u3002evil.test/",
        "https://app.test:99999/",
        "https://exact.test/cb/more",
        "https://exact.test/cb?a=1",
        "https://exact.test/q?a=2",
        "https://app.test/" + "a" * 3000,
    ],
)
def test_and_nowhere_else(wanted: str) -> None:
    assert REDIRECTS.choose(wanted) == SITE


@given(st.text() | st.builds("{}{}{}".format, st.sampled_from((SITE, *PATTERNS)), st.text(), st.text()))
def test_no_text_leads_elsewhere(wanted: str) -> None:
    found = REDIRECTS.choose(wanted)
    assert found.isascii()
    if found != SITE and not found.startswith("myapp"):
        parts = urlsplit(found)
        assert parts.scheme == "https"
        assert parts.netloc.lower().removesuffix(":443").removesuffix(":") in {
            "signgate.test",
            "app.test",
            "exact.test",
        }


def test_any_port_is_a_port_and_nothing_else() -> None:
    """S30."""
    redirects = Redirects(SITE, ["http://localhost:*"])
    for good in ("http://localhost", "http://localhost:80/", "http://localhost:5173/cb?x=1"):
        assert redirects.choose(good) == good
    for bad in (
        "http://localhost:80@evil.com/cb",
        "http://localhost:@evil.com/",
        "http://localhost:1.evil.com/",
        "http://localhost.evil.com:80/",
        "https://localhost:80/",
        "http://localhost:80:80/",
    ):
        assert redirects.choose(bad) == SITE


def test_any_port_with_a_path() -> None:
    redirects = Redirects(SITE, ["http://[::1]:*/cb"])
    assert redirects.choose("http://[::1]:3000/cb") == "http://[::1]:3000/cb"
    assert redirects.choose("http://[::1]:3000/other") == SITE


def test_a_label_is_one_label() -> None:
    redirects = Redirects(SITE, ["https://*.preview.test/*"])
    assert redirects.choose("https://a.preview.test/x") == "https://a.preview.test/x"
    for bad in ("https://preview.test/", "https://a.b.preview.test/", "https://evilpreview.test/"):
        assert redirects.choose(bad) == SITE


def test_dot_segments_are_resolved_before_the_comparison() -> None:
    redirects = Redirects(SITE, ["https://app.test/safe/*"])
    assert redirects.choose("https://app.test/safe/x/../y") == "https://app.test/safe/x/../y"
    assert redirects.choose("https://app.test/safe/../other") == SITE
    assert redirects.choose("https://app.test/safe/%2e%2e/other") == SITE


@pytest.mark.parametrize(
    "pattern",
    [
        "*",
        "https://*",
        "https://*/cb",
        "https://app.test*",
        "https://app*.test/",
        "https://*.com/",
        "https://a.*.test/",
        "https://app.test/*/cb",
        "https://app.test/*?x=1",
        "http://localhost:*@evil.com/",
        "https://user@app.test/",
        "https://app.test/#x",
        "http://",
        "app.test",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://app.test:99999/",
        "https:app.test/*",
        "https://*.com./*",
        "https://*.1.2.3.4/*",
        "myapp://",
        "myapp://*",
    ],
)
def test_a_bad_pattern_stops_the_start(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"URL|may|must|allow"):
        Redirects(SITE, [pattern])
    with pytest.raises(ValidationError) as refused:
        AuthSettings.model_validate({"redirect_urls": pattern})
    assert "redirect_urls" in str(refused.value)
