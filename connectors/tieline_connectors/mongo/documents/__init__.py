"""From records to documents; pure."""
