"""Bad input to every script: exit code 2, one line on stderr that says what is wrong and where, and nothing written."""

import json
import os
import re
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import compare
import detect
import train
import val
from comparison.arms import activation_overrides
from comparison.plan import make_plan
from data.tools import check, convert
from engine.checkpoint import load_checkpoint, save_checkpoint
from tests.comparison.made_runs import write_run
from tests.support.checkpoints import class_names, write_checkpoint, write_data
from tests.support.scripts import run
from tests.support.training import SMALL, leave_out_pictures

pytestmark = pytest.mark.slow

CFG = "--cfg yolo-mish.yaml"
ON = f"{CFG} --data DATA"
LONG = "n" * 300
WIDE = "9" * 400

# Script -> case -> (words, what the message says). W are good weights, DATA a good data YAML; the other files are made
# in `fill`. Words with odd characters stand in a tuple.
TABLE: dict[str, dict[str, tuple[str | tuple[str, ...], str]]] = {
    "train.py": {
        "nothing asked": ("", "--cfg"),
        "config missing": ("--cfg no-such.yaml", "no-such.yaml.*yolo-mish.yaml"),
        "config without a name": (("--cfg", ""), "not the name of a file"),
        "config a folder": ("--cfg vacant", "vacant"),
        "config with a long name": (("--cfg", LONG), "no such file"),
        "config not YAML": ("--cfg broken.yaml", "broken.yaml.*not YAML"),
        "config binary": ("--cfg binary.yaml", "binary.yaml.*UTF-8"),
        "config a list": ("--cfg list.yaml", "list.yaml.*list"),
        "config nested without end": ("--cfg deep.yaml", "deep.yaml.*deeper"),
        "config with an alias bomb": ("--cfg bomb.yaml", "bomb.yaml.*alias"),
        "config with a key twice": ("--cfg twice.yaml", "twice.yaml.*duplicate key 'train'"),
        "config with a number for a key": ("--cfg number.yaml", "number.yaml.*key 3"),
        "config with a Python object": ("--cfg python.yaml", "python.yaml.*not accepted"),
        "config with a date": ("--cfg date.yaml", "date.yaml.*timestamp"),
        "config based on itself": ("--cfg loop.yaml", "loop.yaml.*base"),
        "config based on nothing": ("--cfg baseless.yaml", "baseless.yaml: base: .*gone.yaml"),
        "config larger than any": ("--cfg large.yaml", "large.yaml.*1048576"),
        "activation unknown": (f"{CFG} --set model.backbone.act=mich", "mich.*mish"),
        "activation parameter unknown": ((*CFG.split(), "--set", "model.act={name: swish, betta: 2}"), "betta.*beta"),
        "activation parameter huge": ((*CFG.split(), "--set", f"model.act={{name: swish, beta: {WIDE}}}"), "beta"),
        "activation parameter infinite": ((*CFG.split(), "--set", "model.act={name: elu, alpha: .inf}"), "model.act"),
        "key misspelt": (f"{CFG} --set model.bakbone.act=mish", "model.bakbone.*model.backbone"),
        "key of many parts": (f"{CFG} --set {'.'.join('a' * 2000)}=1", "2000 parts"),
        "key with a line break": ((*CFG.split(), "--set", "train.ep\nochs=1"), "--set"),
        "setting without a value": (f"{CFG} --set train.lr", "KEY=VALUE"),
        "setting not YAML": ((*CFG.split(), "--set", "train.lr={"), "train.lr"),
        "setting nested without end": (f"{CFG} --set augment.extra={'[' * 3000}", "augment.extra"),
        "value of another type": (f"{CFG} --set train.epochs=many", "train.epochs.*many"),
        "value not a number": (f"{CFG} --lr nan", "train.lr.*nan"),
        "value infinite": (f"{CFG} --set train.warmup=.inf", "train.warmup.*inf"),
        "epochs not a number": (f"{CFG} --epochs ten", "--epochs.*ten"),
        "epochs negative": (f"{CFG} --epochs=-1", "train.epochs.*-1"),
        "epochs huge": (f"{CFG} --epochs {WIDE}", "train.epochs"),
        "batch zero": (f"{CFG} --batch 0", "train.batch.*0"),
        "seed not a number": (f"{CFG} --seed x", "--seed.*x"),
        "seed negative": (f"{CFG} --seed=-3", "train.seed.*-3"),
        "seed beyond 64 bits": (f"{CFG} --seed 99999999999999999999", "train.seed"),
        "no thread": (f"{CFG} --threads 0", "train.threads.*1"),
        "workers by the million": (f"{CFG} --workers 1000000", "train.workers.*1024"),
        "bins by the million": (f"{CFG} --set model.reg_max=1000000", "model.reg_max.*256"),
        "side not divisible": (f"{ON} --imgsz 100", "train.imgsz.*32"),
        "device not there": (f"{ON} --device cuda:9", "cuda:9"),
        "device misspelt": (f"{ON} --device gpu", "gpu.*cuda"),
        "half precision of a CPU": (f"{ON} --device cpu --amp fp16", "fp16.*GPU"),
        "freeze unknown": (f"{ON} --freeze bakbone", "bakbone"),
        "augmentation unknown": ((*ON.split(), "--set", "augment.extra=[{name: RandomFogg}]"), "RandomFogg.*RandomFog"),
        "hyperparameters missing": (f"{CFG} --hyp none.yaml", "none.yaml"),
        "hyperparameters with a bomb": (f"{CFG} --hyp bomb.yaml", "bomb.yaml.*alias"),
        "data missing": (f"{CFG} --data no-such-data.yaml", "data: no-such-data.yaml"),
        "data without a name": ((*CFG.split(), "--data", ""), "data: .*not the name of a file"),
        "data with a misspelt key": (f"{CFG} --data misspelt.yaml", "vall.*val"),
        "data in nobody's home": (f"{CFG} --data nobody.yaml", "nobody.yaml.*home"),
        "images missing": (f"{CFG} --data nowhere.yaml", "nowhere.*no such folder"),
        "annotations missing": (f"{CFG} --data away.yaml", "away.json"),
        "annotations a folder": (f"{CFG} --data folder.yaml", "vacant.*no such file"),
        "annotations not JSON": (f"{CFG} --data text.yaml", "text.json"),
        "annotations not COCO": (f"{CFG} --data list_of_numbers.yaml", "list_of_numbers.json.*COCO"),
        "annotations nested without end": (f"{CFG} --data deep_json.yaml", "deep_json.json"),
        "annotations without images": (f"{CFG} --data vacant.yaml", "vacant.json"),
        "annotations of too many classes": (f"{CFG} --data crowded.yaml", "crowded.json.*10000"),
        "all images missing": (f"{CFG} --data ghosts.yaml", "ghosts.json.*gone.jpg"),
        "classes differ between the splits": (f"{CFG} --data strangers.yaml", "strangers.json.*arrow"),
        "damaged data where strict": (f"{CFG} --data damaged.yaml --strict-data", "damaged.json"),
        "weights missing": (f"{ON} --weights no-such.pt", "no-such.pt"),
        "weights truncated": (f"{ON} --weights short.pt", "short.pt"),
        "weights of another network": (f"{ON} --weights strange.pt", "strange.pt.*none of its weights fit"),
        "name leads out": (f"{ON} --name ../out", "../out"),
        "name a dot": (f"{ON} --name .", "run name"),
        "name too long": (f"{ON} --name {LONG}", "run name"),
        "name with a line break": ((*ON.split(), "--name", "a\nb"), "run name"),
        "project is a file": (f"{ON} --project notes.txt", "notes.txt"),
        "flag without a meaning": (f"{CFG} --half", "--half"),
        "flag unknown": ((*CFG.split(), "--epoch\x1b[31m\n3"), "--epoch"),
        "resume without a run": ("--resume", "--resume"),
        "resume missing": ("--resume no-such.pt", "no-such.pt"),
        "resume truncated": ("--resume short.pt", "short.pt"),
        "resume weights": ("--resume W", "expected training"),
        "resume a checkpoint without its optimizer": ("--resume bare/weights/last.pt", "lacks optimizer"),
        "resume with another setting": ("--resume run/weights/last.pt --epochs 9", "train.epochs=9"),
        "resume with other data": ("--resume moved/weights/last.pt", "annotations"),
    },
    "val.py": {
        "no weights": ("", "--weights is required.*train.py"),
        "weights missing": ("--weights none.pt", "none.pt"),
        "weights a folder": ("--weights vacant", "no such checkpoint"),
        "weights truncated": ("--weights short.pt", "short.pt"),
        "weights empty": ("--weights empty.pt", "empty.pt"),
        "weights another file": ("--weights data.yaml", "data.yaml"),
        "weights with code": ("--weights code.pt", "code.pt.*posix.mkdir"),
        "weights of another program": ("--weights foreign.pt", "foreign.pt"),
        "weights compressed": ("--weights packed.pt", "packed.pt.*compressed"),
        "weights that claim more than they have": ("--weights claim.pt", "claim.pt"),
        "weights of many classes": ("--weights many.pt", "many.pt.*10000"),
        "classes differ in a name": ("--weights other.pt", "class 5 is 'star'.*'arrows'"),
        "classes differ in number": ("--weights fewer.pt", "6 classes.*have 5"),
        "data missing": ("--weights W --data none.yaml", "none.yaml"),
        "data with a misspelt key": ("--weights W --data misspelt.yaml", "vall.*val"),
        "data not YAML": ("--weights W --data broken.yaml", "broken.yaml"),
        "data without the split": ("--weights W --data data.yaml --split test", "test.*train, val"),
        "annotations missing": ("--weights W --data away.yaml", "away.json"),
        "annotations not COCO": ("--weights W --data list_of_numbers.yaml", "list_of_numbers.json"),
        "annotations not JSON": ("--weights W --data text.yaml", "text.json"),
        "no images": ("--weights W --data vacant.yaml", "vacant.json"),
        "split misspelt": ("--weights W --split vall", "vall"),
        "side not divisible": ("--weights W --imgsz 100", "imgsz.*100.*96"),
        "side huge": (f"--weights W --imgsz {WIDE}", "imgsz"),
        "batch zero": ("--weights W --batch 0", "batch"),
        "batch not a number": ("--weights W --batch many", "many"),
        "workers negative": ("--weights W --workers=-1", "workers"),
        "workers by the million": ("--weights W --workers 1000000", "workers.*1024"),
        "conf above one": ("--weights W --conf 2", "conf.*2"),
        "conf not a number": ("--weights W --conf nan", "conf.*nan"),
        "iou above one": ("--weights W --iou 45", "iou.*45"),
        "max-det zero": ("--weights W --max-det 0", "max_det"),
        "device not there": ("--weights W --device cuda:9", "cuda:9"),
        "half on a CPU": ("--weights W --half --device cpu", "half.*GPU"),
        "flag unknown": ("--weights W --bach 4", "--bach"),
        "flag without a meaning": ("--weights W --augment", "--augment"),
        "name leads out": ("--weights W --name ../up", "../up"),
        "project is a file": ("--weights W --project data.yaml", "data.yaml"),
    },
    "detect.py": {
        "no weights": ("--source a.jpg", "--weights is required.*train.py"),
        "no source": ("--weights W", "--source is required"),
        "weights missing": ("--weights none.pt --source a.jpg", "none.pt"),
        "weights a folder": ("--weights . --source a.jpg", "no such checkpoint"),
        "weights truncated": ("--weights short.pt --source a.jpg", "short.pt"),
        "weights text": ("--weights notes.txt --source a.jpg", "notes.txt"),
        "weights empty": ("--weights empty.pt --source a.jpg", "empty.pt"),
        "weights with code": ("--weights code.pt --source a.jpg", "code.pt.*posix.mkdir"),
        "source missing": ("--weights W --source none.jpg", "none.jpg"),
        "source blank": (("--weights", "W", "--source", " "), "source: empty"),
        "source with a long name": (("--weights", "W", "--source", LONG * 20), "source"),
        "source in nobody's home": ("--weights W --source ~nobody-of-this-name/a.jpg", "home"),
        "source of another kind": ("--weights W --source notes.xyz", "notes.xyz.*.jpg"),
        "source an empty folder": ("--weights W --source vacant", "vacant.*no image"),
        "source glob without a match": ("--weights W --source *.bmp", "no file matches"),
        "source list of missing files": ("--weights W --source list.txt", "1 of 2 files are missing.*gone.jpg"),
        "source list empty": ("--weights W --source blank.txt", "blank.txt.*empty"),
        "source list binary": ("--weights W --source binary.txt", "binary.txt.*UTF-8"),
        "image damaged": ("--weights W --source broken.jpg", "broken.jpg"),
        "image empty": ("--weights W --source hollow.jpg", "hollow.jpg.*empty"),
        "image a bomb": ("--weights W --source bomb.png", "bomb.png.*pixels"),
        "image a program for a printer": ("--weights W --source printer.jpg", "printer.jpg.*known format"),
        "video damaged": ("--weights W --source broken.mp4", "broken.mp4.*does not open"),
        "stream away": (
            "--weights W --source http://me:secret@127.0.0.1:9/a.mp4",
            "http://127.0.0.1:9/a.mp4: the stream",
        ),
        "camera missing": ("--weights W --source 97", "97.*camera"),
        "camera of many digits": (f"--weights W --source {WIDE}", "source"),
        "address of another kind": ("--weights W --source ftp://host/a.jpg", "ftp"),
        "side not divisible": ("--weights W --source a.jpg --imgsz 100", "imgsz.*100.*96"),
        "side negative": ("--weights W --source a.jpg --imgsz=-32", "imgsz.*-32"),
        "side not a number": ("--weights W --source a.jpg --img big", "big"),
        "conf above one": ("--weights W --source a.jpg --conf 25", "conf.*25"),
        "iou negative": ("--weights W --source a.jpg --iou-thres=-0.1", "iou.*-0.1"),
        "max-det zero": ("--weights W --source a.jpg --max-det 0", "max_det"),
        "batch zero": ("--weights W --source a.jpg --batch 0", "batch"),
        "stride zero": ("--weights W --source a.jpg --vid-stride 0", "vid_stride"),
        "class unknown": ("--weights W --source a.jpg --classes stars", "stars.*star"),
        "class negative": ("--weights W --source a.jpg --classes -1", "-1"),
        "device not there": ("--weights W --source a.jpg --device 9", "device.*9"),
        "device misspelt": ("--weights W --source a.jpg --device gpu", "gpu"),
        "device of odd digits": ("--weights W --source a.jpg --device ²", "device.*expected"),
        "half on a CPU": ("--weights W --source a.jpg --half --device cpu", "half.*GPU"),
        "flag misspelt": ("--weights W --source a.jpg --sorce b", "--sorce"),
        "flag without a window": ("--weights W --source a.jpg --view-img", "--view-img.*windows"),
        "scores without text": ("--weights W --source a.jpg --save-conf", "--save-txt"),
        "name leads out": ("--weights W --source a.jpg --name ../up", "../up"),
        "project is a file": ("--weights W --source a.jpg --project notes.txt", "notes.txt"),
    },
    "compare.py": {
        "nothing asked": ("", "--acts"),
        "activations and a report": ("--acts relu mish --report made", "--acts.*--report"),
        "one activation": ("--acts relu", "relu alone"),
        "activation unknown": ("--acts relu mich", "mich.*mish"),
        "activation parameter unknown": (("--acts", "relu", "{name: swish, betta: 2}"), "betta.*beta"),
        "activation twice": ("--acts relu swish swish(beta=1.0)", "swish.*the same"),
        "activation not YAML": (("--acts", "relu", "{name: "), "not YAML"),
        "activation of a part unknown": ("--acts relu bakbone=mish,neck=relu", "bakbone.*backbone"),
        "activation given twice over": ("--acts relu mish --set model.act=silu", "--acts"),
        "baseline not compared": ("--acts relu mish --baseline silu", "silu.*relu, mish"),
        "seeds not numbers": ("--acts relu mish --seeds three", "--seeds.*three.*numbers"),
        "seeds none": ("--acts relu mish --seeds 0", "--seeds 0"),
        "seeds negative": ("--acts relu mish --seeds=-3", "--seeds"),
        "seeds twice": ("--acts relu mish --seeds 1,2,1", "duplicate 1"),
        "seeds by the million": ("--acts relu mish --seeds 1000000", "1000"),
        "seed of a single run": ("--acts relu mish --seed 3", "--seeds"),
        "looks beyond the seeds": ("--acts relu mish --seeds 3 --looks 2,5", "looks"),
        "margin none": ("--acts relu mish --margin 0", "margin"),
        "sigma not a number": ("--acts relu mish --sigma nan", "sigma"),
        "two activations against themselves": ("--acts relu mish --aa", "--aa.*one"),
        "unfused forced to be fused": ("--acts relu gelu --set model.norm_act=fused", "gelu.*plain"),
        "time without a probe": ("--acts relu mish --budget time --probe 0", "--budget time.*--probe"),
        "budget unknown": ("--acts relu mish --budget money", "money"),
        "config missing": ("--acts relu mish --cfg none.yaml", "none.yaml"),
        "data missing": ("--acts relu mish --data none.yaml", "none.yaml"),
        "annotations missing": ("--acts relu mish --data away.yaml", "away.json"),
        "no runs at a time": ("--acts relu mish --jobs 0", "--jobs 0.*1 or more"),
        "several runs on Ray": ("--acts relu mish --jobs 2 --device 0,1", "--jobs.*GPUs"),
        "devices twice": ("--acts relu mish --device 0,0", "--device 0,0"),
        "name leads out": ("--acts relu mish --name ../..", "run name"),
        "project is a file": ("--acts relu mish --data DATA --probe 0 --project notes.txt", "notes.txt"),
        "plan damaged": ("--acts relu mish --project . --name damaged", "plan.json.*damaged"),
        "plan another one": ("--acts relu mish --project . --name planned --margin 0.1", "margin.*0.1.*0.005"),
        "run in the plan damaged": ("--report planned", "run.json.*not JSON"),
        "report of a missing folder": ("--report none", "none.*does not exist"),
        "report of an empty folder": ("--report vacant", "vacant.*run folder"),
        "report of a file": ("--report notes.txt", "notes.txt"),
        "report of a run cut off": ("--report runs_good runs_half", "runs_half.*not finished"),
        "report of a file cut off": ("--report runs_good runs_cut", "results.csv.*line"),
        "report of other data": ("--report runs_good runs_other", "data.train.*--allow"),
        "report of one activation": ("--report runs_good/relu-s0", "relu"),
        "report of the same runs twice": ("--report runs_good runs_good", "are both .* with seed 0"),
        "report with a baseline that is not there": ("--report runs_good --baseline elu", "elu.*relu"),
        "flag unknown": ("--acts relu mish --seds 3", "--seds"),
    },
    "data.tools.convert": {
        "no source": ("", "source"),
        "source missing": ("none", "none.*no such"),
        "source with a long name": ((LONG,), "no such"),
        "source an empty folder": ("vacant", "vacant.*images"),
        "source not YAML": ("broken.yaml", "broken.yaml.*not YAML"),
        "source binary": ("binary.yaml", "binary.yaml.*UTF-8"),
        "source a list": ("list.yaml", "list.yaml.*list"),
        "source nested without end": ("deep.yaml", "deep.yaml.*not YAML"),
        "source with a Python object": ("python.yaml", "python.yaml.*not YAML"),
        "source with a date that is none": ("date.yaml", "date.yaml"),
        "source larger than any": ("large.yaml", "large.yaml.*1048576"),
        "names a bomb": ("names.yaml", "names.yaml.*names"),
        "train a bomb": ("trains.yaml", "trains.yaml.*train"),
        "train missing": ("yolo.yaml", "yolo.yaml: train.*gone"),
        "images elsewhere": ("outside.yaml", "outside"),
        "flag unknown": ("vacant --naems a", "--naems"),
    },
    "data.tools.check": {
        "no data": ("", "DATA"),
        "data missing": ("none.yaml", "none.yaml"),
        "data not YAML": ("broken.yaml", "broken.yaml.*not YAML"),
        "data with a misspelt key": ("misspelt.yaml", "vall.*val"),
        "annotations missing": ("away.yaml", "away.json"),
        "annotations not COCO": ("list_of_numbers.yaml", "list_of_numbers.json"),
        "no images": ("vacant.yaml", "vacant.json"),
        "out is a file": ("data.yaml --out notes.txt/x", "notes.txt"),
        "flag unknown": ("data.yaml --stric", "--stric"),
    },
}
MAINS: dict[str, Callable] = {"train.py": train.main, "val.py": val.main, "detect.py": detect.main}
MAINS |= {"compare.py": compare.main}
MAINS |= {"data.tools.convert": convert.main, "data.tools.check": check.main}


