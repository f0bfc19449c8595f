"""VOLTTRON message bus: the source, and a client of its protocol (VIP) on plain pyzmq.

A message's way: ``connection`` → ``receiver`` (a thread that only reads) → ``buffer`` → ``message``
(frames to a message) → ``reading`` (message to a value of a schema, and back) → ``records`` → ``source``.
"""
