#!/usr/bin/env python3
"""Time COCO evaluators beside each other: whole processes, from files to the twelve numbers.

    peers.py AOB CASE        AOB is the program, CASE a folder with gt.json and dt.json
    peers.py --growth AOB MAKE_CASE
                             how aob's time grows: MAKE_CASE writes the cases

Peers that this Python cannot import are named, and left out.
"""
import json, os, resource, subprocess, sys, tempfile, time

NAMES = "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl".split()
PEER = """
import json, sys
from {module} import COCO
from {module2} import {evaluator} as COCOeval
truth = COCO(sys.argv[1]); e = COCOeval(truth, truth.loadRes(sys.argv[2]), "bbox")
e.evaluate(); e.accumulate(); e.summarize()
print("NUMBERS", json.dumps([float(v) for v in e.stats[:12]]))
"""
PEERS = {
    "pycocotools": PEER.format(module="pycocotools.coco", module2="pycocotools.cocoeval", evaluator="COCOeval"),
    "faster_coco_eval": PEER.format(module="faster_coco_eval", module2="faster_coco_eval", evaluator="COCOeval_faster"),
}


def run(command):
    """Seconds, CPU seconds and MB of a process, and what it printed."""
    with tempfile.TemporaryFile() as out:
        start = time.monotonic()
        p = subprocess.Popen(command, stdout=out)
        _, status, used = os.wait4(p.pid, 0)
        seconds = time.monotonic() - start
        if status != 0:
            sys.exit(f"{command[0]}: exit status {status}")
        out.seek(0)
        return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, out.read().decode()


def best(command, times):
    return min((run(command) for _ in range(times)), key=lambda r: r[0])


def compare(aob, case):
    gt, dt = (os.path.join(case, name) for name in ("gt.json", "dt.json"))
    command = [aob, "eval", "--truth", gt, "--detections", dt, "--mode", "strict", "-o", "json"]
    ours = best(command, 5)
    numbers = {"aob eval": [json.loads(ours[3])["stats"][n] for n in NAMES]}
    rows = {"aob eval": ours}
    for name, program in PEERS.items():
        if subprocess.run([sys.executable, "-c", f"import {name}"], stderr=subprocess.DEVNULL).returncode != 0:
            print(f"{name}: {sys.executable} cannot import it; left out")
            continue
        rows[name] = run([sys.executable, "-c", program, gt, dt])
        line = next(l for l in rows[name][3].splitlines() if l.startswith("NUMBERS "))
        numbers[name] = json.loads(line[8:])
    again = best(command, 5)  # the machine may be quieter now, or busier
    rows["aob eval"] = min(ours, again, key=lambda r: r[0])
    print("| program | seconds | CPU seconds | MB | times aob eval | bit-equal to aob |\n| --- | --- | --- | --- | --- | --- |")
    for name, (seconds, cpu, mb, _) in rows.items():
        equal = sum(a == b for a, b in zip(numbers[name], numbers["aob eval"]))
        print(f"| {name} | {seconds:.2f} | {cpu:.2f} | {mb:.0f} | {seconds / rows['aob eval'][0]:.0f} | {equal} of 12 |")
    against = [aob, "eval", "--truth", gt, "--detections", dt, "--against", dt, "--resamples", "1000"]
    seconds, cpu, mb, _ = best(against, 2)
    print(f"\nwith --against and 1000 resamples: {seconds:.2f} s, {cpu:.2f} CPU seconds, {mb:.0f} MB")


def growth(aob, make):
    print("| images | classes | detections an image | detections | seconds | CPU seconds | MB |\n| --- | --- | --- | --- | --- | --- | --- |")
    for images, classes, dets in [(500, 80, 100), (5000, 80, 100), (500, 80, 1000), (500, 800, 100)]:
        with tempfile.TemporaryDirectory() as case:
            subprocess.run([sys.executable, make, "--images", str(images), "--classes", str(classes), "--dets", str(dets), case], check=True, stdout=subprocess.DEVNULL)
            command = [aob, "eval", "--truth", f"{case}/gt.json", "--detections", f"{case}/dt.json", "-o", "json"]
            seconds, cpu, mb, text = best(command, 5)
            print(f"| {images} | {classes} | {dets} | {json.loads(text)['detections']} | {seconds:.2f} | {cpu:.2f} | {mb:.0f} |")


if sys.argv[1] == "--growth":
    growth(*sys.argv[2:])
else:
    load = os.getloadavg()[0]
    print(f"load when it began: {load:.1f}, on {len(os.sched_getaffinity(0))} processors")
    compare(*sys.argv[1:])