class Code:
    """Pickles to a call."""

    def __reduce__(self) -> tuple[Callable, tuple[str]]:
        return os.mkdir, ("harmed",)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with good weights and data, and one file for each fault."""
    folder = tmp_path_factory.mktemp("refusals").resolve()
    data = write_data(folder)
    names = class_names(folder / "shapes")
    write_checkpoint(folder / "best.pt", data, names)
    write_checkpoint(folder / "other.pt", data, [*names[:-1], "arrows"])
    write_checkpoint(folder / "fewer.pt", data, names[:-1])
    fill_texts(folder)
    fill_data(folder)
    fill_weights(folder)
    fill_sources(folder)
    fill_runs(folder, data)
    fill_comparisons(folder)
    return folder


def fill_texts(folder: Path) -> None:
    """Files that are no config."""
    lines = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 40))
    texts = {
        "broken.yaml": "train: {images: [",
        "list.yaml": "- 1\n- 2\n",
        "deep.yaml": "a: " + "[" * 3000,
        "bomb.yaml": lines,
        "names.yaml": f"{lines}train: vacant\nnames: [*a39]\n",
        "trains.yaml": f"{lines}train: *a39\n",
        "twice.yaml": "train: {epochs: 1}\ntrain: {epochs: 2}\n",
        "number.yaml": "train: {3: 1}\n",
        "python.yaml": "train: !!python/object/apply:os.mkdir [harmed]\n",
        "date.yaml": "run: {name: 2001-99-99}\n",
        "loop.yaml": "base: loop.yaml\n",
        "baseless.yaml": "base: gone.yaml\n",
        "large.yaml": "#" * (1 << 20) + "\n\n",
        "yolo.yaml": "train: gone\nnames: [a]\n",
        "outside.yaml": f"path: {folder}/vacant\ntrain: {folder}/shapes/images/val\nnames: [a]\n",
        "notes.txt": "a.jpg is a picture",
        "blank.txt": "\n\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    for name in ("binary.yaml", "binary.txt"):
        (folder / name).write_bytes(b"\xff\xfe\x00\x81train")
    (folder / "vacant").mkdir()


def fill_data(folder: Path) -> None:
    """Data YAMLs with one fault each, and what they name."""
    good = {"images": str(folder / "shapes/images/val"), "annotations": str(folder / "shapes/annotations/val.json")}
    content = json.loads(Path(good["annotations"]).read_text())
    ghost = {"id": 1, "file_name": "gone.jpg", "width": 9, "height": 9}
    categories = [{"id": k, "name": str(k)} for k in range(10_001)]
    strange = [*content["categories"][:-1], {**content["categories"][-1], "name": "arrow"}]
    texts = {
        "list_of_numbers": "[1, 2]",
        "text": "hello",
        "deep_json": "[" * 100_000,
        "vacant": '{"images": [], "annotations": [], "categories": []}',
        "crowded": json.dumps({**content, "categories": categories}),
        "ghosts": json.dumps({**content, "images": [ghost]}),
        "strangers": json.dumps({**content, "categories": strange}),
        "damaged": json.dumps({**content, "annotations": [*content["annotations"], {"bbox": 3}]}),
    }
    for name, text in texts.items():
        (folder / f"{name}.json").write_text(text)
    for name in ("away", *texts):
        split = {**good, "annotations": str(folder / f"{name}.json")}
        first = good if name == "strangers" else split
        (folder / f"{name}.yaml").write_text(json.dumps({"train": first, "val": split}))
    others = {
        "data": {"train": good, "val": good},
        "misspelt": {"train": good, "val": good, "vall": good},
        "nobody": {"root": "~nobody-of-this-name/x", "train": good, "val": good},
        "nowhere": {"train": {**good, "images": "nowhere"}, "val": good},
        "folder": {"train": {**good, "annotations": "vacant"}, "val": good},
    }
    for name, tree in others.items():
        (folder / f"{name}.yaml").write_text(json.dumps(tree))


def fill_weights(folder: Path) -> None:
    """Files that are no checkpoint, or one that lies."""
    whole = (folder / "best.pt").read_bytes()
    (folder / "short.pt").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.pt").write_bytes(b"")
    torch.save({"model": torch.zeros(1)}, folder / "foreign.pt")
    torch.save({"format": 1, "harm": Code()}, folder / "code.pt")
    content = load_checkpoint(folder / "best.pt")
    small = {**content, "model": {"x": torch.zeros(1)}}
    save_checkpoint(folder / "strange.pt", small)
    save_checkpoint(folder / "many.pt", {**small, "names": ["x"] * 10_001})
    with zipfile.ZipFile(folder / "strange.pt") as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(folder / "packed.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in records.items():
            archive.writestr(name, data)
    claim = torch.zeros(1).expand(1000, 1000)  # a million numbers from the four bytes that the file has
    save_checkpoint(folder / "claim.pt", {**small, "model": {"x": claim}})


def fill_sources(folder: Path) -> None:
    """Pictures and videos that are none."""
    shutil.copy(next((folder / "shapes/images/test").iterdir()), folder / "a.jpg")
    size = (60_000).to_bytes(4, "big")
    chunks = [b"IHDR" + size + size + b"\x08\x02\0\0\0", b"IDAT" + zlib.compress(bytes(1000))]
    parts = [(len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big") for chunk in chunks]
    files = {
        "notes.xyz": b"?",
        "list.txt": b"a.jpg\ngone.jpg\n",
        "broken.jpg": b"\xff\xd8\xff broken",
        "hollow.jpg": b"",
        "broken.mp4": b"\0\0\0\x20ftypisom broken",
        "printer.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        "bomb.png": b"\x89PNG\r\n\x1a\n" + b"".join(parts),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)


def fill_runs(folder: Path, data: Path) -> None:
    """A run of four epochs cut off behind the first, and the same with other annotations."""
    options = ["--imgsz", 64, "--batch", 2, "--workers", 0, "--no-amp", "--epochs", 1, "--set", "run.project=made"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        leave_out_pictures(patch)
        assert run(train.main, "train.py", "--cfg", SMALL, "--data", data, *options) == 0
    content = load_checkpoint(folder / "made/exp/weights/last.pt")
    content["config"]["train"]["epochs"] = 4
    for name in ("run", "moved"):
        (folder / name / "weights").mkdir(parents=True)
        if name == "moved":
            content["config"]["data"]["train"] = content["config"]["data"]["val"]
        save_checkpoint(folder / name / "weights/last.pt", content)
    (folder / "bare/weights").mkdir(parents=True)
    del content["optimizer"]
    save_checkpoint(folder / "bare/weights/last.pt", content)


def fill_comparisons(folder: Path) -> None:
    """Runs to report, usable and unusable, and comparisons that cannot be resumed."""
    for place in ("runs_good", "runs_half", "runs_cut", "runs_other"):
        for act in ("relu", "mish") if place == "runs_good" else ("silu",):
            write_run(folder / place / f"{act}-s0", act=act, seed=0, last=0.4)
    cut = folder / "runs_cut/silu-s0/results.csv"
    cut.write_text(cut.read_text()[:-30])
    for place, change in (("runs_half", {"results": None}), ("runs_other", {"data": {"train": "x"}, "seal": None})):
        file = folder / place / "silu-s0/run.json"
        record = {**json.loads(file.read_text()), **change}
        file.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    (folder / "damaged").mkdir()
    (folder / "damaged/plan.json").write_text('{"acts": ["relu"')
    arms = {act: activation_overrides(act, {}) for act in ("relu", "mish")}
    fields = {"acts": ("relu", "mish"), "baseline": "relu", "cfg": "yolo-mish.yaml", "arms": arms}
    make_plan(**fields, seeds=(0, 1, 2), epochs={"relu": 22, "mish": 22}).write(folder / "planned")
    write_run(folder / "planned/relu-s0", act="relu", seed=0, last=0.4)
    (folder / "planned/relu-s0/run.json").write_text('{"config": ')


@pytest.fixture
def here(place: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(place)
    cv2.setNumThreads(1)
    yield place


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """All that lies in a folder, with size and time of the last change."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


