"""Failures of a batch: each has its own stage and cause, and the first one gets the sentence."""

import pytest

from tieline.api import DataError, FatalError, RetriableError
from tieline.runtime.errors.failed_records import FailedRecord, Failure, collect_failures, describe_failure
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.errors.retry_state import StageError


def rejecting(*bad):
    """An operation that doubles numbers; it raises a DataError for the bad ones of each batch."""

    def operation(batch):
        failures = {i: ValueError(f"bad {n}") for i, n in enumerate(batch) if n in bad}
        if failures:
            raise DataError(failures)
        return [2 * n for n in batch]

    return operation


def test_the_records_that_an_operation_rejects_are_left_out_and_the_others_have_a_result():
    results, failures = collect_failures(Stage.TASK_PUT, "x", rejecting(2, 5), [1, 2, 3, 5])
    assert results == [2, None, 6, None]
    assert {i: (f.stage, str(f.cause)) for i, f in failures.items()} == {
        1: (Stage.TASK_PUT, "bad 2"),
        3: (Stage.TASK_PUT, "bad 5"),
    }


def test_an_operation_that_rejects_one_record_at_a_time_is_applied_until_none_is_rejected():
    calls = []

    def operation(batch):
        calls.append(list(batch))
        for index, number in enumerate(batch):
            if number > 2:
                raise DataError({index: ValueError("too large")})
        return batch

    results, failures = collect_failures(Stage.TRANSFORMATION, "x", operation, [1, 3, 2, 4])
    assert calls == [[1, 3, 2, 4], [1, 2, 4], [1, 2]]
    assert results == [1, None, 2, None]
    assert sorted(failures) == [1, 3]


@pytest.mark.parametrize("named", [{}, {7000: ValueError("no such record")}, {-1: ValueError("nor this")}])
def test_a_data_error_that_names_no_record_of_the_batch_costs_one_record_in_a_thousand(named):
    calls = []

    def operation(batch):
        calls.append(len(batch))
        if 617 in batch:
            raise DataError(named)
        return batch

    results, failures = collect_failures(Stage.TASK_PUT, "x", operation, range(1000))
    assert results == [None if n == 617 else n for n in range(1000)]
    assert failures.keys() == {617}
    assert str(failures[617].cause) == str(next(iter(named.values()), DataError({})))
    assert len(calls) <= 2 * 10 + 1


def test_every_other_error_carries_its_stage():
    def unavailable(batch):
        raise RetriableError("the registry is unavailable")

    with pytest.raises(StageError) as raised:
        collect_failures(Stage.KEY_CONVERTER, "x", unavailable, [1])
    assert raised.value.stage is Stage.KEY_CONVERTER
    assert isinstance(raised.value.error, RetriableError)


def test_with_tolerance_an_error_that_was_not_foreseen_costs_one_record_in_a_thousand():
    def operation(batch):
        return [{700: None}[number] if number >= 700 else number for number in batch]

    results, failures = collect_failures(Stage.TRANSFORMATION, "x", operation, range(703), tolerant=True)
    assert results == [*range(700), None, None, None]
    assert {index: repr(failure.cause) for index, failure in failures.items()} == {
        701: "KeyError(701)",
        702: "KeyError(702)",
    }
    with pytest.raises(StageError) as raised:
        collect_failures(Stage.TRANSFORMATION, "x", operation, range(703))
    assert isinstance(raised.value.error, KeyError)


@pytest.mark.parametrize("error", [RetriableError("later"), FatalError("no")])
def test_with_tolerance_an_outage_or_a_fatal_error_is_none_of_a_record(error):
    def operation(batch):
        raise error

    with pytest.raises(StageError) as raised:
        collect_failures(Stage.VALUE_CONVERTER, "x", operation, [1, 2], tolerant=True)
    assert raised.value.error is error


def test_an_operation_that_returns_another_number_of_results_is_named():
    with pytest.raises(StageError, match="Doubling made 2 values of 1"):
        collect_failures(Stage.VALUE_CONVERTER, "Doubling", lambda batch: [*batch, *batch], [1])


@pytest.mark.parametrize(
    ("stage", "fix"),
    [
        (Stage.KEY_CONVERTER, "Correct the converter's settings"),
        (Stage.VALUE_CONVERTER, "Correct the converter's settings"),
        (Stage.TRANSFORMATION, "Repair or remove the record, or filter it with a transform"),
        (Stage.TASK_PUT, "Repair or remove the record, or filter it with a transform"),
        (Stage.KAFKA_PRODUCE, "Change the topic's settings, or filter the record with a transform"),
    ],
)
def test_the_sentence_names_stage_record_cause_and_the_fix_of_that_stage(stage, fix):
    failures = {4: Failure(Stage.OFFSET_COMMIT, ValueError("later")), 2: Failure(stage, ValueError("why"))}
    sentence = describe_failure(failures, lambda index: FailedRecord(f"r{index}", "all before is safe"))
    assert sentence == (
        f"{stage.value}: the record r2 cannot be handled: why (and 1 more in this batch); "
        f"all before is safe. {fix}"
    )
