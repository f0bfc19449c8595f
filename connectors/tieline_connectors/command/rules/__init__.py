"""What happens to a command, and why; pure."""
