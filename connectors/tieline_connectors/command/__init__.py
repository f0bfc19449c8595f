"""The command sink: executes commands at most once, before their expiry, and only if a policy allows them."""
