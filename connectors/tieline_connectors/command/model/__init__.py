"""What a command, a point, a result and the ledger's entries are; pure."""
