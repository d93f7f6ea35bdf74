"""Make the numbers of the documentation: run benchmarks, and keep what they print in docs/numbers/.

    python benchmarks/all_numbers.py [TABLE ...] [--list] [--since COMMIT]

Each table is a Markdown file that pages include. Its last line says when, from which commit, on which machine and by
which command it was measured. A table is made again if the package or its benchmark has changed since that commit, or
if its command is another one. If interrupted, run the same command again to resume. With --since, a table is also kept
if it was measured at COMMIT or later, so that changes that cannot alter numbers do not begin the night again. A table
that fails, or that needs something which is not there, is reported, and the others go on. Timings need an idle machine.
"""

import argparse
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import truemorph

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "numbers"
DATA = "../shared/data"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
INSTRUCTIONS = ("avx2", "avx512_vnni", "avx512_bf16", "amx_bf16")  # that matter for the speed of networks


@dataclass(frozen=True)
class Entry:
    """A command of a benchmark, relative to benchmarks/, and the tables that it prints.

    Of several tables, each begins with a line `## NAME`. `needs`: files on which the numbers depend, relative to the
    root. Environment variables in the command ($NAME) and `packages` are needed, too. A timing uses all cores, as users
    do.
    """

    tables: str
    minutes: float  # on two cores
    command: str
    needs: tuple[str, ...] = ()
    timing: bool = False
    packages: tuple[str, ...] = ()

    @property
    def names(self):
        return self.tables.split()

    @property
    def files(self):
        return [KEPT / f"{name}.md" for name in self.names]

    def sources(self):
        """Files and folders of the repository on which the numbers depend."""
        files = [need for need in self.needs if not need.startswith("..") and git("ls-files", need)]
        return ["src", f"benchmarks/{self.command.split()[0]}", *files]

    def obstacles(self):
        """What is needed and not there."""
        absent = [need for need in self.needs if not (ROOT / need).exists()]
        absent += [package for package in self.packages if find_spec(package) is None]
        return absent + [one for one in re.findall(r"\$\w+", self.command) if one[1:] not in os.environ]

    def is_current(self, since):
        return all(file.is_file() and self._holds(file.read_text(encoding="utf-8"), since) for file in self.files)

    def _holds(self, text, since):
        stamp = re.search(r", commit (\w+), .*`python benchmarks/(.+)`\*$", text.rstrip())
        if stamp is None or stamp[2] != self.command:
            return False
        later = since is not None and succeeds("merge-base", "--is-ancestor", since, stamp[1])
        return later or succeeds("diff", "--quiet", stamp[1], "--", *self.sources())


PLAIN = "benchmarks/plain_regression.py"


def bars(table, minutes, draws=100):
    return Entry(table, minutes, f"error_bars.py {table} --draws {draws}", (PLAIN,))


