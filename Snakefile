# diffalign: how alike are the representations of vision, diffusion and language models, and of people?
# The stages, in the order in which files are made; each rule file opens with what it needs and what it makes.
from snakemake.logging import logger
from snakemake.utils import min_version

min_version("9.20")


configfile: "config.yaml"


report: "report/workflow.rst"


include: "rules/common.smk"


# what report/workflow.rst says of the study
config["report"] = PLAN.figures.report_facts()


wildcard_constraints:
    dataset=names.any_of(STUDY.datasets),
    condition=names.any_of(STUDY.conditions),
    metric=names.any_of(METRICS),
    configuration=PLAN.dynamics.configurations,
    space=PLAN.shared_space.spaces,
    scores=names.any_of(PLAN.layouts.scores),
    model=CHECKPOINT,
    bundle=TYPED,
    a=NAME,
    b=NAME,
    c=NAME,
    d=NAME,
    family=PLAN.contrasts.families,


onstart:
    if workflow.executor_plugin.name == "slurm":
        cluster.check_slurm(workflow.executor_settings)


onerror:
    said = failures.advice("".join(Path(file).read_text(errors="replace") for file in log))
    if said:
        print(said, file=sys.stderr)


rule all:
    input:
        PLAN.everything(),
    localrule: True


rule all_models:
    input:
        PLAN.figures.scores_of_all_models(),
    localrule: True


include: "rules/stimuli.smk"
include: "rules/weights.smk"
include: "rules/training.smk"
include: "rules/latents.smk"
include: "rules/features.smk"
include: "rules/samples.smk"
include: "rules/language.smk"
include: "rules/alignment.smk"
include: "rules/findings.smk"
include: "rules/figures.smk"
include: "rules/single_pairs.smk"
include: "rules/uncertainty.smk"
include: "rules/through_training.smk"
include: "rules/atlas.smk"
include: "rules/contrasts.smk"
include: "rules/ladder.smk"
include: "rules/dynamics.smk"
include: "rules/shared_space.smk"
include: "rules/se_cknna.smk"
include: "rules/human.smk"
include: "rules/layouts.smk"
include: "rules/audit.smk"
include: "rules/cost.smk"


# for targets that no rule makes
targets.Answers(workflow, STUDY, KNOWN_METRICS).install(logger)
