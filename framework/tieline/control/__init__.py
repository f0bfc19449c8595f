"""What operators change from outside while a worker runs or is stopped."""
