# Inputs: neighbour lists of two representations; features and images where needed.
# Outputs, on request, of single pairs: tables per image, galleries, curves over k and N, other preparations.


rule per_image:
    input:
        unpack(PLAN.alignment.lists),
        unpack(PLAN.stimuli.manifest),
        settings=paths.ALIGNMENT_SETTINGS,
    output:
        table=paths.PER_IMAGE,
        recipe=paths.PER_IMAGE_RECIPE,
    log:
        paths.log("per_image", "dataset", "condition", "a", "b"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        code=PLAN.code("per_image.py"),
    script:
        "../workflow_scripts/per_image.py"


rule gallery_figure:
    input:
        unpack(PLAN.alignment.lists),
        unpack(PLAN.stimuli.pictures),
        settings=paths.ALIGNMENT_SETTINGS,
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="gallery"),
            tabled=True,
            caption="gallery",
            category="Single pairs",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="gallery",
        ),
    log:
        paths.log("gallery_figure", "dataset", "condition", "a", "b"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        # for the caption
        miniature=PLAN.figures.miniature("a", "b"),
        # of the lot among images that are equally aligned
        seed=STUDY.seed,
        code=PLAN.code("gallery_figure.py"),
    script:
        "../workflow_scripts/gallery_figure.py"


rule curves_table:
    input:
        unpack(PLAN.alignment.lists_and_features),
        unpack(PLAN.alignment.manifest),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        tsv=f"{paths.fill(paths.PAIR_TABLE, table='curves')}.tsv",
        parquet=f"{paths.fill(paths.PAIR_TABLE, table='curves')}.parquet",
    log:
        paths.log("curves_table", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.alignment.memory(4000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        metrics=METRICS,
        code=PLAN.code("curves_table.py"),
    script:
        "../workflow_scripts/curves_table.py"


rule curves_figure:
    input:
        table=f"{paths.fill(paths.PAIR_TABLE, table='curves')}.tsv",
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="curves"),
            caption="curves",
            category="Single pairs",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="over k and N",
        ),
    log:
        paths.log("curves_figure", "dataset", "condition", "a", "b"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.figures.miniature("a", "b"),
        code=PLAN.code("curves_figure.py"),
    script:
        "../workflow_scripts/curves_figure.py"


rule sensitivity_table:
    input:
        unpack(PLAN.alignment.lists_and_features),
        unpack(PLAN.alignment.manifest),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        tsv=f"{paths.fill(paths.PAIR_TABLE, table='sensitivity')}.tsv",
        parquet=f"{paths.fill(paths.PAIR_TABLE, table='sensitivity')}.parquet",
    log:
        paths.log("sensitivity_table", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        # all layers are in memory where they are clamped together
        mem_mb=PLAN.alignment.memory(4000 + STUDY.compute.memory_mb, all_layers=True),
        runtime=240,
    params:
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        metrics=METRICS,
        code=PLAN.code("sensitivity_table.py"),
    script:
        "../workflow_scripts/sensitivity_table.py"
