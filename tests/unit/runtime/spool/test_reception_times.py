"""When the records of a spool were received, roughly."""

from tieline.runtime.spool.reception_times import ReceptionTimes


def test_a_record_was_received_with_the_last_noted_batch_before_it():
    times = ReceptionTimes()
    assert times.of(0) is None
    for position, now in ((10, 5_000), (20, 5_500), (30, 6_500)):  # the second is too soon to be noted
        times.note(position, now)
    assert [times.of(position) for position in (9, 10, 25, 30, 99)] == [None, 5_000, 5_000, 6_500, 6_500]
    times.drop_before(35)
    assert [times.of(position) for position in (10, 30)] == [None, 6_500]


def test_the_memory_is_bounded_however_much_waits():
    times = ReceptionTimes()
    for number in range(100_000):
        times.note(number, number * 60_000)
    assert len({times.of(position) for position in range(100_000)}) <= 10_000
    assert times.of(0) == 0
    assert 0 <= 99_999 * 60_000 - (times.of(99_999) or 0) < 100 * 60_000
