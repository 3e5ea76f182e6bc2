# Inputs: neighbour lists of all bundles of a contrast; features and factors for the metrics that need them.
# Outputs: differences of two scores of the same images, one, those of a family, or one at every layer; a table of all
# that the study names, and figures.


rule contrast:
    input:
        unpack(PLAN.contrasts.inputs(PLAN.contrasts.of_target)),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        tsv=f"{paths.CONTRAST}.tsv",
        parquet=f"{paths.CONTRAST}.parquet",
    log:
        paths.log("contrast", "dataset", "condition", "a", "b", "c", "d"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        mem_mb=PLAN.contrasts.memory(4000, PLAN.contrasts.of_target),
        runtime=240,
    params:
        family="",
        compared=PLAN.contrasts.compared(PLAN.contrasts.of_target),
        bundles=PLAN.contrasts.bundles(PLAN.contrasts.of_target),
        metrics=METRICS,
        code=PLAN.code("contrast.py"),
    script:
        "../workflow_scripts/contrast.py"


use rule contrast as contrast_of_layers with:
    input:
        unpack(PLAN.contrasts.inputs(PLAN.contrasts.of_layers)),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        tsv=f"{paths.LAYER_CONTRAST}.tsv",
        parquet=f"{paths.LAYER_CONTRAST}.parquet",
    log:
        paths.log("contrast_of_layers", "dataset", "condition", "a", "b", "c", "d"),
    wildcard_constraints:
        a=TYPED,
        c=TYPED,
    resources:
        mem_mb=PLAN.contrasts.memory(4000, PLAN.contrasts.of_layers),
        runtime=480,
    params:
        family=lambda wildcards: names.print_contrast(wildcards.a, wildcards.b, wildcards.c, wildcards.d),
        compared=PLAN.contrasts.compared(PLAN.contrasts.of_layers),
        bundles=PLAN.contrasts.bundles(PLAN.contrasts.of_layers),
        metrics=METRICS,
        code=PLAN.code("contrast.py"),


use rule contrast as contrast_family with:
    input:
        unpack(PLAN.contrasts.inputs(PLAN.contrasts.of_family)),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        tsv=f"{paths.CONTRAST_FAMILY}.tsv",
        parquet=f"{paths.CONTRAST_FAMILY}.parquet",
    log:
        paths.log("contrast_family", "dataset", "condition", "family"),
    resources:
        mem_mb=PLAN.contrasts.memory(4000, PLAN.contrasts.of_family),
        runtime=480,
    params:
        family="{family}",
        compared=PLAN.contrasts.compared(PLAN.contrasts.of_family),
        bundles=PLAN.contrasts.bundles(PLAN.contrasts.of_family),
        metrics=METRICS,
        code=PLAN.code("contrast.py"),


rule contrasts_figure:
    input:
        table=f"{paths.CONTRAST_FAMILY}.parquet",
    output:
        figure(
            paths.CONTRAST_FIGURE,
            caption="contrasts",
            category="Contrasts",
            subcategory="{dataset}, {condition}",
            contrasts="{family}",
        ),
    log:
        paths.log("contrasts_figure", "dataset", "condition", "family"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.contrasts.miniature(PLAN.contrasts.of_family),
        code=PLAN.code("contrasts_figure.py"),
    script:
        "../workflow_scripts/contrasts_figure.py"


use rule contrasts_figure as contrasts_figure_of_layers with:
    input:
        table=f"{paths.LAYER_CONTRAST}.parquet",
    output:
        figure(
            paths.LAYER_CONTRAST_FIGURE,
            caption="contrasts",
            category="Contrasts",
            subcategory="{dataset}, {condition}",
            contrasts="{a} vs {b} minus {c} vs {d}",
        ),
    log:
        paths.log("contrasts_figure_of_layers", "dataset", "condition", "a", "b", "c", "d"),
    wildcard_constraints:
        a=TYPED,
        c=TYPED,
    params:
        miniature=PLAN.contrasts.miniature(PLAN.contrasts.of_layers),
        code=PLAN.code("contrasts_figure.py"),


rule contrasts_table:
    input:
        tables=PLAN.contrasts.tables(),
    output:
        **table("contrasts", "contrasts"),
    log:
        paths.log("contrasts_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=PLAN.code("contrasts_table.py"),
    script:
        "../workflow_scripts/contrasts_table.py"
