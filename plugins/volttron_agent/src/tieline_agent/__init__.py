"""A tieline worker as an agent of a VOLTTRON platform.

Only ``agent`` depends on VOLTTRON. The other modules need only Python's standard library; their caller
decides whether they wait with threads or with gevent's greenlets.
"""
