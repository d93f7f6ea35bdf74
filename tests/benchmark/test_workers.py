"""Worker processes end with the process that started them."""

import signal
import subprocess
import sys

PROGRAM = """
import time
from truemorph.workers import worker_pool

def work():
    time.sleep(120)
    print("to its end", flush=True)

if __name__ == "__main__":
    with worker_pool(1) as pool:
        pool.submit(print, "at work", flush=True).result()
        pool.submit(work).result()
"""


def test_a_killed_run_leaves_no_workers(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(PROGRAM)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout.readline() == "at work\n"
        run.send_signal(signal.SIGKILL)
        # The worker writes to the same pipe, which closes when the worker ends.
        assert run.stdout.read() == ""
