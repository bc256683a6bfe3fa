"""A stub for train.py: writes a run folder quickly, and fails, dies or waits as behaviour.json beside the folders says.

It locks its folder, saves and exits with 128 + signal on SIGTERM, resumes after the last epoch, and logs each start in
started.jsonl. behaviour.json: {"mish-s1": {"seconds": 0.1, "fail": true}}.
"""

import csv
import fcntl
import json
import os
import signal
import sys
import time
import zlib
from pathlib import Path


def main() -> int:
    words = sys.argv[1:]
    if words[0] == "--resume":
        folder = Path(words[1]).parents[1]
        config = json.loads((folder / "run.json").read_text())["config"]
    else:
        given = dict(word.split("=", 1) for word in words[words.index("--set") + 1 :])
        folder = Path(json.loads(given["run.project"])) / json.loads(given["run.name"])
        train = {"seed": json.loads(given["train.seed"]), "epochs": json.loads(given["train.epochs"])}
        train |= {
            key.removeprefix("train."): json.loads(given[key]) for key in ("train.lr", "train.holdout") if key in given
        }
        model = {"act": {"name": json.loads(given.get("model.act", '"silu"'))}}
        for key, value in given.items():
            part, *stage = key.removeprefix("model.").removesuffix(".act").split(".stages.")
            if part in ("backbone", "neck", "head"):
                section = model.setdefault(part, {})
                if stage:
                    section = section.setdefault("stages", {}).setdefault(stage[0], {})
                section["act"] = json.loads(value)
        config = {"model": model, "train": train}
        config["run"] = {
            key: json.loads(given[f"run.{key}"]) for key in ("plan", "arm", "varies") if f"run.{key}" in given
        }
    place = folder.parent
    behaviour = place / "behaviour.json"
    own = json.loads(behaviour.read_text()).get(folder.name, {}) if behaviour.is_file() else {}
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    lock = open(folder / ".lock", "a+")  # noqa: SIM115 - held until the end
    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with open(place / "started.jsonl", "a") as log:
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
        threads = os.environ.get("OMP_NUM_THREADS")
        start = {
            "cell": folder.name,
            "how": words[0],
            "gpu": gpu,
            "threads": threads,
            "parent": os.getppid(),
            "time": time.time(),
        }
        log.write(json.dumps(start) + "\n")
    if own.get("usage"):
        print("train.py: error: the data are not there", file=sys.stderr)
        return 2
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    if own.get("hangs"):
        time.sleep(1000)  # SIGTERM does not end it
    record = {"config": config, "data": {"train": "a"}}
    (folder / "run.json").write_text(json.dumps(record))
    file = folder / "results.csv"
    rows = list(csv.DictReader(file.open())) if words[0] == "--resume" and file.is_file() else []
    seconds = 1 + zlib.crc32(folder.name.encode()) / 2**34  # two runs never take exactly the same time
    while len(rows) < config["train"]["epochs"]:
        time.sleep(own.get("seconds", 0.01))
        if received:
            return 128 + received[0]
        rows.append({"epoch": len(rows) + 1, "metrics/mAP50-95": own.get("map", 0.1), "time_train_s": seconds})
        with open(folder / ".rows", "w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        os.replace(folder / ".rows", file)
        (folder / "weights" / "last.pt").write_text("checkpoint")
        if own.get("full"):
            print("train.py: error: [Errno 28] last.pt cannot be written: No space left on device", file=sys.stderr)
            return 1
        if own.get("fail"):
            print("train.py: error: the loss is not finite", file=sys.stderr)
            return 1
        if own.get("dies", 0) >= len(rows):
            os.kill(os.getpid(), signal.SIGKILL)
    (folder / "run.json").write_text(json.dumps({**record, "results": {}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
