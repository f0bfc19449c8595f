"""Dead letters: records that can never be handled, kept with the cause. Pure; below runtime and programs.

``letter_record`` writes a ``DeadLetter`` as a ``ProducerRecord``. ``read_letter`` reads it back, and also the
letters of Kafka Connect, Kafka Streams and Spring.
"""
