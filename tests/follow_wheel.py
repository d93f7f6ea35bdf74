"""Install a wheel in an empty environment and run the README's first example from it: `make wheel`.

python tests/follow_wheel.py DIST
"""

import re
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CODE, PRINTED = re.findall(r"<!-- (?:run|printed): first -->\n```(?:python)?\n(.*?)```", README, re.DOTALL)


def numbers(text):
    return [float(one.replace(",", "")) for one in re.findall(r"-?\d[\d,]*\.?\d*", text)]


def follow(dist):
    """Compare what the example prints with what the README says; return the wheel's name."""
    (wheel,) = dist.resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env")
        python = folder / "env" / "bin" / "python"
        install = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", python]
        subprocess.run([*install, "--constraint", ROOT / "constraints.txt", wheel], check=True)
        run = {"cwd": folder, "check": True, "capture_output": True, "text": True}
        out = subprocess.run([python, "-I", "-c", CODE], **run).stdout
        shown, promised = numbers(out), numbers(PRINTED)
        if len(shown) != len(promised) or any(abs(a - b) > 0.002 for a, b in zip(shown, promised, strict=True)):
            sys.exit(f"{wheel.name}: the README's first example prints\n{out}\nand not\n{PRINTED}")
        version = subprocess.run([folder / "env" / "bin" / "truemorph", "--version"], **run).stdout.strip()
        if wheel.name.split("-")[1] != version:
            sys.exit(f"{wheel.name}: truemorph --version prints {version}")
    return wheel.name


if __name__ == "__main__":
    print(f"{follow(Path(sys.argv[1]))}: installed in an empty environment; the README's first example is as printed")
