"""Sends decisions over kept-alive connections, as many at a time as it is told:
`python -m torghut.bench.http_client URL COUNT CONNECTIONS BATCH`.

A process of its own, so that it takes no time from the server. Prints JSON: the rate, and the 50th
and the 99th percentile of a request.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

from torghut.bench.figures import percentile
from torghut.bench.grounds import decision_json


async def client(host: str, port: int, requests: list[bytes], took_s: list[float]) -> int:
    """Send the requests one after the other; how many were answered with 2xx."""
    reader, writer = await asyncio.open_connection(host, port)
    taken = 0
    for request in requests:
        began = time.perf_counter()
        writer.write(request)
        answer = await reader.readuntil(b"\r\n\r\n")
        await _rest(reader, answer.lower())
        took_s.append(time.perf_counter() - began)
        taken += answer.startswith(b"HTTP/1.1 2")
    writer.close()
    return taken


async def _rest(reader: asyncio.StreamReader, head: bytes) -> None:
    if b"content-length: " in head:
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):  # chunked
        await reader.readexactly(size + 2)
    await reader.readexactly(2)


def request_of(host: str, numbers: range, run: str) -> bytes:
    """One request with the decisions of these numbers."""
    lines = [json.dumps(decision_json(number, run)) for number in numbers]
    path, kind = "/v1/decisions", "application/json"
    if len(lines) > 1:
        path, kind = "/v1/decisions:batch", "application/x-ndjson"
    body = "\n".join(lines).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {kind}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def main(url: str, count: int, connections: int, batch: int) -> None:
    """Run and print."""
    address = urlsplit(url)
    host, port = address.hostname or "", address.port or 80
    run = str(time.time_ns())
    requests = [
        request_of(address.netloc, range(first, min(first + batch, count)), run)
        for first in range(0, count, batch)
    ]
    took_s: list[float] = []
    began = time.perf_counter()
    taken = await asyncio.gather(
        *(client(host, port, requests[n::connections], took_s) for n in range(connections))
    )
    seconds = time.perf_counter() - began
    if sum(taken) != len(requests):
        raise SystemExit(f"{sum(taken)} of {len(requests)} requests were taken")
    seen = {
        "rate": count / seconds,
        "p50_ms": percentile(took_s, 0.5) * 1e3,
        "p99_ms": percentile(took_s, 0.99) * 1e3,
    }
    print(json.dumps(seen))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(int(text) for text in sys.argv[2:5])))
