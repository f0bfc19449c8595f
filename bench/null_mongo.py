"""A MongoDB-wire server that confirms every write at once and stores nothing, to measure the client alone.

Run it with `python -m bench.null_mongo PORT`. It counts the documents of each collection for the command
`count`. A message is read as a whole; its documents are skipped by their lengths.
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

_documents: Counter[str] = Counter()


def _answer(command: dict[str, Any], documents: int) -> dict[str, Any]:
    name = next(iter(command))
    collection = f"{command.get('$db')}.{command[name]}"
    if name in ("hello", "isMaster", "ismaster"):
        return _HELLO
    if name in _WRITES:
        documents += len(command.get(_WRITES[name], ()))
        _documents[collection] += documents
        return {"ok": 1.0, "n": documents, "nModified": 0}
    if name == "count":
        return {"ok": 1.0, "n": _documents[collection]}
    if name in ("find", "aggregate", "listCollections", "listIndexes"):
        return {"ok": 1.0, "cursor": {"id": 0, "ns": collection, "firstBatch": []}}
    if name in ("buildInfo", "buildinfo"):
        return {"ok": 1.0, "version": "7.0.0", "versionArray": [7, 0, 0, 0]}
    return {"ok": 1.0}


def _parse_message(body: bytes) -> tuple[int, dict[str, Any], int]:
    """Return the flags of an OP_MSG, its command, and the number of documents in its other sections."""
    flags: int = struct.unpack_from("<i", body)[0]
    command: dict[str, Any] = {}
    section, documents, end = 4, 0, len(body) - (4 if flags & _CHECKSUM else 0)
    while section < end:
        kind, length = body[section], struct.unpack_from("<i", body, section + 1)[0]
        section_end = section + 1 + length
        if kind == 0:
            command = bson.decode(body[section + 1 : section_end])
        else:
            document = body.index(0, section + 5) + 1
            while document < section_end:
                document += struct.unpack_from("<i", body, document)[0]
                documents += 1
        section = section_end
    return flags, command, documents


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            size, request, _, operation = _HEADER.unpack(await reader.readexactly(16))
            body = await reader.readexactly(size - 16)
            if operation == _OP_QUERY:  # old clients use it only for the handshake
                kind, content = _OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(_HELLO)
            else:
                flags, command, documents = _parse_message(body)
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
