"""A tieline worker as an agent of a VOLTTRON platform.

``agent`` alone knows VOLTTRON. The rest needs Python's own library only, and is told by its caller how to
wait: with threads, or with gevent's greenlets.
"""
