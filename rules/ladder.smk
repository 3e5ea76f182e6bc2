# Inputs: features of a pair of layers, of its untrained twins, of pure noise and of controls; the manifest.
# Outputs: what controls reach in the place of a layer, and what is left of the score given them; one figure a pair.


rule ladder:
    input:
        unpack(PLAN.ladder.inputs),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        tsv=f"{paths.fill(paths.PAIR_TABLE, table='ladder')}.tsv",
        parquet=f"{paths.fill(paths.PAIR_TABLE, table='ladder')}.parquet",
    log:
        paths.log("ladder", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.ladder.memory(4000 + STUDY.compute.memory_mb),
        runtime=480,
    params:
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        controls=PLAN.ladder.controls,
        components=STUDY.ladder.components,
        permutations=STUDY.ladder.permutations,
        metrics=METRICS,
        k=STUDY.alignment.k,
        preparation=vars(STUDY.alignment.preparation),
        seed=STUDY.seed,
        code=PLAN.code("ladder.py"),
    script:
        "../workflow_scripts/ladder.py"


rule ladder_figure:
    input:
        table=f"{paths.fill(paths.PAIR_TABLE, table='ladder')}.tsv",
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="ladder"),
            caption="ladder",
            category="Single pairs",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="ladder of nulls",
        ),
    log:
        paths.log("ladder_figure", "dataset", "condition", "a", "b"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        alpha=STUDY.alignment.alpha,
        # for the caption
        miniature=PLAN.figures.miniature("a", "b"),
        code=PLAN.code("ladder_figure.py"),
    script:
        "../workflow_scripts/ladder_figure.py"
