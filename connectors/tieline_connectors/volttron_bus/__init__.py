"""VOLTTRON message bus: source and sink, and a client of its protocol (VIP) on plain pyzmq.

A message that is read passes ``connection`` → ``receiver`` (a thread that only reads) → ``buffer`` →
``message`` (frames to a message) → ``readings`` (message to a value of a schema) → ``records`` → ``source``.
A record that is published passes ``sink`` → ``publishing`` (rules, record to message) → ``publisher`` →
``connection``.
"""
