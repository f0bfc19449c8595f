"""To which topic a command goes when that is not there yet; on a real local log."""

import json
from contextlib import closing

import pytest

from tieline.cli.command_context import WorkerCommandContext
from tieline.config.plan import check_plan
from tieline.runtime.worker.factory import open_broker
from tieline_connectors.command.cli.client import CommandClient, DraftDefaults, prepare
from tieline_connectors.command.cli.display import Screen
from tieline_connectors.command.cli.parsing import CommandDraft

NOW = 1_800_000_000_000_000
RESULTS = "command-results"


class Log:
    """The topics of a local log, with some that are there already."""

    def __init__(self, folder, names):
        worker = {"data.dir": str(folder / "data")}
        self.worker = folder / "worker.json"
        self.worker.write_text(json.dumps(worker))
        with closing(open_broker(check_plan("test", worker, []))) as broker:
            for name in names:
                broker.create_topic(name)

    def names(self):
        with WorkerCommandContext().topics(self.worker) as topics:
            return {name for name in topics.names() if not name.startswith("_")}

    def send(self, topic, *, typed, create=False):
        out = prepare(
            CommandDraft({"writes": [{"point": "a/b", "value": 5}]}),
            topic,
            None,
            DraftDefaults({}, "me", NOW, NOW + 1),
        )
        with WorkerCommandContext().topics(self.worker) as topics:
            return CommandClient(topics, RESULTS, create, Screen(), None if typed else topic).deliver(
                [out], 0
            )


@pytest.fixture
def log(tmp_path):
    return lambda *names: Log(tmp_path, names)


@pytest.mark.parametrize("there", [(), (RESULTS,), (RESULTS, "readings", "c-commands-changelog")])
def test_the_first_command_on_a_fresh_broker_is_sent(log, capsys, there):
    broker = log(*there)
    assert broker.send("commands", typed=False) == 0
    assert broker.names() == {*there, "commands"}
    assert "the topic commands does not exist; creating it" in capsys.readouterr().err


@pytest.mark.parametrize("other", ["plant.commands", "commands-lab", "command", "site1-command-in"])
def test_the_first_command_is_not_sent_where_another_topic_may_have_been_meant(log, other):
    broker = log(RESULTS, other)
    with pytest.raises(
        ValueError, match=rf"did you mean {other}\? Then use --topic {other}; or create it with --create"
    ):
        broker.send("commands", typed=False)
    assert broker.names() == {RESULTS, other}


def test_a_topic_that_was_typed_is_made_with_create_only_and_the_refusal_says_so(log):
    broker = log("readings")
    with pytest.raises(ValueError, match="the topic mine does not exist; create it with --create"):
        broker.send("mine", typed=True)
    assert broker.send("mine", typed=True, create=True) == 0
    assert broker.names() == {"readings", "mine"}
