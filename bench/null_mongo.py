"""A MongoDB-wire server that keeps nothing and says ok at once: what a client can do by itself.

`python -m bench.null_mongo PORT`. It counts what it is sent: `count` answers how many documents a
collection got. One message is read as a whole, its documents are skipped by their lengths.
"""

from __future__ import annotations

import asyncio
import struct
import sys
from collections import Counter
from typing import Any

import bson

_LIMITS = {"maxBsonObjectSize": 1 << 24, "maxMessageSizeBytes": 48_000_000, "maxWriteBatchSize": 100_000}
_HELLO: dict[str, Any] = {
    **_LIMITS,
    "ok": 1.0,
    "isWritablePrimary": True,
    "minWireVersion": 0,
    "maxWireVersion": 21,
    "logicalSessionTimeoutMinutes": 30,
}
_WRITES = {"insert": "documents", "update": "updates", "delete": "deletes"}
_HEADER = struct.Struct("<iiii")
_OP_QUERY, _OP_REPLY, _OP_MSG = 2004, 1, 2013
_MORE_TO_COME, _CHECKSUM = 2, 1

_sent: Counter[str] = Counter()


def _answer(command: dict[str, Any], documents: int) -> dict[str, Any]:
    name = next(iter(command))
    where = f"{command.get('$db')}.{command[name]}"
    if name in ("hello", "isMaster", "ismaster"):
        return _HELLO
    if name in _WRITES:
        documents += len(command.get(_WRITES[name], ()))
        _sent[where] += documents
        return {"ok": 1.0, "n": documents, "nModified": 0}
    if name == "count":
        return {"ok": 1.0, "n": _sent[where]}
    if name in ("find", "aggregate", "listCollections", "listIndexes"):
        return {"ok": 1.0, "cursor": {"id": 0, "ns": where, "firstBatch": []}}
    if name in ("buildInfo", "buildinfo"):
        return {"ok": 1.0, "version": "7.0.0", "versionArray": [7, 0, 0, 0]}
    return {"ok": 1.0}


def _taken_apart(body: bytes) -> tuple[int, dict[str, Any], int]:
    """The flags of an OP_MSG, its command, and how many documents stand beside it."""
    flags: int = struct.unpack_from("<i", body)[0]
    command: dict[str, Any] = {}
    at, documents, end = 4, 0, len(body) - (4 if flags & _CHECKSUM else 0)
    while at < end:
        kind, length = body[at], struct.unpack_from("<i", body, at + 1)[0]
        stop = at + 1 + length
        if kind == 0:
            command = bson.decode(body[at + 1 : stop])
        else:
            place = body.index(0, at + 5) + 1
            while place < stop:
                place += struct.unpack_from("<i", body, place)[0]
                documents += 1
        at = stop
    return flags, command, documents


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            size, request, _, operation = _HEADER.unpack(await reader.readexactly(16))
            body = await reader.readexactly(size - 16)
            if operation == _OP_QUERY:  # only the handshake of old clients
                kind, content = _OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(_HELLO)
            else:
                flags, command, documents = _taken_apart(body)
                reply = _answer(command, documents)
                if flags & _MORE_TO_COME:
                    continue
                kind, content = _OP_MSG, b"\0\0\0\0\0" + bson.encode(reply)
            writer.write(_HEADER.pack(16 + len(content), 0, request, kind) + content)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main(port: int) -> None:
    async with await asyncio.start_server(_serve, "127.0.0.1", port, limit=1 << 22) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
