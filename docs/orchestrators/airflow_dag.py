"""An Airflow DAG that trains, evaluates and judges one model: airflow dags test aob --conf '{"model": "shapes"}'"""

from datetime import timedelta

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG, Param

PLACE = '--config "$AOB_CONFIG" --dir "$AOB_INTENT" --work "$AOB_WORK"'
FILES = "$AOB_WORK/{{ params.model }}"

with DAG(
    "aob",
    schedule=None,
    catchup=False,
    params={"model": Param("shapes", type="string", pattern="^[a-z0-9-]+$")},
    default_args={"retries": 2, "retry_delay": timedelta(minutes=1)},
):
    train = BashOperator(
        task_id="train",
        bash_command=f'aob train {{{{ params.model }}}} {PLACE} -o json >"{FILES}.trained.json"',
    )
    evaluate = BashOperator(
        task_id="evaluate",
        bash_command=f'aob eval --trained "{FILES}.trained.json" {PLACE} -o json >"{FILES}.scores.json"',
    )
    judge = BashOperator(
        task_id="judge",
        retries=0,
        bash_command=f'aob gate judge --scores "{FILES}.scores.json" --dir "$AOB_INTENT" -o json '
        f'>"{FILES}.verdicts.json"',
    )
    train >> evaluate >> judge
