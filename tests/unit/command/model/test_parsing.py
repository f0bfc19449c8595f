import pytest

from tieline_connectors.command.model.command import (
    Command,
    Defaults,
    Write,
    digest,
    is_signed_by,
    sign,
    signing_content,
)
from tieline_connectors.command.model.parsing import (
    MalformedCommandError,
    from_old,
    from_value,
    is_old,
    number_of,
)
from tieline_connectors.command.model.point import point_of


def test_a_complete_command_is_parsed(given):
    sent = given.value(
        correlation_id="x",
        not_before=given.T0 + 1,
        reason="peak",
        priority=10,
        hold_ms=5,
        tolerance=1,
        dry_run=True,
    )
    command = from_value(sent, Defaults())
    assert command == Command(
        "c1",
        "energy-manager",
        given.T0,
        given.T0 + given.MINUTE,
        "SET",
        (Write(given.POINT, 21.5),),
        "x",
        given.T0 + 1,
        "peak",
        10,
        5,
        1.0,
        True,
    )
    assert Command.from_json(command.to_json()) == command


@pytest.mark.parametrize("written", [f"devices/{'a/b/c'}", "/a/b/c/", "a/b/c", "/devices/a/b/c"])
def test_a_point_is_read_without_devices_and_outer_slashes(written):
    assert point_of(written) == "a/b/c"


@pytest.mark.parametrize(
    ("change", "reported"),
    [
        ({"command_id": None}, "command_id is required"),
        ({"command_id": ""}, "command_id must be a printable text of 1 to 200 characters"),
        ({"command_id": "x" * 201}, "command_id must be a printable text"),
        ({"command_id": "a\nb"}, "command_id must be a printable text"),
        ({"command_id": "\ud800"}, "command_id must be a printable text"),
        ({"command_id": 7}, "command_id must be a printable text"),
        ({"issuer": None}, "issuer is required"),
        ({"issued_at": None}, "issued_at is required"),
        ({"issued_at": True}, "issued_at must be a time"),
        ({"issued_at": -1}, "issued_at must be a time"),
        ({"expires_at": 2**62}, "expires_at must be a time"),
        ({"action": "OTHER"}, "action must be SET or REVERT"),
        ({"action": None}, "action must be SET or REVERT"),
        ({"reason": "x" * 1001}, "reason must be a printable text of 1 to 1000"),
        ({"priority": 0}, "priority must be a whole number from 1 to 16"),
        ({"priority": 17}, "priority must be a whole number from 1 to 16"),
        ({"priority": 8.0}, "priority must be a whole number from 1 to 16"),
        ({"hold_ms": 0}, "hold_ms must be a whole number from 1"),
        ({"hold_ms": 10**12}, "hold_ms must be a whole number from 1"),
        ({"tolerance": -1}, "tolerance must be a finite number, 0 or more"),
        ({"tolerance": float("nan")}, "tolerance must be a finite number"),
        ({"tolerance": float("inf")}, "tolerance must be a finite number"),
        ({"tolerance": True}, "tolerance must be a number"),
        ({"dry_run": 1}, "dry_run must be true or false"),
        ({"ttl": 5}, "'ttl' is not a field of a command"),
        ({"filled": ["issuer"]}, "'filled' is not a field of a command"),
        ({"writes": []}, "at least one point"),
        ({"writes": None}, "at least one point"),
        ({"writes": [{"point": f"a/{n}", "value": 1} for n in range(101)]}, "at most 100 writes, not 101"),
        (
            {"writes": [{"point": "a/b", "value": 1}, {"point": "devices/A/B", "value": 2}]},
            "A/B is written twice",
        ),
        ({"writes": [{"point": "a/b", "value": 1, "x": 2}]}, "write 1 must be a map of point and value"),
        ({"writes": ["a/b"]}, "write 1 must be a map of point and value"),
        ({"writes": [{"point": "lonely", "value": 1}]}, "the point of write 1 must be a full path"),
        ({"writes": [{"point": "a//b", "value": 1}]}, "full path"),
        ({"writes": [{"point": "a/ b", "value": 1}]}, "full path"),
        ({"writes": [{"point": "a/*", "value": 1}]}, "must name one point"),
        ({"writes": [{"point": "a/" + "b" * 500, "value": 1}]}, "printable text of 1 to 500"),
        ({"writes": [{"point": "/".join("a" * 21), "value": 1}]}, "full path"),
        ({"writes": [{"point": "a/b", "value": float("nan")}]}, "not a finite number"),
        ({"writes": [{"point": "a/b", "value": float("-inf")}]}, "not a finite number"),
        ({"writes": [{"point": "a/b", "value": 2**63}]}, "beyond 64 bits"),
        ({"writes": [{"point": "a/b", "value": [1]}]}, "a boolean, a number, a text or null"),
        ({"writes": [{"point": "a/b", "value": "x" * 1001}]}, "longer than 1000"),
        ({"writes": [{"point": "a/b", "value": "a\0"}]}, "not printable"),
        ({"action": "REVERT"}, "REVERT of campus/b1/ahu1/CoolingSetpoint takes no value"),
        (
            {"action": "REVERT", "writes": [{"point": "a/b"}], "hold_ms": 5},
            "hold_ms has no meaning with REVERT",
        ),
    ],
)
def test_an_invalid_command_is_rejected_with_one_sentence(given, change, reported):
    with pytest.raises(MalformedCommandError) as caught:
        from_value(given.value(**change), Defaults())
    assert reported in str(caught.value)


