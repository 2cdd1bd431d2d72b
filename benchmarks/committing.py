"""Committing: transactions at a rate, by writers that take next to nothing of the machine.

A driver's two calls for a transaction take a millisecond of processor time, with which five of its
processes hold up what is measured: on two cores they did not get to a thousand a second. So these
speak MongoDB's protocol themselves, in one process of their own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.site import Site

__all__ = ["commit"]

# Each waits for the journal of its transactions, one after the other.
CONNECTIONS = 6
WRITER = """
import os, socket, struct, sys, threading, time
import bson
from bson import Binary, Int64, ObjectId
from datetime import UTC, datetime
from pymongo.uri_parser import parse_uri
uri, database, rate, count, first, rows, connections = *sys.argv[1:3], *map(int, sys.argv[3:8])
partitions, address = sys.argv[8:], parse_uri(uri)["nodelist"][0]
HEADER, LENGTH, OP_MSG = struct.Struct("<iiiiIB"), struct.Struct("<i"), 2013

class Session:
    def __init__(self):
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.id, self.number = {"id": Binary(os.urandom(16), 4)}, 0

    def run(self, command, database):
        body = bson.encode(
            {**command, "$db": database, "lsid": self.id, "txnNumber": Int64(self.number),
             "autocommit": False}
        )
        self.socket.sendall(HEADER.pack(HEADER.size + len(body), 1, 0, OP_MSG, 0, 0) + body)
        size = LENGTH.unpack(self.read(4))[0]
        reply = bson.decode(self.read(size - 4)[HEADER.size - 4:])
        assert reply["ok"] and "writeErrors" not in reply and "writeConcernError" not in reply

    def read(self, count):
        found = b""
        while len(found) < count:
            more = self.socket.recv(count - len(found))
            assert more, "MongoDB closed the connection"
            found += more
        return found

    def commit(self, documents):
        self.number += 1
        insert = {"insert": "__outboxMessages", "documents": documents, "startTransaction": True}
        self.run(insert, database)
        self.run({"commitTransaction": 1, "writeConcern": {"w": "majority"}}, "admin")

def row(n):
    data = {"name": "Timed", "data": {"n": first + n}}
    return {"_id": ObjectId(), "partitionKey": partitions[n % len(partitions)],
            "occurredAt": datetime.now(UTC), "data": data}

committed = [0] * count
def work(which):
    session = sessions[which]
    for n in range(which * rows, count, connections * rows):
        time.sleep(max(0.0, began + n / rate - time.perf_counter()))
        session.commit([row(each) for each in range(n, n + rows)])
        committed[n:n + rows] = [time.time_ns()] * rows

sessions = [Session() for _ in range(connections)]
print("ready", flush=True)
began = time.perf_counter() + float(sys.stdin.readline()) - time.time()
threads = [threading.Thread(target=work, args=(n,)) for n in range(connections)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(*committed)
"""


def commit(
    site: Site, *, rate: int, count: int, first: int, rows: int, partitions: Sequence[str]
) -> dict[int, int]:
    """Commit events at a rate, `rows` of them in each transaction, into outbox partitions in turn.

    Returns the time of each event's commit by its number, in nanoseconds.
    """
    assert not count % rows
    numbers = (rate, count, first, rows, CONNECTIONS)
    uri = site.environment["POSTROOM_MONGODB_URI"]
    command = [sys.executable, "-c", WRITER, uri, site.name, *map(str, numbers), *partitions]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        said, _ = writer.communicate(f"{time.time() + 0.5}\n")
    assert not writer.returncode
    times = map(int, said.split())
    return {first + number: at for number, at in enumerate(times)}
