"""`mofo-train study`: when guidance pays, as curves."""

from __future__ import annotations

from pathlib import Path

import click

from mofo_train.commands import complete_recipe
from mofo_train.commands.helping import helpers, jobs_option, options, profile_option, set_option

EPILOG = """\b
Example:
  mofo-train study --jobs 2 --set seeds=2"""


@click.command(name="study", epilog=EPILOG)
@click.option(
    "--recipe", default="synthetic_study", shell_complete=complete_recipe, help="A study's recipe: curves and points."
)
@set_option
@profile_option
@click.option("--out", type=click.Path(path_type=Path), help="Folder of all stages.  [runs/synthetic-<profile>]")
@jobs_option
@click.option("--stages-only", is_flag=True, help="Finish the stages and draw nothing, to help another process.")
def command(
    recipe: str, overrides: tuple[str, ...], profile: str, out: Path | None, jobs: int, stages_only: bool
) -> int:
    """Draw the gain of guidance over VideoMAE against what it should depend on: a night on two cores.

    How large the action is, how much of it pretraining hides, and how good areas are. The same command resumes; stages
    are shared with the table in the same folder.
    """
    from mofo_train.config import load_recipe
    from mofo_train.errors import ExitCode
    from mofo_train.runtime.ranks import ranks_of_this_run
    from mofo_train.study.recipe import StudyConfig
    from mofo_train.study.run import folder_of, run_study
    from mofo_train.table.generated import generate_data, require_data

    study = load_recipe(StudyConfig, recipe, overrides)
    folder = out or Path("runs") / f"synthetic-{profile}"
    with ranks_of_this_run() as ranks:
        make = require_data if stages_only else generate_data
        if ranks.is_first:
            for scale, table in study.tables(profile).items():
                make(table, folder_of(folder, scale))
        ranks.gather(None)  # the others wait for the data
        helping = ["study", "--recipe", recipe, "--profile", profile, "--out", str(folder), *options({}, overrides)]
        with helpers(jobs, helping):
            result = run_study(study, profile, folder, ranks)
        if ranks.is_first and not stages_only:
            paths = result.write(folder)
            click.echo(result.markdown())
            click.echo("written: " + ", ".join(str(path) for path in paths))
    return ExitCode.OK
