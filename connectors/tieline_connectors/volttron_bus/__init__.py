"""VOLTTRON message bus: source and sink, and a client of its protocol (VIP) on plain pyzmq.

A message's way: ``connection`` → ``receiver`` (a thread that only reads) → ``buffer`` → ``message``
(frames to a message) → ``reading`` (message to a value of a schema, and back) → ``records`` → ``source``.
The way back: ``bus_sink`` → ``publishing`` (what may be published, as what) → ``publisher`` → ``connection``.
"""
