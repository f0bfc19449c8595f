"""Pages about commands: set a point, holds, the kill switch, the history, the audit log."""
