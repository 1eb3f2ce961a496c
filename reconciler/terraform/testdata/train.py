"""A trainer that keeps the run contract and learns nothing. run.json's "mode" says how it misbehaves."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

run = json.loads(Path(sys.argv[1]).read_bytes())
mode, epochs, seconds = run.get("mode", ""), run["epochs"], run.get("seconds", 0.03)
if mode == "refuse":
    print("error: run.json: seed: must be a whole number", file=sys.stderr)
    sys.exit(1)

output = Path(run["output"])
status = {"phase": "starting", "epoch": 0, "epochs": epochs, "batch": 0, "batches": 1}


def replace(name, text):
    part = output / f".{name}.part"
    part.write_text(text)
    os.replace(part, output / name)


def tell(**fields):
    status.update(fields, heartbeat=datetime.now(timezone.utc).isoformat())
    replace("status.json", json.dumps(status))


def checkpoint(number, frame):
    print("ending on signal", number, flush=True)
    replace("stopped", str(epoch))
    sys.exit(128 + number)


epoch = int((output / "checkpoint").read_text()) if (output / "checkpoint").exists() else 0
signal.signal(signal.SIGTERM, signal.SIG_IGN if mode == "stubborn" else checkpoint)
said = {k: f"a secret of {len(v)}" if k == "TRAIN_KEY" else v for k, v in os.environ.items()}
print("environment", json.dumps(said), flush=True)
tell(phase="training", epoch=epoch)

if mode == "child":  # one that keeps the lock, one that leaves the session and drops it
    os.spawnvp(os.P_NOWAIT, "sleep", ["sleep", "1000"])
    subprocess.Popen(["sleep", "1000"], start_new_session=True, close_fds=True)
if mode == "fail":
    tell(phase="failed", message="loss is NaN\x1b[2J at epoch 1")
    sys.exit(1)
if mode == "crash":
    print("Traceback: no module named torch", file=sys.stderr)
    sys.exit(3)
if mode == "leaks":
    print("Traceback: 401 for https://hub/x?token=" + os.environ["HF_TOKEN"], file=sys.stderr)
    sys.exit(3)
if mode == "tells":
    tell(phase="failed", message="401 for https://hub/x?token=" + os.environ["HF_TOKEN"])
    sys.exit(1)
if mode == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if mode == "corrupt":
    replace("status.json", '{"phase": "tra\x00')
if mode == "link":
    os.symlink("/etc/passwd", output / "model.onnx")
    replace("train.json", "{}")
    tell(phase="done")
    sys.exit(0)
if mode == "empty":
    tell(phase="done")
    sys.exit(0)
if mode in ("hang", "stubborn", "child", "corrupt"):
    while True:
        time.sleep(1)

while epoch < epochs and not (output / "enough").exists():
    for _ in range(5):
        time.sleep(seconds / 5)
        tell()
    epoch += 1
    replace("checkpoint", str(epoch))
    with open(output / "metrics.jsonl", "a") as f:
        f.write(json.dumps({"epoch": epoch, "pid": os.getpid()}) + "\n")
    tell(epoch=epoch, map=min(1, epoch / epochs))

tell(phase="exporting")
(output / "model.onnx").write_text("weights")
replace("train.json", "{}")
with open(output / "completions", "a") as f:
    f.write(f"{os.getpid()}\n")
tell(phase="done")
