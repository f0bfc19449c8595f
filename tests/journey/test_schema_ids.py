"""A schema that was just registered has its id at once, on either home."""

import json
from functools import partial

from tieline.api import Schema
from tieline.registry.schema_topic import TopicSchemaStore
from tieline.runtime.errors.failure_table import Stage
from tieline.runtime.task.environment import TaskEnvironment


def test_two_stores_that_register_in_turn_see_each_others_ids_and_never_assign_one_twice(backend):
    broker = backend.open()
    try:
        stores = [TopicSchemaStore(broker), TopicSchemaStore(broker)]
        ids = {}
        for number in range(12):
            text = json.dumps({"type": "record", "name": f"t{backend.suffix}.R{number}", "fields": []})
            schema = Schema.parse(text)
            register = partial(stores[number % 2].register, schema.name, schema)
            ids[schema] = TaskEnvironment("c", 0).retry(Stage.VALUE_CONVERTER, register)
        assert len(set(ids.values())) == 12
        third = TopicSchemaStore(broker)
        assert {schema: third.register(schema.name, schema) for schema in ids} == ids
    finally:
        broker.close()
