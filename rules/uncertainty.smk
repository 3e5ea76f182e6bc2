# Inputs: features of two representations, of redraws of their noise and of trainings with other seeds; scores under
# other preparations.
# Outputs, on request, of single pairs: where the spread of scores comes from, and what a study of this size can show;
# of a reference: how firmly the models beside it stand in their order.


rule variance_table:
    input:
        unpack(PLAN.variance.inputs),
        settings=paths.ALIGNMENT_SETTINGS,
    output:
        tsv=f"{paths.fill(paths.PAIR_TABLE, table='variance')}.tsv",
        parquet=f"{paths.fill(paths.PAIR_TABLE, table='variance')}.parquet",
    log:
        paths.log("variance_table", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.alignment.memory(4000 + STUDY.compute.memory_mb, all_layers=True),
        runtime=240,
    params:
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        metrics=METRICS,
        k=STUDY.alignment.k,
        preparation=vars(STUDY.alignment.preparation),
        seed=STUDY.seed,
        code=PLAN.code("variance_table.py"),
    script:
        "../workflow_scripts/variance_table.py"


rule variance_figure:
    input:
        table=f"{paths.fill(paths.PAIR_TABLE, table='variance')}.tsv",
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="variance"),
            caption="variance",
            category="Single pairs",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="variance budget",
        ),
    log:
        paths.log("variance_figure", "dataset", "condition", "a", "b"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.figures.miniature("a", "b"),
        code=PLAN.code("variance_figure.py"),
    script:
        "../workflow_scripts/variance_figure.py"


rule power_table:
    input:
        unpack(PLAN.alignment.features),
        unpack(PLAN.alignment.manifest),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        tsv=f"{paths.fill(paths.PAIR_TABLE, table='power')}.tsv",
        parquet=f"{paths.fill(paths.PAIR_TABLE, table='power')}.parquet",
    log:
        paths.log("power_table", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.alignment.memory(4000 + STUDY.compute.memory_mb),
        runtime=480,
    params:
        **dict(STUDY.alignment.power),
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        metrics=METRICS,
        k=STUDY.alignment.k,
        preparation=vars(STUDY.alignment.preparation),
        seed=STUDY.seed,
        code=PLAN.code("power_table.py"),
    script:
        "../workflow_scripts/power_table.py"


rule rank_stability:
    input:
        unpack(PLAN.variance.order_inputs),
        settings=paths.ALIGNMENT_SETTINGS,
    output:
        **PLAN.variance.order_outputs(),
    log:
        paths.log("rank_stability", "dataset", "condition", "a"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.variance.order_memory(4000 + STUDY.compute.memory_mb),
        runtime=480,
    params:
        layers=PLAN.variance.order_layers,
        layer=PLAN.alignment.layer_a,
        metrics=METRICS,
        k_max=STUDY.alignment.k_max,
        preparation=vars(STUDY.alignment.preparation),
        seed=STUDY.seed,
        code=PLAN.code("rank_stability.py"),
    script:
        "../workflow_scripts/rank_stability.py"


rule rank_stability_figure:
    input:
        table=PLAN.variance.order_outputs()["orders_tsv"],
    output:
        figure(
            paths.RANK_STABILITY_FIGURE,
            caption="rank_stability",
            category="Alignment, all models",
            subcategory="{dataset}, {condition}",
            reference="{a}",
            figure="rank stability",
        ),
    log:
        paths.log("rank_stability_figure", "dataset", "condition", "a"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.variance.order_miniature,
        code=PLAN.code("rank_stability_figure.py"),
    script:
        "../workflow_scripts/rank_stability_figure.py"
