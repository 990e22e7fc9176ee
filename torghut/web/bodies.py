"""Request bodies: of the right media type, bounded in size and time, never parsed by a framework.

A body that is announced as too large is refused before any of it is read, one that turns out to
be is refused as soon as the limit is passed; both close the connection, so the rest is not read.
Media types are insisted on because of browsers: a page of any origin may post text/plain or
nothing in particular to a loopback address, but not JSON.
"""

from __future__ import annotations

import asyncio

from starlette.requests import ClientDisconnect, Request

from torghut.web.problems import Problem

READ_TIMEOUT_S = 30.0
JSON = ("application/json",)
UNNAMED = ("", "application/x-www-form-urlencoded", "application/octet-stream")
BROWSER_HEADERS = ("origin", "sec-fetch-site", "sec-fetch-mode")
JSON_LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl", *JSON)


async def read_body(
    request: Request, *, bytes_max: int, media_types: tuple[str, ...] = JSON
) -> bytes:
    """The whole body. Raises Problem 408, 413, 415; 400 if the sender went away."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    # a client that names none, or the one that curl names by itself, is taken at its body's word;
    # not so a browser: without the header it could be any page, posting to us unasked
    unnamed = media_type in UNNAMED and not any(h in request.headers for h in BROWSER_HEADERS)
    if media_type not in media_types and not unnamed:
        raise Problem(
            415,
            "media-type",
            f"send Content-Type: {media_types[0]}",
            headers={"Accept": media_types[0]},
        )
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced[:20]) > bytes_max:
        raise _too_large(bytes_max)
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            return await _read(request, bytes_max)
    except TimeoutError:
        raise Problem(
            408,
            "body-timeout",
            f"the body did not arrive within {READ_TIMEOUT_S:.0f} seconds",
            headers={"Connection": "close"},
        ) from None
    except ClientDisconnect:
        raise Problem(400, "disconnected", "the body ended early") from None


async def _read(request: Request, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            raise _too_large(bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


def _too_large(bytes_max: int) -> Problem:
    return Problem(
        413,
        "too-large",
        f"the body is larger than {bytes_max} bytes",
        headers={"Connection": "close"},
    )
