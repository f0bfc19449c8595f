"""When a topic counts as the one that it was, without brokers."""

from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException

from tieline.broker.kafka.topic_ids import TopicIds


def test_brokers_that_refuse_to_describe_a_topic_are_asked_at_intervals():
    refusal: Future[None] = Future()
    refusal.set_exception(KafkaException(KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)))
    requests = []

    def ask(topics):
        requests.append(topics)
        return dict.fromkeys(topics, refusal)

    ids = TopicIds(ask)
    assert not any(ids.confirm({"t"}, 0.4, 1.0) for _ in range(50))
    assert len(requests) < 5
    assert ids.error is not None
