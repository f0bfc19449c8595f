"""(p) The cost of dead letters that do not occur: a sink with a dead letter queue and the same without."""

from __future__ import annotations

from functools import partial

from bench.figure import median, print_figure, ratio, run_in_turns, say
from bench.kafka_to_mongo import COUNT, run_workers
from bench.stand import Stand, create_name
from bench.topics import create_avro_topic

_ROUNDS = 5


def run(stand: Stand) -> None:
    """Compare them on the null server, with good records only."""
    say(f"(p) {COUNT} good readings, with a dead letter queue and without")
    topic = create_avro_topic(stand, COUNT)
    queue = {"errors.tolerance": "all", "errors.deadletterqueue.topic.name": create_name("dead")}

    def measure(settings: dict[str, str]) -> dict[str, float]:
        with stand.run_mongo("null") as uri:
            return run_workers(stand, topic, COUNT, uri, {"create.indexes": "false", **settings})

    results = run_in_turns({"without": partial(measure, {}), "with": partial(measure, queue)}, _ROUNDS)
    both = {"records": COUNT, "runs": _ROUNDS, **results}
    print_figure(
        "dead_letters.rate", ratio(results["with"], results["without"], "rate"), "ratio", ">= 0.98", **both
    )
    cpu = median(results["with"], "cpu_us")
    print_figure("dead_letters.cpu", cpu, "µs/record", without=median(results["without"], "cpu_us"))
