"""Stages reports on Spark: Parquet in, Parquet out, one model in each of Spark's Python workers.

    spark-submit stage_on_spark.py /shared/reports.parquet --out /shared/staging

The rows in `/shared/staging/results` are those of results.parquet, carried columns included, in Spark's own files and
order. Answers are kept in `ledger.sqlite` beside them: run again after a stop, no finished report is read twice. All
machines need medorchestra and the model, and see `--out` under the same path. A partition is the work of one worker:
`repartition` the reports where there are fewer of them than workers. Spark itself writes report text to its own
folders where it shuffles or runs out of memory: `repartition` does.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema

import medorchestra as mo
from medorchestra.local.scale_out import EngineChoice, RowOptions, StagingJob, stage_frames
from medorchestra.local.shared_ledger import gather


def stage_on_spark(spark: SparkSession, source: str, job: StagingJob, out: str) -> DataFrame:
    """Stage the reports of Parquet files into Parquet files; gives the result rows."""
    spark.conf.set("spark.sql.execution.arrow.maxRecordsPerBatch", "100")  # so many reports a worker holds at a time
    reports = spark.read.parquet(source)
    columns = reports.limit(0).toArrow().schema
    schema = from_arrow_schema(job.schema(columns), prefer_timestamp_ntz=True)
    staged = reports.mapInPandas(partial(stage_frames, job=job), schema)
    staged.write.mode("overwrite").parquet(out)
    return spark.read.parquet(out)


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line and stage. Spark says what stops it: kinds, ids and counts, never report text."""
    parser = argparse.ArgumentParser(description="Stage reports on Spark.")
    parser.add_argument("source", help="Parquet file or folder, as Spark names it")
    parser.add_argument("--out", type=Path, required=True, help="folder for results and ledger, shared by all machines")
    parser.add_argument("--plan", default="pancreatic_cancer", help="topic or path of a plan")
    parser.add_argument("--model", default="default", help="'default' or path of a GGUF file, the same on all machines")
    parser.add_argument("--unvalidated", action="store_true", help="run a plan that was not rehearsed with this model")
    asked = parser.parse_args(arguments)
    out = asked.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    ledger, options = out / "ledger.sqlite", RowOptions(unvalidated=asked.unvalidated)
    job = StagingJob(mo.read_plan(asked.plan), EngineChoice(asked.model, threads=1), ledger, options)
    gather(ledger)  # of earlier runs' workers; not at the end, when those of this run still hold their files open
    spark = SparkSession.builder.appName("medorchestra").getOrCreate()
    staged = stage_on_spark(spark, asked.source, job, f"file://{out}/results")
    staged.groupBy("status").count().show()


if __name__ == "__main__":
    main()
