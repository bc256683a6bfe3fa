"""Command lines: flags named as in YOLOv5 and Ultralytics, each of which overrides a key of the configuration.

Imports neither torch nor pydantic, so that ``--help`` is instant.
"""

import argparse
import functools
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import yaml

from configs.flags import TRAIN
from configs.foreign_flags import refuse_foreign_flags
from configs.hyperparameters import read_hyperparameters
from configs.loading import CONFIGS, Tree, flatten, parse_yaml, read_yaml
from core.commands import command
from core.files import is_disk_full
from core.text import one_line

DEBUG = "YOLO_MISH_DEBUG"
RUNS = Path("runs/train")


class HelpFormatter(argparse.HelpFormatter):
    """Adds the default of a flag to its help, unless there is none or the help states it; see `add_config_flags`."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        default = action.default
        if default is argparse.SUPPRESS and action.nargs != 0:
            default = _config_defaults().get(action.dest)
        unset = default is None or default is False or default == [] or default is argparse.SUPPRESS
        if unset or "default: " in text or "%(default)" in text:
            return text
        return f"{text} (default: {','.join(default) if isinstance(default, list) else default})"


@functools.cache
def _config_defaults() -> Tree:
    return flatten(read_yaml(CONFIGS / "yolo.yaml"))


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line with exit code 2, and which reads underscores in flags as dashes."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **arguments)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse, with ``--batch_size`` read as ``--batch-size``."""
        args = [_dashes(argument) for argument in (sys.argv[1:] if args is None else args)]
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse; for settings such as ``epochs=3``, as Ultralytics' command takes them, the error has the flags."""
        options, rest = self.parse_known_args(args, namespace)
        if rest:
            flags = " ".join(self._flag_of(*word.lstrip("-").split("=", 1)) for word in rest if "=" in word).strip()
            self.error(f"unrecognized arguments: {' '.join(rest)}" + f"; write {flags}" * bool(flags))
        return options

    def _flag_of(self, name: str, value: str) -> str:
        """A setting as this parser takes it; empty if it does not."""
        flag = f"--{name}".replace("_", "-")
        if flag in self._option_string_actions:
            return shlex.join([flag, value])
        dotted = "." in name and "--set" in self._option_string_actions
        return shlex.join(["--set", f"{name}={value}"]) if dotted else ""

    def error(self, message: str) -> NoReturn:
        """Print one line on stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {one_line(message)}\n")

    def require_positive(self, options: argparse.Namespace, *names: str) -> None:
        """Make an error of a parsed number that is less than 1."""
        for name in names:
            if (value := getattr(options, name)) < 1:
                self.error(f"--{name}: found {value}, expected 1 or more")


def _dashes(argument: str) -> str:
    name, equals, value = str(argument).partition("=")
    return (name.replace("_", "-") if name.startswith("--") else name) + equals + value


def run_script(main: Callable[[], int | None]) -> NoReturn:
    """Run an entry script and exit with its exit code.

    ValueError and OSError are errors of the user: one line on stderr, exit code 2. FloatingPointError, a diverged
    training, and a full disk have exit code 1. Other exceptions keep their traceback, as do all with
    YOLO_MISH_DEBUG=1 in the environment.
    """
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # read when OpenCV is imported, later
    warnings.filterwarnings("ignore", module=r"PIL\.")  # data/image.py reports damaged images
    try:
        sys.exit(main() or 0)
    except KeyboardInterrupt:
        sys.exit(130)
    except (ValueError, OSError) as error:
        if os.environ.get(DEBUG, "0") != "0":
            raise
        _print_error(error)
        sys.exit(1 if is_disk_full(error) else 2)
    except FloatingPointError as error:
        _print_error(error)
        sys.exit(1)


def _print_error(error: Exception) -> None:
    module = getattr(sys.modules["__main__"], "__spec__", None)  # of python -m
    if module is None:
        program = shlex.quote(Path(sys.argv[0]).name)
    elif module.name == "__main__":  # of a folder, which is the package's command
        program = f"yolo-mish {Path(sys.argv[0]).stem}"
    else:
        program = shlex.join(["python", "-m", module.name.removesuffix(".__main__")])
    print(f"{program}: error: {one_line(error) or type(error).__name__}", file=sys.stderr)


def add_config_flags(parser: argparse.ArgumentParser, *, replaced_help: Mapping[str, str] | None = None) -> None:
    """Add ``--cfg``, ``--set``, ``--hyp``, the flags of TRAIN, and answers to flags of other trainers.

    The defaults in the help are those of configs/yolo.yaml. ``replaced_help`` has other help texts by config key;
    argparse.SUPPRESS hides the flag.
    """
    helps = {flag.names: (replaced_help or {}).get(flag.key, flag.help) for flag in TRAIN}
    add = parser.add_argument_group("configuration", "Defaults are those of configs/yolo.yaml.").add_argument
    add("--cfg", metavar="YAML", help="configuration, by path or by name in configs/")
    add(
        "--set",
        metavar="KEY=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="override any config value, as in train.lr=0.01",
    )
    add("--hyp", metavar="YAML", help="hyperparameters, with this project's keys or those of YOLOv5 or Ultralytics")
    for flag in TRAIN:
        options: Tree = {"dest": flag.key, "default": argparse.SUPPRESS, "help": helps[flag.names]}
        if flag.type is None:
            add(*flag.names, action="store_const", const=flag.const, **options)
        else:
            if flag.const is not None:
                options |= {"nargs": "?", "const": flag.const}
            metavar = flag.metavar or flag.key.rsplit(".", 1)[-1].upper()
            options |= {"choices": flag.choices} if flag.choices else {"metavar": metavar}
            add(*flag.names, type=flag.type, **options)
    refuse_foreign_flags(parser, "train.py")


def add_view_flags(parser: argparse.ArgumentParser, *, rect: bool) -> None:
    """Add the flags of val.py and detect.py that say how the network sees an image; `rect`: the default of --rect."""
    parser.add_argument(
        "--rect",
        action=argparse.BooleanOptionalAction,
        default=rect,
        help="pad images to a multiple of the stride instead of a square",
    )
    parser.add_argument(
        "--tile",
        type=int,
        nargs="?",
        const=0,
        metavar="SIDE",
        help="for small objects in large images: detect in overlapping tiles of this side in pixels (default: that of "
        "the network's input) and in the whole image, and merge the boxes",
    )


def add_weights_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of val.py and detect.py that select a trained detector and its NMS IoU threshold."""
    add = parser.add_argument
    add("--weights", metavar="BEST.PT", help="checkpoint of a training run, or a Darknet .weights")
    add("--cfg", metavar="X.CFG", help="the network of a Darknet .weights")
    add(
        "--names",
        metavar="FILE",
        help="class names for a Darknet .weights, one per line; default: a .names file beside it, or COCO's",
    )
    add(
        "--imgsz",
        "--img",
        "--img-size",
        type=int,
        nargs="+",
        action=_Size,
        metavar="PIXELS",
        help="input size: long side, or height and width; default: as trained",
    )
    add("--iou", "--iou-thres", type=float, help="NMS IoU threshold; default: 0.7, for a Darknet network 0.45")


