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
NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


def numbers(text):
    return [float(one.replace(",", "")) for one in NUMBER.findall(text)]


def follow(dist):
    """Compare what the example prints with what the README says; return the wheel's name."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    code = re.search(r"<!-- run: first -->\n```python\n(.*?)```", readme, re.DOTALL)[1]
    printed = re.search(r"<!-- printed: first -->\n```\n(.*?)```", readme, re.DOTALL)[1]
    (wheel,) = dist.resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*install, "--constraint", ROOT / "constraints.txt", wheel], check=True)
        run = {"cwd": folder, "check": True, "capture_output": True, "text": True}
        out = subprocess.run([python, "-I", "-c", code], **run).stdout
        shown, promised = numbers(out), numbers(printed)
        if len(shown) != len(promised) or any(abs(a - b) > 0.002 for a, b in zip(shown, promised, strict=True)):
            sys.exit(f"{wheel.name}: the README's first example prints\n{out}\nand not\n{printed}")
        subprocess.run([folder / "env" / "bin" / "truemorph", "--help"], **run)
    return wheel.name


if __name__ == "__main__":
    print(f"{follow(Path(sys.argv[1]))}: installed in an empty environment; the README's first example is as printed")
