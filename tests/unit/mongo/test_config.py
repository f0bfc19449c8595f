import pytest

from tieline.api import ConfigError
from tieline_connectors.mongo.config import Destination, MongoSinkConfig


def parse(**settings):
    return MongoSinkConfig.parse({"database": "d", **settings})


def problems(**settings):
    with pytest.raises(ConfigError) as raised:
        parse(**settings)
    return {problem.key: problem.message for problem in raised.value.problems}


def test_a_topic_goes_to_the_collection_of_its_name_unless_one_is_configured():
    assert parse().destination("a.b") == Destination("d", "a.b", "reading")
    assert parse(collection="c").destination("a.b") == Destination("d", "c", "reading")


def test_overrides_belong_to_one_topic_and_a_topic_may_have_dots_and_be_called_like_a_setting():
    config = parse(
        **{
            "topic.override.a.b.collection": "x",
            "topic.override.a.b.layout": "value",
            "topic.override.layout.database": "other",
        }
    )

    assert config.destination("a.b") == Destination("d", "x", "value")
    assert config.destination("layout") == Destination("other", "layout", "reading")
    assert config.destination("b") == Destination("d", "b", "reading")


def test_all_problems_are_reported_together_with_their_fixes():
    reported = problems(
        **{
            "layout": "readings",
            "topic.override.a.colection": "x",
            "topic.override.a.layout": "nope",
            "topic.override.a.database": "",
            "topic.override.collection": "x",
            "write.concern": "0",
            "publishes": "ALL, multi",
        }
    )

    assert sorted(reported) == [
        "layout",
        "publishes",
        "topic.override..collection",
        "topic.override.a.colection",
        "topic.override.a.database",
        "topic.override.a.layout",
        "write.concern",
    ]
    assert "cloudagent, command-history, point, reading, timeseries, value" in reported["layout"]
    assert "did you mean 'collection'?" in reported["topic.override.a.colection"]


def test_a_misspelt_setting_is_reported_with_the_nearest_one():
    assert "did you mean 'collection'?" in problems(colection="x")["colection"]


def test_the_database_is_required():
    with pytest.raises(ConfigError, match="database: is required"):
        MongoSinkConfig.parse({})


def test_an_unacknowledged_write_concern_is_rejected_also_in_the_uri():
    assert set(problems(**{"connection.uri": "mongodb://127.0.0.1/?w=0"})) == {"connection.uri"}


def options(config):
    with config.client() as client:
        options = client.options
        return (
            client.write_concern.document,
            options.pool_options.socket_timeout,
            options.server_selection_timeout,
            options.retry_writes,
        )


def test_calls_are_bounded_writes_are_safe_and_the_driver_does_not_retry():
    assert options(parse()) == ({"w": "majority", "wtimeout": 3000}, 4.0, 2.0, False)


def test_the_uri_overrides_the_defaults_and_a_setting_overrides_the_uri():
    uri = "mongodb://127.0.0.1/?w=1&sockettimeoutms=9000&serverSelectionTimeoutMS=5000&retrywrites=true"

    assert options(parse(**{"connection.uri": uri})) == ({"w": 1, "wtimeout": 3000}, 9.0, 5.0, True)
    assert options(parse(**{"connection.uri": uri, "write.concern": "2", "socket.timeout.ms": "1000"})) == (
        {"w": 2, "wtimeout": 750},
        1.0,
        5.0,
        True,
    )


def test_the_uri_is_not_printed_with_the_configuration():
    config = parse(**{"connection.uri": "mongodb://operator:s3crt@127.0.0.1/"})

    assert "s3crt" not in repr(config)
    assert "s3crt" not in str(config.definition())
