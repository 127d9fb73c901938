"""What a request costs, against its room URL's length, its batch's size, and the callers at once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench import load
from bench.growth.curves import Curve
from bench.progress import Say
from bench.scenarios.contenders import Contender, room
from signgate.signer.v1 import signer_pb2 as pb

PATIENT = 1_000
"""Requests that a caller makes at most: a server ends its connection after half a minute."""
ENDPOINT = "https://webcast.tiktok.com/webcast/im/fetch/?aid=1988&room_id=7300000000000000000&"


def url_length(
    sign: Contender, folder: Path, sizes: tuple[int, ...], rounds: int, requests: int, say: Say
) -> Curve:
    """CPU of a signature, by characters of its room URL."""
    curve = Curve("url_length", "characters of the room URL", "µs of CPU a signature, all processes")
    for size in sizes:
        url = ENDPOINT + "x=" + "y" * (size - len(ENDPOINT) - 2)
        body = load.body(folder, f"url-{size}", [pb.SignRequest(room_url=url)])
        asking = replace(sign, target=replace(sign.target, body=body), costs=[])
        curve.add(size, [_cost(asking, requests) for _ in range(rounds)])
        say(f"{size:,} characters: {curve.medians[size]:.0f} µs of CPU")
    return curve


def batch_size(
    batch: Contender, folder: Path, sizes: tuple[int, ...], rounds: int, urls: int, say: Say
) -> list[Curve]:
    """CPU of a whole batch, and of a URL in it."""
    whole = Curve("batch", "URLs in a SignBatch", "µs of CPU a batch, all processes")
    each = Curve("batch_url", "URLs in a SignBatch", "µs of CPU a URL, all processes")
    for size in sizes:
        message = pb.SignBatchRequest(requests=[pb.SignRequest(room_url=room(n)) for n in range(size)])
        body = load.body(folder, f"batch-{size}", [message])
        asking = replace(batch, target=replace(batch.target, body=body), urls=size, costs=[])
        found = [_cost(asking, min(max(64, urls // size), PATIENT * batch.callers)) for _ in range(rounds)]
        each.add(size, found)
        whole.add(size, [cost * size for cost in found])
        say(f"batches of {size}: {each.medians[size]:.0f} µs of CPU a URL")
    return [whole, each]


def callers(sign: Contender, sizes: tuple[int, ...], rounds: int, requests: int, say: Say) -> list[Curve]:
    """CPU and the slowest hundredth's wait, by callers who each have one request on its way."""
    cost = Curve("callers", "callers at once", "µs of CPU a signature, all processes")
    wait = Curve("callers_p99", "callers at once", "ms until an answer, p99")
    for size in sizes:
        costs, waits = [], []
        for _ in range(rounds):
            asking = replace(sign, callers=size, costs=[])
            done = asking.run(min(max(requests, 10 * size), PATIENT * size), log=True)
            costs.append(_microseconds(asking))
            waits.append(done.percentile(0.99) * 1000)
        cost.add(size, costs)
        wait.add(size, waits)
        say(f"{size:,} callers: {cost.medians[size]:.0f} µs of CPU, p99 {wait.medians[size]:.1f} ms")
    return [cost, wait]


def _cost(asking: Contender, requests: int) -> float:
    asking.run(requests)
    return _microseconds(asking)


def _microseconds(asking: Contender) -> float:
    """CPU of the last run, a URL, without the load generator's own."""
    return sum(spent for name, spent in asking.costs[-1].seconds.items() if name != "load") * 1e6