@pytest.mark.usefixtures("warm_runs")
@pytest.mark.parametrize(("script", "case"), [(script, case) for script, cases in TABLE.items() for case in cases])
def test_bad_input(script: str, case: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    words, expected = TABLE[script][case]
    listed = words.split() if isinstance(words, str) else words
    good = {"W": str(here / "best.pt"), "DATA": str(here / "shapes.yaml")}
    before = listing(here)
    code = run(MAINS[script], script, *(good.get(word, word) for word in listed))
    err = capfd.readouterr().err
    assert (code, err.count("\n")) == (2, 1), err
    name = script.replace(".tools.", r"\.(tools\.)?")  # python -m data.check runs data/tools/check.py
    assert re.match(rf"(python -m )?{name}: error: ", err) and "Traceback" not in err
    assert re.search(expected, err), err
    assert err.rstrip("\n").isprintable() and len(err) < 1200
    assert listing(here) == before


def test_the_newest_weights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for run_name in ("exp", "exp2"):
        (tmp_path / "runs/train" / run_name / "weights").mkdir(parents=True)
        (tmp_path / "runs/train" / run_name / "weights/best.pt").touch()
        time.sleep(0.02)
    assert run(detect.main, "detect.py", "--source", "a.jpg") == 2
    assert "--weights runs/train/exp2/weights/best.pt" in capsys.readouterr().err


def test_class_names_of_any_kind_do_not_stop_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Breaks, control characters, formulas, endless names, the same name twice: evaluated, drawn and cut out."""
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    path = tmp_path / "shapes/annotations/val.json"
    content = json.loads(path.read_text())
    names = ["a\nb", "../../out", "$\\frac{$", "\x1b[31m", "x" * 20_000, "x" * 20_000]
    content["categories"] = [{**old, "name": new} for old, new in zip(content["categories"], names, strict=True)]
    path.write_text(json.dumps(content))
    weights = write_checkpoint(tmp_path / "hostile.pt", tmp_path / "shapes.yaml", names)
    before = set(listing(tmp_path))
    assert run(val.main, "val.py", "--weights", weights, "--conf", 0.3, "--max-det", 20) == 0
    arguments = ["--weights", weights, "--source", tmp_path / "shapes/images/test", "--max-det", 20]
    assert run(detect.main, "detect.py", *arguments, "--save-crop", "--save-txt") == 0
    out, err = capsys.readouterr()
    assert err == "" and "\x1b" not in out
    new = [Path(name).relative_to(tmp_path) for name in set(listing(tmp_path)) - before]
    assert all(each.parts[0] in ("runs", "shapes") for each in new)  # the second holds the cache of the annotations
    crops = {each.parent.name for each in new if "crops" in each.parts and each.suffix == ".jpg"}
    labels = {
        int(line.split()[0])
        for file in tmp_path.rglob("runs/**/labels/*.txt")
        for line in file.read_text().splitlines()
    }
    assert len(crops) == len(labels) > 3


def test_the_images_of_an_annotation_file_stay_in_their_folder(tmp_path: Path, here: Path) -> None:
    """A secret beside the folder of images is not read by way of a file name in the JSON."""
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(tmp_path / "secret.png"), np.full((9, 9, 3), 7, np.uint8))
    records = [{"id": k, "file_name": n} for k, n in enumerate(["../secret.png", str(tmp_path / "secret.png")])]
    content = {"images": records, "annotations": [], "categories": [{"id": 1, "name": "a"}]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    split = {"images": str(images), "annotations": str(tmp_path / "a.json")}
    (tmp_path / "d.yaml").write_text(json.dumps({"train": split, "val": split}))
    assert run(val.main, "val.py", "--weights", here / "best.pt", "--data", tmp_path / "d.yaml") == 2
