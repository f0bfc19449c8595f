from tieline.api import ID_HEADER
from tieline_connectors.command.model.command import Result, WriteResult
from tieline_connectors.command.model.result_records import to_records

POINTS = ("campus/b1/ahu1/Cooling", "campus/b1/ahu1/Heating")


def ids(result):
    reported = to_records(result, "results", "command-to-cloud")
    return [(record.topic, dict(record.headers)[ID_HEADER]) for record in reported]


def test_a_result_has_the_same_ids_in_both_forms_and_each_point_has_its_own():
    writes = tuple(WriteResult(point, 22.5, actual=22.5) for point in POINTS)
    result = Result("c1", "SUCCEEDED", 1_764_000_000_000_000, writes=writes)
    reported = ids(result)
    assert [topic for topic, _ in reported] == ["results", "command-to-cloud", "command-to-cloud"]
    assert len({record_id for _, record_id in reported}) == 3
    assert ids(Result.from_json(result.to_json())) == reported
    assert not {record_id for _, record_id in ids(result._replace(at=result.at + 1))} & {
        i for _, i in reported
    }
