"""Whatever a peer answers to a call, the call ends with one of four errors, or with its result."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tieline_connectors.command.execution.errors import DeviceRefusedError, UncertainError
from tieline_connectors.command.execution.platform_client import Platform
from tieline_connectors.command.model.facts import reading_of
from tieline_connectors.command.rules.decisions import CallResult
from tieline_connectors.volttron_bus.testing.fake_router import FakeRouter, RawAnswer
from tieline_connectors.volttron_bus.vip import jsonrpc
from tieline_connectors.volttron_bus.vip.client import InvalidAnswerError, RpcError, VipClient
from tieline_connectors.volttron_bus.vip.connection import Endpoint

DRIVER = "platform.driver"
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
errors = documents | st.fixed_dictionaries(
    {},
    optional={
        "code": documents | st.sampled_from(["-32000", 1e400, -(2**70), True]),
        "message": documents,
        "data": documents | st.fixed_dictionaries({"detail": documents}),
    },
)
answers = documents | st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.just("2.0") | documents,
        "id": st.sampled_from(["m1", "m2", "m3", 1]) | documents,
        "error": errors,
        "result": documents,
    },
)
raw = st.binary(max_size=50) | answers.map(lambda answer: json.dumps(answer).encode())


@given(raw)
@example(b'{"jsonrpc": "2.0", "id": "m1", "error": {"code": "E1", "message": null}}')
@example(b'{"jsonrpc": "2.0", "id": "m1", "error": {"code": 1e999, "message": ["a"]}}')
@example(b'{"jsonrpc": "2.0", "id": "m1", "error": "no"}')
@example(b'{"jsonrpc": "2.0", "id": "m1", "error": {}}')
@example(b'{"jsonrpc": "2.0", "id": "m1", "result": ' + b"9" * 5000 + b"}")
@example(b'{"jsonrpc": "2.0", "id": "m1", "result": ' + b"[" * 100_000 + b"]" * 100_000 + b"}")
@example(b" " * (jsonrpc.MAX_ANSWER + 1))
def test_an_answer_is_a_result_or_a_fault_or_invalid(answer: bytes) -> None:
    try:
        outcome = jsonrpc.result(answer, "m1")
    except jsonrpc.MalformedAnswerError as error:
        str(error).encode("utf-8")
        return
    if isinstance(outcome, jsonrpc.Fault):
        assert type(outcome.code) is int
        outcome.message.encode("utf-8")
    else:
        repr(outcome)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nothing",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"jsonrpc": "2.0", "id": "ID"}',
        b'{"jsonrpc": "1.0", "id": "ID", "result": 1}',
        b'{"id": "ID", "result": 1}',
        b'{"jsonrpc": "2.0", "id": "another", "result": 1}',
        b'{"jsonrpc": "2.0", "result": 1}',
        b'{"jsonrpc": "2.0", "id": "ID", "error": "no"}',
        b'{"jsonrpc": "2.0", "id": "ID", "error": ["no"], "result": 1}',
    ],
)
def test_a_frame_that_does_not_answer_this_call_decides_nothing(answer: bytes) -> None:
    with pytest.raises(jsonrpc.MalformedAnswerError):
        jsonrpc.result(answer.replace(b"ID", b"m7"), "m7")


@settings(max_examples=60, deadline=None)
@given(answers=st.lists(raw, min_size=1, max_size=4))
def test_after_any_answers_the_same_connection_still_works(answers: list[bytes]) -> None:
    kept = iter(answers)
    methods = {"hostile": lambda: RawAnswer(next(kept)), "honest": lambda: 21.5}
    with FakeRouter(rpc={DRIVER: methods}) as bus, VipClient(Endpoint(bus.address, "me")) as client:
        for _ in answers:
            with suppress(RpcError, InvalidAnswerError):
                client.call(DRIVER, "hostile", timeout=5.0)
        assert client.call(DRIVER, "honest", timeout=5.0) == 21.5


@settings(max_examples=60, deadline=None)
@given(answer=raw)
@example(b'{"jsonrpc": "2.0", "id": "m4", "error": {"code": "E1"}}')
def test_any_answer_to_a_write_means_done_refused_or_unknown(answer: bytes) -> None:
    methods = {"set_point": lambda *_: RawAnswer(answer), "get_point": lambda *_: 21.5}
    with FakeRouter(rpc={DRIVER: methods}) as bus:
        platform = Platform(Endpoint(bus.address, "me"), 5.0)
        platform.connect()
        try:
            platform.set("a/b", 1)
        except (DeviceRefusedError, UncertainError) as error:
            CallResult("REFUSED", str(error)).reason.encode("utf-8")
        assert platform.get("a/b") == 21.5
        platform.close()


@given(documents)
def test_any_value_of_a_point_is_a_storable_reading_or_none(value: Any) -> None:
    reading = reading_of(value)
    assert reading is None or str(reading.value).encode("utf-8") is not None


def test_an_unrequested_answer_is_ignored_and_takes_no_memory() -> None:
    forged = b'{"jsonrpc": "2.0", "id": "m1", "result": "forged"}'
    flood = [b"", b"VIP1", b"", b"x", b"pubsub", b"publish", b"a/b", b"{"]

    def honest() -> str:
        return "honest"

    with FakeRouter(rpc={DRIVER: {"ask": honest}}) as bus, VipClient(Endpoint(bus.address, "me")) as client:
        client.hello()
        for ident in (b"m1", b"m2", b"m3"):
            bus.deliver("me", [b"somebody", b"VIP1", b"", ident, b"RPC", forged.replace(b"m1", ident)])
            bus.deliver("me", [b"somebody", b"VIP1", b"", ident, b"error", b"113", b"gone", b"", b"RPC"])
            bus.deliver("me", flood)
        assert client.call(DRIVER, "ask") == "honest"
        assert client.messages(0.1) == []
