"""Proxy: a listening port that passes bytes on, unless the link that they travel on is cut."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Network"]

CHUNK_BYTES = 65_536


class Network:
    """Proxies before some servers, and the links between these servers that are cut.

    What is sent on a cut link is held back, as by a network that loses every packet: connections
    stay open, and go on where the link is mended. Clients reach every server at all times. Who
    connects is told by the socket's owner in /proc, so that nothing can be cut but on Linux.
    """

    def __init__(self) -> None:
        self._cut: set[frozenset[str]] = set()
        self._servers: list[asyncio.Server] = []
        self._mended = asyncio.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def listen(
        self, name: str, *, port: int, target: int, pids: Callable[[], Mapping[str, int]]
    ) -> None:
        """Pass on what comes to `port` to the server `name` on `target`.

        `pids` returns the processes of all servers by name, at the time of the call.
        """

        async def serve() -> None:
            async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                peer = _owner(writer.get_extra_info("peername")[1], port, pids())
                await self._pass_on(frozenset((name, peer)), (reader, writer), target)

            self._servers.append(await asyncio.start_server(connected, "127.0.0.1", port))

        asyncio.run_coroutine_threadsafe(serve(), self._loop).result(10)

    def cut(self, one: str, other: str) -> None:
        """Cut the link between two servers, both ways."""
        self._cut = self._cut | {frozenset((one, other))}

    def mend(self) -> None:
        """Mend all links."""

        async def mend() -> None:
            async with self._mended:
                self._cut = set()
                self._mended.notify_all()

        asyncio.run_coroutine_threadsafe(mend(), self._loop).result(10)

    def close(self) -> None:
        """Close all connections and ports."""

        async def end() -> None:
            for server in self._servers:
                server.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.sleep(0)  # for what was aborted to be closed
            self._loop.stop()

        asyncio.run_coroutine_threadsafe(end(), self._loop)
        self._thread.join(10)
        self._loop.close()

    async def _pass_on(
        self,
        link: frozenset[str],
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        target: int,
    ) -> None:
        ends = [here[1]]
        try:
            there = await asyncio.open_connection("127.0.0.1", target)
            ends.append(there[1])
            await asyncio.gather(
                self._pump(link, here[0], there[1]), self._pump(link, there[0], here[1])
            )
        except OSError:
            pass  # a server that is away
        finally:
            for end in ends:
                # Not closed: it would wait for a frozen server to take what is on its way.
                end.transport.abort()

    async def _pump(
        self, link: frozenset[str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK_BYTES):
                if link in self._cut:
                    async with self._mended:
                        await self._mended.wait_for(lambda: link not in self._cut)
                writer.write(data)
                await writer.drain()
        writer.close()


def _owner(port: int, listening: int, pids: Mapping[str, int]) -> str:
    """Return which of some processes has the connection from `port`, or nothing."""
    ends = (f"0100007F:{port:04X}", f"0100007F:{listening:04X}")
    for line in Path("/proc/net/tcp").read_text().splitlines():
        words = line.split()
        if (words[1], words[2]) == ends:
            socket = f"socket:[{words[9]}]"
            return next((name for name, pid in pids.items() if _holds(pid, socket)), "")
    return ""


def _holds(pid: int, socket: str) -> bool:
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if str(file.readlink()) == socket:
                    return True
    return False
