"""Time of `import truemorph` and of two helps: medians of processes, one after the other.

    python benchmarks/startup_speed.py [processes]

The bare interpreter is timed in turn, to show whether the machine is busy.
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

COMMANDS = {
    "python -c pass": [sys.executable, "-c", "pass"],
    "import truemorph": [sys.executable, "-c", "import truemorph"],
    "truemorph --help": [str(Path(sys.executable).with_name("truemorph")), "--help"],
    "truemorph label --help": [str(Path(sys.executable).with_name("truemorph")), "label", "--help"],
}


def main(processes: int) -> None:
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(processes):
        for name, command in COMMANDS.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, capture_output=True)
            seconds[name].append(time.perf_counter() - began)
    print("| | median, s | slowest, s |\n|---|---|---|")
    for name, taken in seconds.items():
        print(f"| `{name}` | {statistics.median(taken):.2f} | {max(taken):.2f} |")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 15)
