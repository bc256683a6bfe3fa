"""Write weights that can be passed on: ``python -m weights.publish runs/train/exp/weights/best.pt --to weights/NAME``.

The folder gets model.safetensors, its SHA-256, and a model card (README.md) with the data and its licence, metrics and
activations. `YOLO("NAME")` and `--weights` read it. No path of this machine is in it.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.cli import Parser, run_script
from core.commands import command
from core.text import printable

NETWORKS = {"yolo": "A yolo-mish detector, size {size},", "darknet": "A Darknet network"}
USES = {"train": "train", "val": "validate"}
SHOWN = ("mAP50-95", "mAP50", "AP_small", "AP_medium", "AP_large")


def main(argv: Sequence[str] | None = None) -> int:
    """Publish as the command line says; returns the exit code."""
    arguments = parse(argv)

    from core.files import write_text
    from engine.checkpoint import load_checkpoint
    from engine.published import MODEL, write_model
    from engine.run_record import read_record

    source, folder = Path(arguments.weights), Path(arguments.to)
    content = load_checkpoint(source, kind="weights")
    run = source.absolute().parent.parent
    record = read_record(run) if (run / "run.json").is_file() else {}
    if folder.exists():
        raise FileExistsError(f"{folder} exists; remove it, or choose another --to")
    folder.mkdir(parents=True)
    sha256 = write_model(folder, content, half=arguments.fp16)
    write_text(folder / "README.md", card(arguments, content, record, sha256))
    size = (folder / MODEL).stat().st_size / 2**20
    print(f"{folder}: {MODEL}, {size:.1f} MiB, SHA-256 {sha256}, and its card, README.md")
    print(f"try it with: {command('detect.py', '--weights', folder, '--source', 'image.jpg')}")
    return 0


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="python -m weights.publish", description=__doc__)
    add = parser.add_argument
    add("weights", metavar="BEST.PT", help="best.pt of a run")
    add("--to", required=True, metavar="DIR", help="new folder; its name is that of the model")
    add("--license", "--licence", required=True, metavar="ID", help="licence of the weights, as in apache-2.0")
    add(
        "--data-license",
        "--data-licence",
        required=True,
        metavar="TEXT",
        help="licence and origin of the training data",
    )
    add("--fp16", action="store_true", help="half the size; the metrics on the card are those of the fp32 weights")
    return parser.parse_args(argv)


def card(arguments: Namespace, content: Mapping[str, Any], record: Mapping[str, Any], sha256: str) -> str:
    """The model card, in Markdown with the header that model hubs read; `record`: the run's run.json, or empty."""
    from core.templates import templates

    config = content["config"]
    numbers = record.get("results") or content.get("stats") or {}
    images = record.get("images") or {}
    environment = templates(Path(__file__).parent, escape=False)
    environment.finalize = lambda value: printable(value) if isinstance(value, str) else value
    return environment.get_template("card.md").render(
        name=Path(arguments.to).name,
        license=arguments.license,
        data_license=arguments.data_license,
        fp16=arguments.fp16,
        network=NETWORKS[config["model"]["kind"]].format(**config["model"]),
        names=content["names"],
        data=Path(str(config["data"]["root"])).name,
        images=", ".join(f"{images[split]:,} images to {use}" for split, use in USES.items() if split in images),
        metrics=[(key, numbers[key]) for key in SHOWN if (numbers.get(key) or -1) >= 0],
        train=config["train"],
        commit=((record.get("code") or {}).get("commit") or "")[:12],
        sha256=sha256,
        census=content["census"],
    )


if __name__ == "__main__":
    run_script(main)
