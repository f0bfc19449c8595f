"""Failed logins are counted by client address, are forgotten with time, and need bounded memory."""

from __future__ import annotations

from tieline.http.failed_logins import FailedLogins


def fail(failed, address, times, now=0.0):
    for _ in range(times):
        failed.add(address, now)


def test_ten_failures_are_allowed_and_then_one_in_six_seconds():
    failed = FailedLogins()
    fail(failed, "a", 9)
    assert failed.seconds_until_allowed("a", 0.0) == 0.0
    fail(failed, "a", 1)
    assert failed.seconds_until_allowed("a", 0.0) == 6.0
    assert failed.seconds_until_allowed("a", 4.0) == 2.0
    assert failed.seconds_until_allowed("a", 6.0) == 0.0
    fail(failed, "a", 1, now=6.0)
    assert failed.seconds_until_allowed("a", 6.0) == 6.0


def test_all_failures_are_forgotten_after_a_minute():
    failed = FailedLogins()
    fail(failed, "a", 10)
    fail(failed, "a", 9, now=60.0)
    assert failed.seconds_until_allowed("a", 60.0) == 0.0


def test_addresses_are_counted_apart_and_an_ipv6_network_is_one():
    failed = FailedLogins()
    fail(failed, "10.0.0.1", 10)
    fail(failed, "2001:db8::1", 5)
    fail(failed, "2001:db8::ffff", 5)
    fail(failed, "::ffff:10.0.0.9", 10)
    waits = {
        address: failed.seconds_until_allowed(address, 0.0)
        for address in ("10.0.0.1", "10.0.0.2", "2001:db8::2", "2001:db8:0:1::1", "::ffff:10.0.0.8", "")
    }
    assert [address for address, wait in waits.items() if wait] == ["10.0.0.1", "2001:db8::2"]


def test_the_addresses_that_failed_longest_ago_are_forgotten_first():
    failed = FailedLogins(max_addresses=2)
    fail(failed, "a", 10)
    fail(failed, "b", 10)
    fail(failed, "a", 1)
    fail(failed, "c", 10)
    assert [failed.seconds_until_allowed(address, 0.0) > 0 for address in "abc"] == [True, False, True]
