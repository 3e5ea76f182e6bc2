# Shared by all rules: the checked study, and the plan that maps it to files. No rules here.
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.current_basedir).parent
sys.path.insert(0, str(ROOT / "workflow_scripts"))

from diffalign import names
from diffalign.alignment.metrics import METRICS as KNOWN_METRICS
from diffalign.conditions import CLEAN
from diffalign.config import site, study
from diffalign.config.catalogue import read_catalogue
from diffalign.models import all_families
from diffalign.plan import Plan, cluster, failures, paths, targets
from diffalign.plan.stage import any_or_none, as_json, memory

FAMILIES = all_families()
try:
    STUDY = study.load(config, read_catalogue(ROOT / "catalogue"), FAMILIES, KNOWN_METRICS)
    # a job of a call is given what the call was
    if workflow.is_main_process:
        site.check_unchanged(config, map(Path, workflow.configfiles), ROOT / "profiles/slurm/site.yaml")
except study.ConfigError as error:
    files = " + ".join(dict.fromkeys(str(Path(path).resolve()) for path in workflow.configfiles))
    raise WorkflowError(f"The configuration ({files}) has {len(error.mistakes)} mistake(s):\n{error}") from None

PLAN = Plan(STUDY, FAMILIES)
METRICS = PLAN.alignment.metrics
# a model, with its step where it has several checkpoints
CHECKPOINT = names.checkpoint_pattern(STUDY.models)
# model and variant; the same with an optional layer
TYPED = names.name_pattern(STUDY.models)
NAME = names.name_pattern(STUDY.models, layer=True)

# of rules that write what the plan says: a shell starts in no time, Python with its libraries does not
WRITE_CONTENT = (
    "(printf '%s\\n' {params.content:q} > {output:q}.part && mv {output:q}.part {output:q}"
    " && echo wrote {output:q}) > {log:q} 2>&1"
)


def below_prefix(path):
    """A folder that is no output, where outputs lie also for a workflow that uses this one under a prefix."""
    return str(workflow.modifier.path_modifier.replace_prefix(path))


def figure(stem, caption, category, subcategory, tabled=False, **labels):
    """Output files of a figure: a PNG, which is in the report, and a PDF; and where it is drawn from anything but a
    table, what it shows as one, TSV and Parquet.
    """
    shown = report(
        f"{stem}.png",
        caption=f"../report/{caption}.rst",
        category=category,
        subcategory=subcategory,
        labels=labels,
    )
    return [shown, f"{stem}.pdf", *([f"{stem}.tsv", f"{stem}.parquet"] if tabled else [])]


def figure_of_pair(name, shown, caption=None):
    """Output files of a figure of all layers of a pair. shown: its label in the report. caption: where it is not `name`."""
    return figure(
        paths.fill(paths.PAIR_FIGURE, figure=name),
        tabled=True,
        caption=caption or name,
        category="Alignment, layer by layer",
        subcategory="{dataset}, {condition}",
        pair="{a} vs {b}",
        figure=shown,
    )


def table(name, label, caption=None):
    """Output files of a table: a TSV, which is in the report, and a Parquet file."""
    stem = paths.fill(paths.TABLE, table=name)
    return {"tsv": reported(f"{stem}.tsv", label, caption or f"{name}_table"), "parquet": f"{stem}.parquet"}


def reported(path, label, caption):
    """A table that is in the report."""
    return report(path, caption=f"../report/{caption}.rst", category="Tables", labels={"table": label})