class _Size(argparse.Action):
    """One or two whole numbers, a single one not as a list."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        if len(values) > 2:
            parser.error(f"{option_string}: found {len(values)} numbers, expected the long side, or height and width")
        setattr(namespace, self.dest, values[0] if len(values) == 1 else values)


def require_weights(parser: argparse.ArgumentParser, weights: str | None) -> str:
    """Return ``weights``, or exit with one line that names the newest trained weights or how to train some."""
    if weights and weights.endswith((".yaml", ".yml")):
        train = command("train.py", "--cfg", weights)
        parser.error(f"--weights {weights}: a YAML file, expected a checkpoint; to train a configuration: {train}")
    if weights:
        return weights
    trained = sorted(RUNS.glob("*/weights/best.pt"), key=lambda path: (path.stat().st_mtime, str(path)))
    if trained:
        parser.error(f"--weights is required; the most recently trained are --weights {shlex.quote(str(trained[-1]))}")
    parser.error(
        "--weights is required, and none have been trained here yet: run "
        f"{command('train.py', '--cfg', 'yolo-mish.yaml')}, then use --weights {RUNS / 'exp' / 'weights' / 'best.pt'}"
    )


def overrides(arguments: argparse.Namespace) -> Tree:
    """Return the overrides of a command line by dotted key: those of ``--hyp``, then of flags, then of ``--set``."""
    keys = {flag.key for flag in TRAIN}
    given: Tree = {key: value for key, value in vars(arguments).items() if key in keys}
    given |= dict(parse_setting(text) for text in arguments.set)
    if not arguments.hyp:
        return given
    return read_hyperparameters(arguments.hyp, optimizer=given.get("train.optimizer")) | given


def parse_setting(text: str) -> tuple[str, Any]:
    """Split ``model.neck.act=relu`` into the key and the value, parsed as YAML."""
    key, equals, value = text.partition("=")
    text = one_line(text)
    if not equals or not key.strip() or not key.isprintable():
        raise ValueError(f"--set {text}: expected KEY=VALUE, as in model.neck.act=relu")
    try:
        return key.strip(), parse_yaml(value)
    except yaml.YAMLError as error:
        raise ValueError(f"--set {text}: the value is not YAML: {one_line(error)}") from error
