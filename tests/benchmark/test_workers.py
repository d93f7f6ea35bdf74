"""Workers do not outlive the process that started them."""

import os
import signal
import subprocess
import sys
import time

PROGRAM = """
import os, sys, time
from truemorph.workers import worker_pool

if __name__ == "__main__":
    with worker_pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 60).result()
"""


def test_a_killed_run_leaves_no_workers(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as run:
        worker = int(run.stdout.readline())
        run.send_signal(signal.SIGKILL)
    for _ in range(200):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        with open(f"/proc/{worker}/stat") as stat:
            if stat.read().split()[2] == "Z":  # ended; nobody waits for it
                return
        time.sleep(0.05)
    raise AssertionError("the worker is still there")
