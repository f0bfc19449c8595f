"""A real VOLTTRON platform on this machine, 2.x or 10.x, with a driver of simulated devices."""

from tieline_lab.volttron.installation import install, why_not
from tieline_lab.volttron.platform import VolttronPlatform

__all__ = ["VolttronPlatform", "install", "why_not"]
