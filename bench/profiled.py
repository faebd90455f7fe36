"""A service under cProfile from SIGUSR1 on: its start is not in the way. `python -m bench.profiled MODULE FILE`"""

import cProfile
import runpy
import signal
import sys
import time

if __name__ == "__main__":
    module, file = sys.argv[1:]
    # CPU time, not time that passed: others on the machine are not in the profile either.
    profile = cProfile.Profile(time.thread_time)
    # Runs in the main thread, which is the one of the event loop: what threads do is not in the profile.
    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    sys.argv = [module]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        profile.disable()
        profile.dump_stats(file)
