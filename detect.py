"""Detect objects in pictures: ``python detect.py --weights runs/train/exp/weights/best.pt --source image.jpg``.

The source is an image, a folder, a glob in quotes, a video, the number of a camera, the address of a stream
(rtsp://, http://, ...) or a .txt file with a path a line. There are no windows: pictures and videos with the detections
drawn in are written to runs/detect/exp*/.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.cli import Parser, add_weights_flags, require_weights, run_script
from configs.foreign_flags import refuse_foreign_flags
from core.text import printable

if TYPE_CHECKING:
    from engine.detections import Result


def main(argv: Sequence[str] | None = None) -> int:
    """Detect as the command line says; returns the exit code."""
    arguments = parse(argv)

    from data.sources import open_source
    from engine.detection_files import DetectionFiles
    from yolo import YOLO

    source = open_source(arguments.source, vid_stride=arguments.vid_stride)
    model = YOLO(
        arguments.weights, cfg=arguments.cfg, names=arguments.names, device=arguments.device, half=arguments.half
    )
    files = DetectionFiles(
        arguments.project,
        arguments.name,
        exist_ok=arguments.exist_ok,
        pictures=not arguments.nosave,
        txt=arguments.save_txt,
        conf=arguments.save_conf,
        crops=arguments.save_crop,
        records=arguments.save_json,
        vid_stride=arguments.vid_stride,
    )
    results = model.stream(
        source,
        conf=arguments.conf,
        iou=arguments.iou,
        max_det=arguments.max_det,
        classes=arguments.classes,
        imgsz=arguments.imgsz,
        batch=1 if source.is_live else arguments.batch,
        rect=arguments.rect,
        agnostic=arguments.agnostic_nms,
    )
    print(model.describe(), flush=True)
    speeds: list[dict[str, float]] = []
    stopped = False
    with files:
        try:
            for result in results:
                files.add(result)
                speeds.append(result.speed)
                print(line(result, len(source)), flush=True)
        except KeyboardInterrupt:
            stopped = True
    print(summary(speeds, skipped=len(source.skipped), folder=files.folder, stopped=stopped), flush=True)
    return 130 if stopped and not source.is_live else 0  # Ctrl-C is how a live source is ended


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="detect.py", description=__doc__)
    add = parser.add_argument
    add_weights_flags(parser)
    add("--source", metavar="SOURCE", help="image, folder, 'glob', video, camera number, stream address or list (.txt)")
    add("--conf", "--conf-thres", type=float, default=0.25, help="lowest score that is shown")
    add("--max-det", type=int, default=300, help="most detections a picture")
    add("--classes", nargs="+", metavar="CLASS", help="show these classes only, by number or by name")
    add("--agnostic-nms", action="store_true", help="of overlapping boxes keep one, whatever their classes")
    add("--batch", "--batch-size", type=int, default=1, help="pictures computed together; the results are the same")
    add("--rect", action="store_true", default=True, help="pad pictures to a multiple of the stride, not to a square")
    add("--no-rect", dest="rect", action="store_false", default=True, help="pad pictures to a square")
    add("--device", default="auto", help="auto, cpu, cuda, or the number of a GPU")
    add("--half", action="store_true", help="compute in fp16, on a GPU only")
    add("--vid-stride", type=int, default=1, help="take every so many frames of a video")
    add("--nosave", action="store_true", help="write no drawn pictures and videos")
    add("--save-txt", action="store_true", help="write labels/NAME.txt: class, centre x and y, width, height as shares")
    add("--save-conf", action="store_true", help="with --save-txt: the score at the end of each line")
    add("--save-crop", action="store_true", help="write what was found to crops/CLASS/NAME.jpg")
    add("--save-json", action="store_true", help="write detections.json: image, name, score, bbox in pixels")
    add("--project", default="runs/detect", help="folder of the runs")
    add("--name", default="exp", help="name of the run; a number is added where it is taken")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    refuse_foreign_flags(parser, "detect.py")
    arguments = parser.parse_args(argv)
    arguments.weights = require_weights(parser, arguments.weights)
    if not arguments.source:
        parser.error("--source is needed: an image, folder, 'glob', video, camera number, stream address or .txt list")
    if arguments.save_conf and not arguments.save_txt:
        parser.error("--save-conf adds the score to the lines of --save-txt; give both")
    return arguments


def line(result: Result, items: int) -> str:
    """The line that is printed about one picture or frame."""
    frame = result.frame
    kind, of = ("video", f"/{frame.frame_count}" if frame.frame_count else "") if frame.is_video else ("image", "")
    where = f" (frame {frame.frame_index + 1}{of})" if frame.is_video else ""
    height, width = result.shape
    head = f"{kind} {frame.item + 1}/{items}{where} {printable(frame.path)}"
    return f"{head}: {height}x{width} {result.summary()}, {result.speed['inference']:.1f} ms"


def summary(speeds: Sequence[Mapping[str, float]], *, skipped: int, folder: Path | None, stopped: bool) -> str:
    """What is printed at the end: how many, how fast, where the files are."""
    measured = speeds[1:] or speeds  # the first picture pays for warming up
    means = {part: sum(speed[part] for speed in measured) / len(measured) for part in (measured[0] if measured else ())}
    lines = [
        f"{'stopped after ' if stopped else ''}{len(speeds)} pictures" + (f", {skipped} skipped" if skipped else "")
    ]
    if means:
        lines.append("a picture takes " + ", ".join(f"{value:.1f} ms {part}" for part, value in means.items()))
    if folder is not None:
        lines.append(f"results in {folder}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
