"""Where a decided command is executed: the schedule, the write, and what depends on the platform."""
