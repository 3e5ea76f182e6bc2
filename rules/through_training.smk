# Inputs: features of every checkpoint of the trainings of the study, and of what they are compared with; a table of the
# quality of samples.
# Outputs: alignment of every checkpoint and layer; means over trainings, differences between recipes, correlation with
# quality; figures.


rule training_alignment:
    input:
        **PLAN.through_training.inputs(),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        **PLAN.through_training.alignment,
    log:
        paths.log("training_alignment"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.through_training.memory(4000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        **PLAN.through_training.where,
        checkpoints=PLAN.through_training.checkpoints(),
        reference_layer=PLAN.through_training.reference_layer,
        metrics=METRICS,
        k=STUDY.alignment.k,
        preparation=vars(STUDY.alignment.preparation),
        seed=STUDY.seed,
        code=PLAN.code("training_alignment.py"),
    script:
        "../workflow_scripts/training_alignment.py"


rule through_training_table:
    input:
        **PLAN.through_training.table_inputs(),
    output:
        **PLAN.through_training.tables
        | {
            f"{name}_tsv": reported(PLAN.through_training.tables[f"{name}_tsv"], label, "through_training_table")
            for name, label in (
                ("steps", "alignment and quality through training"),
                ("contrasts", "differences between recipes"),
                ("correlations", "alignment and quality at the same step"),
            )
        },
    log:
        paths.log("through_training_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        measures=list(STUDY.through_training.quality),
        seed=STUDY.seed,
        code=PLAN.code("through_training_table.py"),
    script:
        "../workflow_scripts/through_training_table.py"


rule training_maps_figure:
    input:
        alignment=PLAN.through_training.alignment["tsv"],
    output:
        figure(
            paths.fill(paths.METRIC_FIGURE, figure="training_maps"),
            caption="training_maps",
            category="Training",
            subcategory="{dataset}, {condition}",
            metric="{metric}",
            figure="layers through training",
        ),
    log:
        paths.log("training_maps_figure", "dataset", "condition", "metric"),
    wildcard_constraints:
        **PLAN.through_training.where,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.through_training.miniature,
        code=PLAN.code("training_maps_figure.py"),
    script:
        "../workflow_scripts/training_maps_figure.py"


rule through_training_figure:
    input:
        **PLAN.through_training.figure_inputs(),
    output:
        figure(
            paths.fill(paths.METRIC_FIGURE, figure="through_training"),
            caption="through_training",
            category="Training",
            subcategory="{dataset}, {condition}",
            metric="{metric}",
            figure="alignment and quality through training",
        ),
    log:
        paths.log("through_training_figure", "dataset", "condition", "metric"),
    wildcard_constraints:
        **PLAN.through_training.where,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        measure=PLAN.through_training.measure,
        # for the caption
        miniature=PLAN.through_training.miniature,
        code=PLAN.code("through_training_figure.py"),
    script:
        "../workflow_scripts/through_training_figure.py"
