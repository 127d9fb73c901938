"""The settings of the engines that not every deployment has. docs/engines.md is their manual."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from servicekit.config import ServiceSettings
from services.signer.engines.upstream.config import Upstream, UpstreamConfig
from services.signer.engines.websdk.config import PRESETS, Call, WebSdkConfig
from services.signer.engines.websdk.profiles import load


class UpstreamEntry(BaseModel):
    """One member of `upstreams`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    name: str
    url: str
    weight: float = 1.0


class EngineSettings(ServiceSettings):
    """Times are seconds. What is wrong here keeps its own engine from starting and no other.

    `websdk_script`, `websdk_script_sha256`: the operator's script; only a file of that hash is run.
    `websdk_preset`: how its function is called, by a name of `PRESETS`; or spelt out in
    `websdk_function`, `websdk_argument` and `websdk_result`. `websdk_required`: parameters that every
    answer must have. `websdk_profile`: a device profile, one of those that come with Signgate or of
    the TOML file `websdk_profiles`.
    `websdk_browser_url`: a browser in a separate container, as ws://host:port. Without it the signer starts
    Chromium itself, in Chromium's own sandbox, because the signer holds signing keys and Redis' password.
    `websdk_sandbox` false, or running as root (which cannot use the sandbox), is refused unless
    `websdk_unsafe_no_sandbox` accepts that a script which escapes from its page can read those secrets.
    `upstreams`: sign servers to ask, as JSON; each is on one of `upstream_allowed_hosts`.
    `upstream_keys`: a JSON object from an upstream's name to the key that it is sent.
    `lists_in_flight`: how many lists may wait for slow engines at once.
    """

    websdk_script: Path | None = None
    websdk_script_sha256: str = ""
    websdk_preset: str = "frontier-sign"
    websdk_function: str = ""
    websdk_argument: Literal["query", "url", "request"] = "query"
    websdk_result: str = ""
    websdk_required: tuple[str, ...] = ()
    websdk_origin: str = "https://www.tiktok.com"
    websdk_profile: str = "desktop-linux"
    websdk_profiles: Path | None = None
    websdk_chromium: Path = Path("/usr/bin/chromium")
    websdk_browser_url: str = ""
    websdk_sandbox: bool = True
    websdk_unsafe_no_sandbox: bool = False
    websdk_pages: Annotated[int, Field(ge=1, le=64)] = 2
    websdk_max_waiting: Annotated[int, Field(ge=64)] = 1024
    websdk_call_timeout: Annotated[float, Field(gt=0, le=8)] = 1.5
    websdk_recycle_count: Annotated[int, Field(ge=64)] = 50_000
    websdk_recycle_age: Annotated[float, Field(gt=0)] = 1800.0
    websdk_recycle_heap_mib: Annotated[int, Field(ge=4)] = 128

    upstreams: tuple[UpstreamEntry, ...] = ()
    upstream_allowed_hosts: frozenset[str] = frozenset()
    upstream_keys: SecretStr = SecretStr("{}")
    upstream_timeout: Annotated[float, Field(gt=0)] = 3.0
    upstream_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    upstream_max_concurrent: Annotated[int, Field(ge=1)] = 64
    upstream_proof_age: Annotated[float, Field(gt=0)] = 300.0

    lists_in_flight: Annotated[int, Field(ge=1, le=64)] = 8

    def websdk(self) -> WebSdkConfig:
        """The websdk engine's configuration. Raises `ValueError`, saying what is wrong."""
        if self.websdk_script is None:
            raise ValueError("websdk_script names no script")
        if not self.websdk_function and self.websdk_preset not in PRESETS:
            raise ValueError(f"there is no preset of that name; there are: {', '.join(PRESETS)}")
        profiles = load(self.websdk_profiles)
        if self.websdk_profile not in profiles:
            raise ValueError(f"there is no profile of that name; there are: {', '.join(profiles)}")
        call = PRESETS.get(self.websdk_preset)
        if self.websdk_function or call is None:
            call = Call(self.websdk_function, self.websdk_argument, self.websdk_result)
        return WebSdkConfig(
            self.websdk_script,
            self.websdk_script_sha256.lower(),
            call,
            origin=self.websdk_origin,
            profile=profiles[self.websdk_profile],
            required=self.websdk_required,
            chromium=self.websdk_chromium,
            browser_url=self.websdk_browser_url,
            sandbox=self._sandbox(),
            pages=self.websdk_pages,
            max_waiting=self.websdk_max_waiting,
            call_timeout=self.websdk_call_timeout,
            member_timeout=self.websdk_call_timeout * 2 / 3,
            recycle_count=self.websdk_recycle_count,
            recycle_age=self.websdk_recycle_age,
            recycle_heap=self.websdk_recycle_heap_mib * 1024 * 1024,
        )

    def _sandbox(self) -> bool:
        """Whether a browser that is started here is sandboxed. Raises `ValueError` where it would not be."""
        if self.websdk_browser_url:
            return True
        if self.websdk_unsafe_no_sandbox:
            return False
        if self.websdk_sandbox and os.geteuid() != 0:
            return True
        why = "root can't use Chromium's sandbox" if self.websdk_sandbox else "websdk_sandbox is false"
        raise ValueError(
            f"{why}, and the signer holds signing keys and Redis' password: run the browser in a container of"
            " its own and name it in websdk_browser_url, or accept the risk with websdk_unsafe_no_sandbox"
        )

    def upstream(self) -> UpstreamConfig:
        """The upstream engine's configuration. Raises `ValueError`, saying what is wrong."""
        try:
            keys = json.loads(self.upstream_keys.get_secret_value() or "{}")
        except ValueError:
            raise ValueError("upstream_keys is no JSON") from None
        if not isinstance(keys, dict) or not all(isinstance(key, str) for key in keys.values()):
            raise ValueError("upstream_keys must be a JSON object of texts")
        if unknown := set(keys) - {entry.name for entry in self.upstreams}:
            raise ValueError(f"upstream_keys has keys for what is no upstream: {len(unknown)} of them")
        return UpstreamConfig(
            tuple(
                Upstream(entry.name, entry.url, entry.weight, keys.get(entry.name, ""))
                for entry in self.upstreams
            ),
            self.upstream_allowed_hosts,
            timeout=self.upstream_timeout,
            attempts=self.upstream_attempts,
            max_concurrent=self.upstream_max_concurrent,
            proof_age=self.upstream_proof_age,
        )
