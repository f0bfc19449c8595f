"""What the parts of one task share: environment, context, clock, delivery ledger."""