@pytest.mark.parametrize("value", [None, 7, "x", [], b"x"])
def test_a_value_that_is_not_a_map_is_rejected_in_both_forms(value):
    with pytest.raises(MalformedCommandError):
        from_value(value, Defaults())
    with pytest.raises(MalformedCommandError):
        from_old(value, command_id="t-0-1", issuer="old", at=1, max_age=1, defaults=Defaults())


def test_the_readable_fields_of_a_malformed_command_are_reported(given):
    with pytest.raises(MalformedCommandError) as caught:
        from_value(given.value(action="JUMP", correlation_id="x"), Defaults())
    assert (caught.value.command_id, caught.value.issuer, caught.value.correlation_id) == (
        "c1",
        "energy-manager",
        "x",
    )
    with pytest.raises(MalformedCommandError) as caught:
        from_value({"command_id": "a\n", "issuer": 7}, Defaults())
    assert (caught.value.command_id, caught.value.issuer, caught.value.correlation_id) == (None, "", None)


def test_defaults_fill_missing_fields_without_changing_the_commands_digest(given):
    sent = given.value(expires_at=None)
    first = from_value(sent, Defaults(ttl=5, priority=9, tolerance=0.5))
    second = from_value(sent, Defaults(ttl=7))
    assert (first.expires_at, first.priority, first.tolerance) == (given.T0 + 5, 9, 0.5)
    assert (second.expires_at, second.priority, second.tolerance) == (given.T0 + 7, None, 0.0)
    assert digest(first) == digest(second)
    assert digest(first) != digest(from_value(given.value(expires_at=first.expires_at), Defaults(ttl=5)))


@pytest.mark.parametrize(
    "change",
    [
        {"issuer": "else"},
        {"issued_at": 5},
        {"writes": [{"point": "campus/b1/ahu1/CoolingSetpoint", "value": 22}]},
        {"reason": "x"},
        {"priority": 9},
        {"hold_ms": 9},
        {"dry_run": True},
        {"correlation_id": "x"},
        {"not_before": 5},
        {"tolerance": 0.5},
    ],
)
def test_every_field_is_part_of_the_content(given, change):
    assert digest(given.command(**change)) != digest(given.command())


def test_true_1_and_1_0_are_three_contents(given):
    digests = {
        digest(given.command(writes=[{"point": "a/b", "value": value}])) for value in (True, 1, 1.0, "1")
    }
    assert len(digests) == 4


