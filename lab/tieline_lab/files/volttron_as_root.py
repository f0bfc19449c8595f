"""Run one of VOLTTRON's programs in a throwaway lab, also as root: ``volttron_as_root.py MODULE ARGUMENT…``.

VOLTTRON's server and vctl refuse uid 0, so they get another one.
"""

import os
import runpy
import sys

os.getuid = lambda: 1000
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
