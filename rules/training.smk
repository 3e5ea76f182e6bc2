# Inputs: images of a data set or their latents, tokens of a teacher, and the recipe of a training.
# Outputs: a checkpoint of every step that an entry names, with weights.json, and the losses; one rule a model.


rule training_recipe:
    output:
        paths.TRAINING_RECIPE,
    log:
        paths.log("training_recipe", "model"),
    wildcard_constraints:
        model=any_or_none(PLAN.training.models),
    # before all that can wait: a training that begins late is what everything waits for at the end
    priority: 10
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    params:
        content=as_json(PLAN.training.recipe),
    shell:
        WRITE_CONTENT


for name in PLAN.training.models:

    # one thread, since sums of floats, and so weights, depend on the number of threads
    rule:
        name:
            PLAN.training.rule_name(name)
        input:
            unpack(PLAN.training.inputs(name)),
        output:
            checkpoints=[directory(folder) for folder in PLAN.training.outputs(name)["checkpoints"]],
            records=PLAN.training.outputs(name)["records"],
            tsv=PLAN.training.outputs(name)["tsv"],
            parquet=PLAN.training.outputs(name)["parquet"],
        log:
            paths.fill(paths.log("train", "model"), model=name),
        priority: 10
        conda:
            "../envs/models.yaml"
        threads: 1
        resources:
            **PLAN.cluster.gpus(),
            device=STUDY.compute.device,
            workers=STUDY.compute.workers,
            memory_mb=STUDY.compute.memory_mb,
            mem_mb=memory(8000),
            runtime=1440,
        params:
            steps=PLAN.training.steps(name),
            teacher_layer=PLAN.training.teacher_layer(name),
            state=below_prefix(paths.fill(paths.TRAINING_STATE, model=name)),
        script:
            "../workflow_scripts/train.py"


rule losses_figure:
    input:
        tables=PLAN.training.losses_of,
    output:
        figure(paths.LOSSES_FIGURE, "losses", "Training", "Losses", figure="{loss}"),
    log:
        paths.log("losses_figure", "loss"),
    wildcard_constraints:
        loss=any_or_none(PLAN.training.figures()),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        recipes=PLAN.training.recipes(),
        code=PLAN.code("losses_figure.py"),
    script:
        "../workflow_scripts/losses_figure.py"
