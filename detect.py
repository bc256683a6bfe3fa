"""Detect objects in images: ``python detect.py --weights runs/train/exp/weights/best.pt --source image.jpg``.

The source is an image, a folder, a quoted glob pattern, a video, a camera number, the URL of an image or stream
(http://, rtsp://, ...) or a .txt file with one path or image URL per line. Images and videos with the detections drawn
in are written to runs/detect/exp*/.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from configs.cli import Parser, add_view_flags, add_weights_flags, require_weights, run_script
from configs.foreign_flags import refuse_foreign_flags
from core.options import PredictOptions
from core.text import printable

if TYPE_CHECKING:
    from engine.detections import Result


def main(argv: Sequence[str] | None = None) -> int:
    """Detect as the command line says; returns the exit code."""
    arguments = parse(argv)

    from core.allocator import MODERATE, keep_freed_memory
    from data.sources import open_source
    from engine.detection_files import DetectionFiles
    from yolo import YOLO

    keep_freed_memory(MODERATE)
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
        table=arguments.save_csv,
        coco=arguments.save_coco,
        label_studio=arguments.save_label_studio,
        model=Path(arguments.weights).name,
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
        workers=arguments.workers,
        track=arguments.track,
        tile=arguments.tile,
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
    return 130 if stopped and not source.is_live else 0  # Ctrl-C is the regular end of a live source


def parse(argv: Sequence[str] | None) -> Namespace:
    """Read the command line."""
    parser = Parser(prog="detect.py", description=__doc__)
    add = parser.add_argument
    add_weights_flags(parser)
    add("--source", metavar="SOURCE", help="image, folder, 'glob', video, camera number, URL or list (.txt)")
    add("--conf", "--conf-thres", type=float, default=PredictOptions.conf, help="confidence threshold")
    add("--max-det", type=int, default=PredictOptions.max_det, help="maximum number of detections per image")
    add("--classes", nargs="+", metavar="CLASS", help="detect these classes only, by number or name")
    add("--agnostic-nms", action="store_true", help="apply NMS across classes")
    add("--batch", "--batch-size", type=int, default=PredictOptions.batch, help="batch size; does not change results")
    add_view_flags(parser, rect=PredictOptions.rect)
    add("--device", default="auto", help="auto, cpu, cuda, a GPU number, or mps (never run by this project's tests)")
    add("--half", action="store_true", help="compute in fp16, on a GPU only")
    add(
        "--workers",
        type=int,
        default=PredictOptions.workers,
        help="number of threads that read images ahead; 0: none; default: one per core, at most 8",
    )
    add(
        "--track",
        action="store_true",
        help="give each object of a video, or of images in order, an id, by ByteTrack (extra: track)",
    )
    add("--vid-stride", type=int, default=1, help="use every N-th frame of a video")
    add("--nosave", action="store_true", help="do not save annotated images or videos")
    add("--save-txt", action="store_true", help="write labels/NAME.txt: class, center x, y, width, height, normalized")
    add("--save-conf", action="store_true", help="with --save-txt: append the score to each line")
    add("--save-crop", action="store_true", help="write each detection to crops/CLASS/NAME.jpg")
    add("--save-json", action="store_true", help="write detections.json: image, class name, score, bbox in pixels")
    add("--save-csv", action="store_true", help="write detections.csv: image, frame, class, score, corners in pixels")
    add("--save-coco", action="store_true", help="write coco.json, a COCO data set with scores, as FiftyOne reads it")
    add("--save-label-studio", action="store_true", help="write label_studio.json: tasks with predictions")
    add("--project", default="runs/detect", help="parent folder of the runs")
    add("--name", default="exp", help="name of the run; a number is appended if it exists")
    add("--exist-ok", action="store_true", help="write into an existing run folder")
    refuse_foreign_flags(parser, "detect.py")
    arguments = parser.parse_args(argv)
    arguments.weights = require_weights(parser, arguments.weights)
    if not arguments.source:
        parser.error("--source is required: an image, folder, 'glob', video, camera number, stream URL or .txt list")
    if arguments.save_conf and not arguments.save_txt:
        parser.error("--save-conf appends the score to the lines of --save-txt; give both flags")
    return arguments


def line(result: Result, items: int) -> str:
    """The line printed for an image or frame."""
    frame = result.frame
    kind, of = ("video", f"/{frame.frame_count}" if frame.frame_count else "") if frame.is_video else ("image", "")
    where = f" (frame {frame.frame_index + 1}{of})" if frame.is_video else ""
    height, width = result.shape
    head = f"{kind} {frame.item + 1}/{items}{where} {printable(frame.path)}"
    return f"{head}: {height}x{width} {result.summary()}, {result.speed['inference']:.1f} ms"


def summary(speeds: Sequence[Mapping[str, float]], *, skipped: int, folder: Path | None, stopped: bool) -> str:
    """The lines printed at the end: number of images, speed, and the folder."""
    measured = speeds[1:] or speeds  # the first image includes the warm-up
    means = {part: sum(speed[part] for speed in measured) / len(measured) for part in (measured[0] if measured else ())}
    lines = [f"{'stopped after ' if stopped else ''}{len(speeds)} images" + (f", {skipped} skipped" if skipped else "")]
    if means:
        lines.append("time per image: " + ", ".join(f"{value:.1f} ms {part}" for part, value in means.items()))
    if folder is not None:
        lines.append(f"results in {folder}")
    return "\n".join(lines)


if __name__ == "__main__":
    run_script(main)
