"""tieline joins a VOLTTRON platform, Apache Kafka and MongoDB, and loses nothing on the way.

Connector authors import :mod:`tieline.api`; everything else is the runtime's.
"""

__version__ = "0.1.0"
