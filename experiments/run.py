"""Run an experiment: arms x seeds, what is done left as it is, and a report at the end.

    python -m experiments.run experiments/NAME.toml [--quick] [--processes N] [--report]

Weights go to runs/experiments/NAME, records and scores to experiments/results/NAME. A run that was stopped goes on from
its last checkpoint. `--report` trains nothing and makes the tables out of the records that are there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from antiphon.errors import AntiphonError, ConfigError
from antiphon.files import write_whole
from experiments import job
from experiments.experiment import Experiment, read_experiment
from experiments.job import Job

HERE = Path(__file__).resolve().parent


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 2 where a run could not be done."""
    options = _parser().parse_args(arguments)
    try:
        return _main(options)
    except AntiphonError as error:
        _tell(f"error: {error}")
        return 2


def _main(options: argparse.Namespace) -> int:
    experiment = read_experiment(options.experiment)
    work, results = options.work, options.results
    if options.quick:
        experiment, results = experiment.quickened(), options.work / "quick"
    jobs = [
        Job(experiment=experiment, arm=arm, seed=seed, work=work / experiment.name, results=results / experiment.name)
        for arm, seed in experiment.runs(options.arms, options.seeds)
    ]
    failed = False if options.report else not run_all(jobs, options.processes)
    report(experiment, jobs)
    return 2 if failed else 0


def run_all(jobs: Sequence[Job], processes: int) -> bool:
    """Do the jobs that are not done and return whether all of them went well."""
    left = [one for one in jobs if not one.is_done()]
    _tell(f"{len(jobs) - len(left)} of {len(jobs)} runs are done")
    if not left:
        return True
    _write_texts(left[0].experiment, left[0].work)
    if processes == 1:
        return all(
            [_went_well(one.name, partial(job.run, one)) for one in left]
        )  # a list: one that fails stops no other
    # a process for each run: its memory goes back with it, and one that dies takes no other with it
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context, max_tasks_per_child=1) as pool:
        futures = {pool.submit(job.run, one): one for one in left}
        went_well = [_went_well(futures[future].name, future.result) for future in as_completed(futures)]
    return all(went_well)


def _went_well(name: str, result: Callable[[], str]) -> bool:
    """Tell what became of a run and return whether it was done."""
    try:
        _tell(result())
    except AntiphonError as error:
        _tell(f"{name}: {error}")
        return False
    return True


def report(experiment: Experiment, jobs: Sequence[Job]) -> None:
    """Print the tables of the runs that are scored, or trained at least, and write them with a picture.

    Raises ConfigError where there is none.
    """
    from experiments.tables import write_report

    begun = [one for one in jobs if one.is_done() or one.is_trained()]
    if not begun:
        raise ConfigError(f"No run of {experiment.name} is done, so there is nothing to report.")
    print(write_report(experiment, begun, work=begun[0].work / "report", results=begun[0].results))


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write_texts(experiment: Experiment, work: Path) -> None:
    """Write the texts that no training pair may hold."""
    texts = dict.fromkeys(text for text in job.evaluation_texts(experiment) if text.strip())
    work.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    write_whole(work / "evaluation-texts.jsonl", lines.encode())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", type=Path, help="a .toml file of experiments/")
    parser.add_argument("--quick", action="store_true", help="the small form, about ten minutes, kept apart")
    parser.add_argument("--report", action="store_true", help="train nothing, report what is there")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="runs at once, a core each")
    parser.add_argument("--arms", nargs="+", default=[], help="these alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="these alone")
    parser.add_argument("--work", type=Path, default=Path("runs/experiments"))
    parser.add_argument("--results", type=Path, default=HERE / "results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
