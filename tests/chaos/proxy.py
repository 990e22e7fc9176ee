"""A TCP proxy that does to a connection what networks do; before Postgres or before the broker.

pass        forward
black_hole  swallow in both directions, new connections too; what is held flows when it ends
slow        every chunk waits
reply_lost  requests arrive; the first reply is dropped and the connection reset
refuse      `shut()`; `reset()` ends what is open with RST, and lets new connections in
"""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress

from tests.crash.door import CHUNK, Door

SLOW_S = 0.05
_RST = struct.pack("ii", 1, 0)


class FaultProxy(Door):
    """Forwards to host:port; `mode` may be set at any time."""

    def __init__(self, host: str, port: int) -> None:
        self._mode = "pass"
        self._changed = threading.Condition()
        super().__init__(f"tcp://{host}:{port}")

    @property
    def port(self) -> int:
        return self._port

    @property
    def mode(self) -> str:
        return self._mode

    @mode.setter
    def mode(self, mode: str) -> None:
        with self._changed:
            self._mode = mode
            self._changed.notify_all()

    def reset(self) -> None:
        """End every open connection with RST."""
        with self._lock:
            ends = list(self._ends)
        for end in ends:
            self._break(end)

    def shut(self) -> None:
        self.mode = "pass"  # nothing waits for a black hole to end
        super().shut()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        replies = source.getsockname()[1] != self._port  # read from the far side
        with suppress(OSError):
            while data := source.recv(CHUNK):
                with self._changed:
                    self._changed.wait_for(lambda: self._mode != "black_hole")
                    mode = self._mode
                if mode == "slow":
                    threading.Event().wait(SLOW_S)
                if mode == "reply_lost" and replies:
                    self._break(sink)
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
        with self._lock:
            self._ends.discard(source)

    @staticmethod
    def _break(end: socket.socket) -> None:
        with suppress(OSError):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            end.shutdown(socket.SHUT_RDWR)  # wakes who reads from it, which holds it open
            end.close()
