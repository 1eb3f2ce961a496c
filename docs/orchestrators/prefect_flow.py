"""A Prefect flow that checks, trains, evaluates and judges one model: python prefect_flow.py MODEL"""

import json
import os
import subprocess
import sys
from pathlib import Path

from prefect import flow, task

CONFIG = os.environ["AOB_CONFIG"]
INTENT = os.environ.get("AOB_INTENT", ".")
PLACE = ["--config", CONFIG, "--dir", INTENT]


def aob(*words: str, to: str) -> Path:
    """Runs aob and returns the file with its JSON. What it says while it works goes to standard error."""
    with open(to, "wb") as out:
        subprocess.run(["aob", *words, "-o", "json"], stdout=out, check=True)
    return Path(to)


@task(retries=2, retry_delay_seconds=60)
def train(model: str) -> Path:
    return aob("train", model, *PLACE, to=f"{model}.trained.json")


@task(retries=2, retry_delay_seconds=60)
def evaluate(model: str, trained: Path) -> Path:
    return aob("eval", "--trained", str(trained), *PLACE, to=f"{model}.scores.json")


@task
def judge(model: str, scores: Path) -> Path:
    return aob("gate", "judge", "--scores", str(scores), "--dir", INTENT, to=f"{model}.verdicts.json")


@flow
def prepare(model: str) -> dict[str, str]:
    """Returns the outcome of each gate. It fails where a gate does."""
    verdicts = json.loads(judge(model, evaluate(model, train(model))).read_text())
    return {v["gate"]: v["outcome"] for v in verdicts}


if __name__ == "__main__":
    print(prepare(sys.argv[1]))
