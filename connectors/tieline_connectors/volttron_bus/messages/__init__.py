"""Messages of the bus: their times, topics and values, and the records they become; pure."""
