"""VIP, the protocol of VOLTTRON's message bus, on plain pyzmq."""
