"""Runs a program time and again, each in a process of its own, by fork: to import what it needs takes longest."""

import importlib.util
import os
import sys
import traceback
from pathlib import Path

import pq

path = Path(sys.argv[1])
spec = importlib.util.spec_from_file_location(path.stem, path)
module = importlib.util.module_from_spec(spec)
sys.modules[path.stem] = module
spec.loader.exec_module(module)

pq.Queue.timeout = 0  # the tests have no time to wait for more
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            module.main(*line.split())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
