"""VOLTTRON message bus: the source."""
