"""What a registry knows and decides; pure."""