TREES = (DATA, "tests/real/test_tree_transition.py")
SPEED = "labelling_speed.py --files 32 512 4096 --zoobot $ZOOBOT_PYTHON"  # of an environment with Zoobot 2.9
ENTRIES = (
    bars("curves", 4),
    bars("fractions", 2),
    bars("worlds", 15),
    bars("rejected", 2),
    bars("labels_alone", 3),
    bars("intrinsic_columns", 3, draws=30),
    bars("questions", 15, draws=200),
    *(
        Entry(table, minutes, f"unfriendly_worlds.py {table} --draws {draws}", ("benchmarks/error_bars.py",))
        for table, minutes, draws in (
            ("gold_fields", 20, 100),
            ("gold_levels", 3, 100),
            ("rare_class", 5, 100),
            ("alpha_errors", 10, 100),
            ("families_rejected", 12, 40),
            ("population_errors", 1, 100),
            ("temperature", 1, 100),
            ("reestimated", 8, 50),
        )
    ),
    Entry("plan_errors plan_in_hand", 10, "plan_errors.py 100"),
    Entry("predictions_fractions predictions_galaxies", 15, "predictions.py 100", (PLAIN,)),
    bars("depth", 2),
    bars("depth_ignored", 3),
    Entry("gold_planned gold_saved", 9, "gold_planning.py experts ../shared/data 100", (DATA,)),
    Entry("gold_worlds gold_theta gold_weights", 7, "gold_planning.py coverage 100"),
    Entry("question_fractions", 15, "question_fractions.py 200", (DATA, PLAIN)),
    Entry("small_catalogues", 8, "question_fractions.py small 60", (DATA,)),
    Entry("tree_coverage", 1, "tree_transition.py coverage 5", ("tests/bias/test_tree.py",)),
    Entry("tree_networks", 1, "tree_transition.py networks 5", ("tests/bias/test_tree.py",)),
    Entry("tree_real", 1, "tree_transition.py real 5", TREES),
    Entry("depth_real", 5, "depth.py 10", TREES),
    Entry(
        "other_labels other_labels_with_gold", 1, "other_labels.py 200", (DATA, "benchmarks/question_fractions.py")
    ),
    Entry(
        "other_ppi other_crowds other_quapy",
        6,
        "other_software.py 100",
        ("benchmarks/error_bars.py", "benchmarks/unfriendly_worlds.py"),
        packages=("ppi_py", "crowdkit", "quapy", "abstention"),
    ),
    Entry("zoobot_accuracy", 60, "beside_zoobot.py ../shared/data $ZOOBOT_PYTHON", (DATA,)),
    Entry("elsewhere elsewhere_found", 3, "another_survey.py", (DATA,)),
    Entry("real_gz1", 3, "real_galaxies.py gz1", (DATA,)),
    Entry("real_gz2", 10, "real_galaxies.py gz2", (DATA,)),
    Entry("real_covariates", 25, "real_galaxies.py covariates", (DATA, PLAIN)),
    Entry("real_ferengi", 0.1, "real_galaxies.py ferengi", (DATA,)),
    Entry("bars_surveys", 5, "known_bars.py trees"),
    Entry("bars_efigi", 30, "known_bars.py efigi", (DATA,)),
    Entry("bars_gz2", 10, "known_bars.py real", (DATA,)),
    Entry("twins twins_octiles", 10, "twins.py"),
    Entry("labelling_precision", 20, "labelling_precision.py ../shared/data", (DATA,)),
    Entry("simulated_images", 1, "simulator.py compare", (DATA,)),
    Entry("reproduced_votes", 1, "reproduction.py votes ../shared/data", (DATA,)),
    Entry("reproduced_table reproduced_statements", 36, "reproduction.py archive", ("tests/archives/simulated.py",)),
    Entry("reproduced_full reproduced_choices", 20, "reproduction.py full", ("tests/archives/simulated.py",)),
    Entry("training_presets", 20, "what_training_reaches.py presets ../shared/data", (DATA,)),
    Entry("training_paper", 50, "what_training_reaches.py paper"),
    Entry("training_precision", 10, "what_training_reaches.py precision ../shared/data", (DATA,)),
    Entry("training_challenge", 10, "what_training_reaches.py challenge ../shared/data", (DATA,)),
    Entry(
        "gold_in_training_worlds", 80,
        "gold_in_training.py worlds 2 ../shared/data plain confounded heavy-tailed real real_bars", (DATA,),
    ),
    Entry("gold_in_training", 30, "gold_in_training.py worlds 3 ../shared/data image_annotator", (DATA,)),
    Entry(
        "gold_in_training_selected gold_in_training_told", 20, "gold_in_training.py selected 1 ../shared/data", (DATA,)
    ),
    Entry("training_curve", 30, "what_training_reaches.py curve"),
    Entry("leaderboard_catalogues", 1, "leaderboard.py catalogues ../shared/data", (DATA,)),
    Entry("leaderboard_bar", 20, "leaderboard.py bar ../shared/data", (DATA,)),
    Entry("cleanlab_dropped", 3, "dropped_by_cleanlab.py"),
    Entry("leaderboard_networks", 200, "leaderboard.py networks ../shared/data", (DATA,)),
    Entry("statistics_speed", 1, "statistics_speed.py", timing=True),
    Entry("startup_speed", 1, "startup_speed.py", timing=True),
    Entry("preparing_speed", 3, "preparing_speed.py", timing=True),
    Entry("simulator_speed", 1, "simulator.py speed", timing=True),
    Entry("gradcam_speed", 5, "gradcam_speed.py 3 128", timing=True),
    Entry("labelling_memory", 20, "labelling_memory.py", timing=True),
    Entry("training_speed", 30, "training_speed.py --zoobot $ZOOBOT_PYTHON", timing=True),
    Entry("report_speed", 1, "report_speed.py demo/report.html", ("demo/report.html",), timing=True),
    Entry("tile_cutouts", 10, "tile_cutouts.py", timing=True, packages=("cutana",)),
    Entry("labelling_speed", 60, SPEED, ("benchmarks/training_speed.py",), timing=True),
)  # fmt: skip