def test_a_signature_depends_on_key_and_content_and_is_not_part_of_the_digest(given):
    plain = given.command()
    signed = given.command(signature=sign(plain, b"key"))
    assert is_signed_by(signed, b"key")
    assert is_signed_by(given.command(signature=sign(plain, b"key").upper()), b"key")
    assert not is_signed_by(signed, b"other key")
    assert not is_signed_by(plain, b"key")
    assert not is_signed_by(given.command(signature=sign(plain, b"key"), reason="changed"), b"key")
    assert not is_signed_by(given.command(signature=sign(plain, b"")), b"")
    assert not is_signed_by(given.command(signature="é"), b"key")
    assert digest(signed) == digest(plain)


def test_the_content_that_is_signed_is_canonical_json(given):
    assert signing_content(given.command(reason="é")) == (
        b'tieline.command.1\n{"action":"SET","command_id":"c1","correlation_id":null,"dry_run":false,'
        b'"expires_at":1800000060000000,"hold_ms":null,"issued_at":1800000000000000,"issuer":"energy-manager",'
        b'"not_before":null,"priority":null,"reason":"\\u00e9","tolerance":null,'
        b'"writes":[{"point":"campus/b1/ahu1/CoolingSetpoint","value":21.5}]}'
    )


def old(value, **changes):
    defaults = Defaults(ttl=1, tolerance=0.5)
    settings = {"command_id": "uuid-0-17", "issuer": "cloud", "at": 1000, "max_age": 50, "defaults": defaults}
    return from_old(value, **{**settings, **changes})


def test_the_old_form_is_a_command_of_the_record_it_came_in():
    command = old({"message": "warmer", "new_value": "75.5", "device_point": "devices/campus/b1/ahu1/Set"})
    assert command == Command(
        "uuid-0-17",
        "cloud",
        1000,
        1050,
        "SET",
        (Write("campus/b1/ahu1/Set", 75.5),),
        reason="warmer",
        tolerance=0.5,
        filled=("expires_at", "issuer", "tolerance"),
    )


def test_an_old_command_stays_the_same_when_the_configured_issuer_changes():
    value = {"message": "", "new_value": 1, "device_point": "a/b"}
    assert digest(old(value)) == digest(old(value, issuer="other", max_age=7))
    assert digest(old(value)) != digest(old({**value, "new_value": 2}))


@pytest.mark.parametrize(
    ("sent", "read"),
    [("75", 75), ("-3", -3), (" 2.50 ", 2.5), ("1e3", 1000.0), ("on", "on"), ("0x10", "0x10"), ("NaN", "NaN"),
     ("1_000", "1_000"), ("٣", "٣"), ("", ""), (True, True), (7.5, 7.5), ("007", "007")],
)  # fmt: skip
def test_a_text_that_reads_as_a_number_is_one_in_the_old_form(sent, read):
    parsed = old({"new_value": sent, "device_point": "a/b"}).writes[0].value
    assert (parsed, type(parsed)) == (read, type(read))


@pytest.mark.parametrize(
    ("value", "reported"),
    [
        ({"device_point": "a/b"}, "needs both"),
        ({"new_value": 1}, "needs both"),
        ({"new_value": 1, "device_point": "a/b", "eval": "x"}, "'eval' is not a field of the old form"),
        ({"new_value": 1, "device_point": 5}, "the point of write 1 must be a printable text"),
        ({"new_value": {}, "device_point": "a/b"}, "a boolean, a number"),
        ({"new_value": 1, "device_point": "a/b", "message": 5}, "reason must be a printable text"),
    ],
)
def test_a_value_not_in_the_old_form_is_rejected_under_its_records_id(value, reported):
    with pytest.raises(MalformedCommandError) as caught:
        old(value)
    assert reported in str(caught.value)
    assert (caught.value.command_id, caught.value.issuer) == ("uuid-0-17", "cloud")


def test_the_old_form_is_known_by_its_point(given):
    assert is_old({"device_point": "a/b"})
    assert not is_old(given.value())
    assert not is_old({"device_point": "a/b", "command_id": "x"})
    assert not is_old("device_point")


@pytest.mark.parametrize("text", ["2١", "२", "1.٥", "1e٣"])
def test_a_text_with_digits_of_another_script_stays_a_text(text):
    assert number_of(text) == text
