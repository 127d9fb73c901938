"""The websdk engine: headless Chromium running a script that the operator supplies.

config     what the operator says, checked; presets of how a script's function is called
profiles   device profiles: user agent, language, screen, time zone
script     the script's file and hash, and what its function may answer
browser    one Chromium, from which nothing leaves
page       one loaded page; signs a list in one call
tickets    requests that wait: bounded, each with its deadline
pool       pages kept warm, recycled and replaced
engine     `Engine`, over all of that
"""

from services.signer.engines.websdk.config import PRESETS, Call, WebSdkConfig
from services.signer.engines.websdk.engine import WebSdkEngine

__all__ = ["PRESETS", "Call", "WebSdkConfig", "WebSdkEngine"]
