"""Install the course from this archive, without a network: unpack it, then `python install.py` (or python3) in it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
COURSE = HERE / "course"
WHERE = "from utils.models.packaged import cache_folder; print(cache_folder())"


def main():
    packed = json.loads((HERE / "pack.json").read_text(encoding="utf-8"))
    here = ".".join(map(str, sys.version_info[:2]))
    if here != packed["python"]:
        print(f"This archive is for Python {packed['python']} on {packed['system']}, and this is Python {here}.")
        return 1
    # As a URL: pip takes several places in this variable, with spaces between them.
    wheels = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": (HERE / "wheels").as_uri(), "PIP_CONFIG_FILE": os.devnull}
    if subprocess.call([sys.executable, str(COURSE / "bootstrap.py")], env={**os.environ, **wheels}):
        return 1
    python = COURSE / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    found = subprocess.run([str(python), "-c", WHERE], cwd=COURSE, stdout=subprocess.PIPE, text=True, check=True)
    for model in sorted((HERE / "models").glob("*")):
        place = Path(found.stdout.strip()) / model.name
        if not place.exists():
            print(f"copying {model.name} to {place}")
            shutil.copytree(model, place)
    print(f"The course is in {COURSE}. There, `{python.parent / 'mi'} doctor` says whether all is well.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
