"""What the websdk engine does in a second, and what it survives: `python -m bench.websdk`.

Four measurements, all with the stand-in script of the tests in a real Chromium:

- `speed`: signatures a second with 64 callers, each of whom asks again as soon as it has its answer, and
  with one (the inverse of its median wait); against a baseline that works as the well-known open-source
  signer does (one page, a queue, one call a URL: bench/baselines/one_page.py). Both browsers are up all
  the time and the rounds alternate; the ratio is that of the medians of the rounds.
- `memory`: what all of Chromium's processes hold (proportional set size) over 50,000 signatures.
- `leak`: the same with a script that leaks a mebibyte in one signature of ten: pages are recycled.
- `kill`: the browser is killed with signal 9 under load, several times: how long until the next
  signature; and every answer is looked at, before, during and after.

Floors: 8 times the baseline at 64 callers, no slower for one, memory flat, signing again within 5 s, no
answer that is not the right signature. Writes bench/out/websdk.json; exits 1 below a floor.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.baselines.one_page import one_page
from services.signer.domain import Signed, SignRequest
from services.signer.engines.websdk import WebSdkEngine
from tests.integration.engines.standin import ask, config, digest, held, websdk

CALLERS = 64
FASTER = 8.0
NOT_SLOWER = 0.97
"""For a single caller: medians on a shared machine differ by a few per cent."""
FLAT = 1.15
AGAIN = 5.0
OUT = Path(__file__).with_name("out") / "websdk.json"

Sign = Callable[[SignRequest], Awaitable[str]]
"""Signs, and returns the URL; "" for a refusal."""


async def rate(sign: Sign, callers: int, seconds: float) -> float:
    """Signatures a second of so many callers. What is asked is made before, and the answers are looked at
    after the time is taken. Raises for one that is not right.
    """
    requests = [ask(seconds=None) for _ in range(callers)]
    answers: list[list[str]] = [[] for _ in requests]
    end = time.perf_counter() + seconds

    async def caller(number: int) -> None:
        while time.perf_counter() < end:
            answers[number].append(await sign(requests[number]))

    began = time.perf_counter()
    await asyncio.gather(*map(caller, range(callers)))
    took = time.perf_counter() - began
    for request, urls in zip(requests, answers, strict=True):
        if set(urls) != {right(request)}:
            raise ValueError("an answer that is no right signature")
    return sum(map(len, answers)) / took


def right(request: SignRequest) -> str:
    """The one right answer to a request without tokens of its own."""
    url = request.room.url
    return f"{url}&X-Bogus={digest(url.partition('?')[2])}"


def by_engine(engine: WebSdkEngine) -> Sign:
    async def sign(request: SignRequest) -> str:
        (result,) = await engine.sign((request,))
        return result.signed_url if isinstance(result, Signed) else ""

    return sign


async def speed(rounds: int, seconds: float) -> dict[str, Any]:
    """Both, interleaved."""
    settings = config(pages=2)
    async with one_page(settings) as baseline, websdk(settings) as engine:

        async def sign_by_baseline(request: SignRequest) -> str:
            return await baseline.sign(request.room.url)

        ways: dict[str, Sign] = {"baseline": sign_by_baseline, "engine": by_engine(engine)}
        for sign in ways.values():
            await rate(sign, CALLERS, 0.5)  # warm
        many: dict[str, list[float]] = {name: [] for name in ways}
        alone: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(rounds):
            for name in sorted(ways, reverse=bool(number % 2)):
                many[name].append(await rate(ways[name], CALLERS, seconds))
            for name, times in (await turns(ways, seconds)).items():
                alone[name].append(1 / statistics.median(times))
    return {"64 callers": compared(many), "1 caller": compared(alone)}


async def turns(ways: dict[str, Sign], seconds: float) -> dict[str, list[float]]:
    """Seconds that each signature takes a single caller, who asks the ways in turn: the machine's other
    work falls on both alike.
    """
    found: dict[str, list[float]] = {name: [] for name in ways}
    end = time.perf_counter() + 2 * seconds
    request = ask(seconds=None)
    while time.perf_counter() < end:
        for name, sign in ways.items():
            began = time.perf_counter()
            url = await sign(request)
            found[name].append(time.perf_counter() - began)
            if url != right(request):
                raise ValueError("an answer that is no right signature")
    return found


def compared(rates: dict[str, list[float]]) -> dict[str, Any]:
    """Signatures a second of each round, and how many times the baseline's the engine's are."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {name: [round(value) for value in values] for name, values in rates.items()} | {
        "ratio": round(medians["engine"] / medians["baseline"], 2)
    }


def chromium() -> list[psutil.Process]:
    """All of the browser's processes."""
    found = psutil.Process().children(recursive=True)
    return [process for process in found if "chromium" in process.name()]


