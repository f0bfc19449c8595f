"""Messages of the bus: their times, topics and values, and their conversion to and from records; pure."""
