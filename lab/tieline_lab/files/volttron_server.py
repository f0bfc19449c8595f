"""Run VOLTTRON's server in a throwaway lab, as root too: it refuses uid 0, so tell it another one."""

import os
import runpy

os.getuid = lambda: 1000
runpy.run_module("volttron.server", run_name="__main__", alter_sys=True)
