"""How many decisions a second POST /v1/decisions takes: `python -m tests.web.bench URL [N] [C]`.

Sends N different decisions over C kept-alive connections, waits for every answer, and prints the
rate and the latency (milliseconds) at the 50th and 99th percentile. URL is a served interface.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from urllib.parse import urlsplit

from tests.factories import decision_json


async def client(host: str, port: int, bodies: list[bytes], took_s: list[float]) -> int:
    """Send the bodies one after the other; how many were created."""
    reader, writer = await asyncio.open_connection(host, port)
    created = 0
    for body in bodies:
        began = time.perf_counter()
        head = (
            f"POST /v1/decisions HTTP/1.1\r\nHost: {host}:{port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(answer.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        took_s.append(time.perf_counter() - began)
        created += answer.startswith(b"HTTP/1.1 201")
    writer.close()
    return created


async def main(url: str, count: int, connections: int) -> None:
    """Run and print."""
    address = urlsplit(url)
    run = str(time.time_ns())
    bodies = [
        json.dumps(decision_json(intent=f"{run}-{number}")).encode() for number in range(count)
    ]
    took_s: list[float] = []
    began = time.perf_counter()
    created = await asyncio.gather(
        *(
            client(address.hostname or "", address.port or 80, bodies[n::connections], took_s)
            for n in range(connections)
        )
    )
    seconds = time.perf_counter() - began
    took_s.sort()
    p50, p99 = (took_s[int(len(took_s) * share)] * 1_000 for share in (0.5, 0.99))
    print(
        f"{sum(created)} created of {count} over {connections} connections: "
        f"{count / seconds:.0f}/s, p50 {p50:.1f} ms, p99 {p99:.1f} ms"
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *(int(text) for text in (*sys.argv[2:4], "5000", "32")[:2])))
