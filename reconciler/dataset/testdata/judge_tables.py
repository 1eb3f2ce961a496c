"""Loads validation results of AOB, and lets Great Expectations judge the same tables.

    judge_tables.py FOLDER...

Each folder has validation.json, and TABLE.csv with TABLE.suite.json for each table. Where a verdict or a row differs, a
line says so. The last line says how many expectations were compared, and how many of them failed.
"""

import glob
import json
import os
import sys

os.environ["GX_ANALYTICS_ENABLED"] = "false"
import great_expectations as gx
import pandas
from great_expectations.core.expectation_suite import expectationSuiteSchema
from great_expectations.core.expectation_validation_result import ExpectationSuiteValidationResultSchema

context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = {"globally": False}
source = context.data_sources.add_pandas("aob")
whole = {}  # batch definitions by table


def judge(suite, table):
    """Runs a suite over a table, and returns what Great Expectations says."""
    about = suite["meta"]["aob"]
    name = about["table"]
    frame = pandas.read_csv(
        table, dtype={c: "str" for c in about["texts"]}, keep_default_na=False, na_values=[""], float_precision="round_trip"
    )
    if name not in whole:
        whole[name] = source.add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
    batch = whole[name].get_batch({"dataframe": frame})
    loaded = gx.ExpectationSuite(**expectationSuiteSchema.load(suite))
    return batch.validate(
        loaded, result_format={"result_format": "COMPLETE", "unexpected_index_column_names": about["index"]}
    ).to_json_dict()


def rows(result, index):
    """Returns the rows against an expectation, by the columns that say which row it is."""
    return sorted(str([row[c] for c in index]) for row in result["result"].get("unexpected_index_list") or [])


compared = failed = different = 0
judged = {}  # what Great Expectations says by suite and content of the table, since many folders have equal tables
for folder in sys.argv[1:]:
    with open(os.path.join(folder, "validation.json")) as f:
        ours = ExpectationSuiteValidationResultSchema().load(json.load(f)).to_json_dict()
    verdicts = {}
    for r in ours["results"]:
        config = r["expectation_config"]
        verdicts[(config["meta"]["aob"]["rule"], config["severity"])] = r
    for path in sorted(glob.glob(os.path.join(folder, "*.suite.json"))):
        with open(path) as f:
            suite = json.load(f)
        index = suite["meta"]["aob"]["index"]
        table = path.replace(".suite.json", ".csv")
        with open(table, "rb") as f:
            key = json.dumps(suite), f.read()
        if key not in judged:
            judged[key] = judge(suite, table)
        for theirs in judged[key]["results"]:
            config = theirs["expectation_config"]
            key = config["meta"]["aob"]["rule"], config["severity"]
            mine = verdicts.pop(key)
            compared += 1
            failed += not theirs["success"]
            for what, a, b in [
                ("success", mine["success"], theirs["success"]),
                ("rows", rows(mine, index), rows(theirs, index)),
                *[
                    (n, mine["result"].get(n), theirs["result"].get(n))
                    for n in ["element_count", "unexpected_count", "missing_count", "unexpected_percent"]
                ],
            ]:
                if a != b:
                    different += 1
                    print(f"{folder}: {key}: {what} {a}, and Great Expectations has {b} {theirs['exception_info']}")
    for key in verdicts:
        different += 1
        print(f"{folder}: {key}: in no suite")
print(json.dumps({"compared": compared, "failed": failed, "different": different}))
