"""The command of an installed package: `yolo-mish train --cfg yolo-mish.yaml`.

Python puts the folder that it starts first on its module path, so the scripts find their packages as in a clone, and
an installation adds no top-level name but `yolo_mish` to an environment.
"""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent
COMMANDS = {
    "train": "train",
    "val": "val",
    "detect": "detect",
    "compare": "compare",
    "export": "export",
    "check": "data.tools.check",
    "convert": "data.tools.convert",
    "download": "data.tools.download",
    "tile": "data.tools.tile",
    "publish": "weights.publish",
}
ELSEWHERE = {"predict": "detect", "track": "detect --track", "tune": "compare --tune"}  # modes of Ultralytics
USAGE = f"""usage: yolo-mish {{{",".join(COMMANDS)}}} ...

  train     train a detector: yolo-mish train --cfg yolo-mish.yaml --data my.yaml
  val       compute COCO metrics of trained weights
  detect    detect objects in images, videos and streams
  compare   measure what activations, or any other settings, gain and cost
  export    write trained weights for another runtime, and check the file
  check     look for errors in a data set
  convert   convert YOLO, VOC and CVAT labels to COCO
  download  download a public data set
  tile      cut large images into tiles, for small objects
  publish   write trained weights with a model card, to pass on

"yolo-mish COMMAND --help" shows the flags of a command.
"""


def main() -> None:
    """Run the command that the first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print(USAGE, end="")
        return
    if name not in COMMANDS:
        from core.text import did_you_mean

        hint = f", use {ELSEWHERE[name]!r}" if name in ELSEWHERE else did_you_mean(name, COMMANDS)
        print(f"yolo-mish: error: {name!r} is not a command{hint}", file=sys.stderr)
        sys.exit(2)
    from configs.cli import run_script

    sys.argv = [str(ROOT / f"{name}.py"), *sys.argv[2:]]
    run_script(import_module(COMMANDS[name]).main)


def launch() -> None:
    """The entry point of the installed command: start this folder as `python FOLDER` does."""
    words = [sys.executable, str(ROOT), *sys.argv[1:]]
    if os.name == "nt":  # where exec does not wait for the new process
        sys.exit(subprocess.run(words, check=False).returncode)
    os.execv(sys.executable, words)


if __name__ == "__main__":
    launch() if __package__ else main()  # `python -m yolo_mish` starts a package
