"""What a script may answer, how it is named and called, and which device it sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.signer.engines.websdk import PRESETS, Call, WebSdkConfig
from services.signer.engines.websdk.errors import Misconfigured
from services.signer.engines.websdk.profiles import PROFILES, load
from services.signer.engines.websdk.script import Script, appended, tokens
from services.signer.errors import EngineFailure
from services.signer.room_query import clean_query

CALL = Call("window.sign")
HASH = "0" * 64
json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(json_values | st.dictionaries(st.sampled_from(["v", "e"]), json_values))
def test_whatever_a_script_answers_it_is_tokens_or_a_failure(answer: Any) -> None:
    for call in (CALL, Call("f", result="X-Bogus")):
        found = tokens(answer, call, ())
        if isinstance(found, dict):
            url = appended("https://webcast.tiktok.com/webcast/x/?aid=1", found)
            assert url is None or (url.isascii() and url.isprintable() and " " not in url and "#" not in url)
        else:
            assert isinstance(found, EngineFailure)


def test_parameters_are_appended_in_their_order_and_encoded() -> None:
    found = {"X-Bogus": "a/b=&c", "X-Gnarly": "d"}
    assert appended("https://h/p?a=1", found) == "https://h/p?a=1&X-Bogus=a%2Fb%3D%26c&X-Gnarly=d"
    assert appended("https://h/p", found) == "https://h/p?X-Bogus=a%2Fb%3D%26c&X-Gnarly=d"
    assert appended("https://h/p?X-Bogus=1", found) is None
    assert clean_query("a=1&X-Bogus=a%2Fb%3D%26c&X-Gnarly=d") == ("a=1", ""), "and come off again"


def test_a_single_text_and_a_required_parameter() -> None:
    assert tokens({"v": "abc"}, Call("f", result="X-Bogus"), ()) == {"X-Bogus": "abc"}
    assert isinstance(tokens({"v": {"X-Bogus": "abc"}}, CALL, ("X-Gnarly",)), EngineFailure)


def test_only_the_file_that_was_named_is_run(tmp_path: Path) -> None:
    path = tmp_path / "script.js"
    path.write_bytes(b"one")
    digest = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed"
    assert Script.load(path, digest).content == b"one"
    path.write_bytes(b"two")
    with pytest.raises(Misconfigured, match="its SHA-256 is 3fc4ccfe7458"):
        Script.load(path, digest)


@pytest.mark.parametrize(
    "function",
    ["", ".", "a.", "a b", "alert(1)", "a['b']", "a;b", "1a", "a..b", "a\n", "é", "a." * 20 + "a"],
)
def test_a_function_is_a_path_and_nothing_that_could_be_evaluated(function: str) -> None:
    with pytest.raises(ValueError, match="function"):
        Call(function)


def test_the_preset() -> None:
    assert PRESETS["frontier-sign"] == Call("window.byted_acrawler.frontierSign", "query")


@pytest.mark.parametrize(
    "changes",
    [
        {"sha256": "0" * 63},
        {"sha256": "G" * 64},
        {"origin": "http://www.tiktok.com"},
        {"origin": "https://www.tiktok.com/"},
        {"origin": "https://www.tiktok.com:443"},
        {"origin": "https://user@www.tiktok.com"},
        {"pages": 0},
        {"max_list": 2000},
        {"member_timeout": 3.0},
        {"recycle_count": 1},
        {"recycle_age": 0},
    ],
)
def test_a_configuration_that_contradicts_itself(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|need"):
        WebSdkConfig(Path("x"), **{"sha256": HASH, "call": CALL, **changes})


class TestProfiles:
    def test_what_a_browser_claims_agrees_with_its_version(self) -> None:
        for profile in PROFILES.values():
            assert "Chrome/140.0.0.0" in profile.agent("140.0.7000.1")
            override = profile.override("140.0.7000.1")
            assert override["userAgentMetadata"]["brands"][0]["version"] == "140"
            assert (
                override["userAgentMetadata"]["mobile"] == profile.mobile == ("Mobile" in profile.user_agent)
            )

    def test_an_operators_own(self, tmp_path: Path) -> None:
        path = tmp_path / "profiles.toml"
        path.write_text(
            '[kiosk]\nuser_agent = "UA/{major}"\nplatform = "Linux x86_64"\nsystem = "Linux"\nwidth = 800\n'
        )
        profiles = load(path)
        assert profiles["kiosk"].agent("140.1") == "UA/140"
        assert profiles["kiosk"].width == 800
        assert set(PROFILES) < set(profiles)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[", "no TOML"),
            ("[a]\nuser_agent = 'x'\nplatform = 'x'", "needs user_agent"),
            ("[a]\nuser_agent = 1\nplatform = 'x'\nsystem = 'x'", "user_agent must be of the type str"),
            ("[a]\nnothing = 1", "there is no nothing"),
            ("a = 1", "a profile is a table"),
            ("[A_B]\nuser_agent = 'x'", "a profile is a table"),
            ("[a]\nuser_agent='x'\nplatform='x'\nsystem='x'\nwidth=true", "width must be of the type int"),
        ],
    )
    def test_a_file_that_is_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "profiles.toml"
        path.write_text(text)
        with pytest.raises(ValueError, match=message):
            load(path)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="No such file"):
            load(tmp_path / "none.toml")