def git(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def succeeds(*words):
    return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=False).returncode == 0


def machine():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = dict(line.replace("\t", "").split(": ", 1) for line in reversed(lines) if ": " in line)
    able = [
        instruction.upper().replace("_", "-") for instruction in INSTRUCTIONS if instruction in found["flags"].split()
    ]
    cores = len(os.sched_getaffinity(0))
    return f"{cores} core{'s' * (cores > 1)} of {found['model name']} ({', '.join(able)})"


def wait_for_idle():
    """Wait until fewer than half a process ran in the last minute, at most four minutes."""
    began = time.perf_counter()
    while os.getloadavg()[0] > 0.5 and time.perf_counter() - began < 240:
        time.sleep(5)


def measure(entry):
    """Run an entry and keep its tables; return whether that succeeded."""
    if entry.timing:
        wait_for_idle()
    where, load, began = git("rev-parse", "--short", "HEAD"), os.getloadavg()[0], time.perf_counter()
    if git("status", "--porcelain", "--", *entry.sources()):
        where += " with changes"
    program, *words = os.path.expandvars(entry.command).split()
    # Timings are those of all cores, whatever is set here.
    environment = {name: value for name, value in os.environ.items() if name not in ONE_THREAD}
    environment |= {} if entry.timing else ONE_THREAD
    command = [sys.executable, f"benchmarks/{program}", *words]
    done = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    first, *more = re.split(r"^## (\w+)\n", done.stdout, flags=re.MULTILINE)
    printed = dict(zip(more[::2], more[1::2], strict=True)) if more else {entry.names[0]: first}
    if done.returncode or sorted(printed) != sorted(entry.names):
        return False
    busy = f", load {load:.1f} before" if entry.timing else ""
    version = truemorph.__version__.split("+")[0]
    stamp = (
        f"*{datetime.now(UTC):%Y-%m-%d}, truemorph {version}, commit {where}, {machine()}{busy}, "
        f"{time.perf_counter() - began:.0f} s: `python benchmarks/{entry.command}`*"
    )
    KEPT.mkdir(exist_ok=True)
    for file in entry.files:
        file.write_text(f"{printed[file.stem].strip()}\n\n{stamp}\n", encoding="utf-8")
    return True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [name for entry in ENTRIES for name in entry.names]
    parser.add_argument("tables", nargs="*", choices=[*every, []], metavar="TABLE", help="only these, also if current")
    parser.add_argument("--list", action="store_true", help="say which are to be made, and make none")
    parser.add_argument("--since", metavar="COMMIT", help="keep what was measured at this commit or later")
    given = parser.parse_args()
    failed, minutes = 0, 0.0
    for entry in sorted(ENTRIES, key=lambda one: one.minutes):
        if given.tables and not set(entry.names) & set(given.tables):
            continue
        if not given.tables and entry.is_current(given.since):
            state = "current"
        elif absent := entry.obstacles():
            state = f"left out, needs {', '.join(absent)}"
        elif given.list:
            state, minutes = f"to be made, about {entry.minutes:g} min", minutes + entry.minutes
        else:
            state = "made" if measure(entry) else "FAILED"
            failed += state == "FAILED"
        print(f"{entry.tables}: {state}", flush=True)
    if given.list:
        print(f"about {minutes / 60:.1f} hours on two idle cores")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