def held_bytes() -> int:
    """What they hold, each shared page counted once in all."""
    total = 0
    for process in chromium():
        try:
            total += process.memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


async def memory(total: int) -> dict[str, Any]:
    """Mebibytes after each tenth."""
    async with websdk(config(pages=2, recycle_count=10 * total)) as engine:
        sign = by_engine(engine)
        marks = []
        for _ in range(10):
            left = total // 10

            async def caller() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    request = ask()
                    if await sign(request) != right(request):
                        raise ValueError("an answer that is no right signature")

            await asyncio.gather(*(caller() for _ in range(CALLERS)))
            marks.append(round(held_bytes() / 2**20, 1))
    return {"signatures": total, "mib": marks, "ratio": round(max(marks[5:]) / max(marks[:2]), 3)}


async def leak(total: int) -> dict[str, Any]:
    """The most that is held while a script leaks, pages of at most 64 MiB."""
    async with websdk(config(pages=2, recycle_heap=64 * 2**20)) as engine:
        marks = []
        for _ in range(20):
            for _ in range(total // 20 // 10):
                requests = [ask("leak"), *(ask() for _ in range(9))]
                results = await engine.sign(requests)
                if not all(held(*pair) for pair in zip(results, requests, strict=True)):
                    raise ValueError("an answer that is no right signature")
            await asyncio.sleep(0.1)
            marks.append(round(held_bytes() / 2**20, 1))
    return {"signatures": total, "leaked_mib": total // 10, "mib": marks, "most_mib": max(marks)}


async def until(look: Callable[[], bool], seconds: float) -> None:
    """Return when it is so. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not look():  # noqa: ASYNC110  # nobody tells a caller of an engine
            await asyncio.sleep(0.002)


async def kill(times: int) -> dict[str, Any]:
    """Seconds until it signs again, each time; and what became of all requests."""
    took: list[float] = []
    wrong = signed = refused = 0
    async with websdk(config(pages=2)) as engine:
        stopping = asyncio.Event()
        last_signed = time.perf_counter()

        async def caller() -> None:
            nonlocal wrong, signed, refused, last_signed
            while not stopping.is_set():
                request = ask()
                (result,) = await engine.sign((request,))
                if isinstance(result, Signed):
                    signed += 1
                    last_signed = time.perf_counter()
                    wrong += not held(result, request)
                else:
                    refused += 1
                    await asyncio.sleep(0.05)

        callers = [asyncio.create_task(caller()) for _ in range(CALLERS)]
        for _ in range(times):
            await asyncio.sleep(1.0)
            found = {process.pid: process for process in chromium()}
            (main,) = [p for p in found.values() if p.ppid() not in found and p.children()]
            os.kill(main.pid, signal.SIGKILL)
            killed = time.perf_counter()
            # Answers of before the kill are still being read.
            await until(lambda: not engine.describe().ready, AGAIN)
            gone = time.perf_counter()
            await until(lambda gone=gone: last_signed > gone, 4 * AGAIN)  # type: ignore[misc]
            took.append(round(last_signed - killed, 2))
        stopping.set()
        await asyncio.gather(*callers)
    return {"again_after_s": took, "signed": signed, "refused": refused, "wrong": wrong}


def report(found: dict[str, Any]) -> list[str]:
    """Print all; the floors that were missed."""
    print(json.dumps(found, indent=2))
    many, one = found["speed"]["64 callers"]["ratio"], found["speed"]["1 caller"]["ratio"]
    floors = {
        f"{many} times the baseline at {CALLERS} callers (floor {FASTER})": many >= FASTER,
        f"{one} times the baseline for one caller (floor {NOT_SLOWER})": one >= NOT_SLOWER,
        f"memory {found['memory']['ratio']} of its beginning (ceiling {FLAT})": found["memory"]["ratio"]
        <= FLAT,
        f"again after {max(found['kill']['again_after_s'])} s (ceiling {AGAIN})": (
            max(found["kill"]["again_after_s"]) < AGAIN
        ),
        f"{found['kill']['wrong']} wrong answers (ceiling 0)": not found["kill"]["wrong"],
    }
    for text, good in floors.items():
        print(f"{'ok  ' if good else 'MISS'} {text}")
    return [text for text, good in floors.items() if not good]


async def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    return {
        "speed": await speed(arguments.rounds, arguments.seconds),
        "memory": await memory(arguments.signatures),
        "leak": await leak(2000),
        "kill": await kill(3),
    }


def main(given: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=6, help="of each way")
    parser.add_argument("--seconds", type=float, default=1.5, help="of each round")
    parser.add_argument("--signatures", type=int, default=50_000, help="for `memory`")
    found = asyncio.run(measure(parser.parse_args(given)))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return int(bool(report(found)))


if __name__ == "__main__":
    sys.exit(main())
