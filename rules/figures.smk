# Inputs: layer x layer matrices, their recipes and calibrations.
# Outputs: heat maps, curves over depth and null histograms of every pair; maps of all models; tables.


rule pair_figures:
    input:
        matrices=paths.MATRICES,
        calibrations=paths.CALIBRATIONS,
    output:
        layer_maps=figure_of_pair("layer_maps", shown="layer x layer"),
        depth_curves=figure_of_pair("depth_curves", shown="over depth"),
        null_histograms=figure_of_pair("null_histograms", shown="nulls"),
    log:
        paths.log("pair_figures", "dataset", "condition", "a", "b"),
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        metrics=METRICS,
        # for the captions
        miniature=PLAN.figures.miniature("a", "b"),
        defaults=PLAN.figures.default_layers_of_pair,
        code=PLAN.code("pair_figures.py"),
    script:
        "../workflow_scripts/pair_figures.py"


# curves over relative depth, on request
rule relative_depth_curves_figure:
    input:
        matrices=paths.MATRICES,
        calibrations=paths.CALIBRATIONS,
    output:
        figure_of_pair("relative_depth_curves", shown="over relative depth", caption="depth_curves"),
    log:
        paths.log("relative_depth_curves_figure", "dataset", "condition", "a", "b"),
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        metrics=METRICS,
        # for the caption
        miniature=PLAN.figures.miniature("a", "b"),
        defaults=PLAN.figures.default_layers_of_pair,
        code=PLAN.code("relative_depth_curves_figure.py"),
    script:
        "../workflow_scripts/relative_depth_curves_figure.py"


rule model_maps_figure:
    input:
        unpack(PLAN.alignment.of_condition),
    output:
        **{
            metric: figure(
                paths.fill(paths.METRIC_FIGURE, figure="model_maps", metric=metric),
                tabled=True,
                caption="model_maps",
                category="Models",
                subcategory="{dataset}, {condition}",
                metric=metric,
                figure="all pairs",
            )
            for metric in METRICS
        },
    log:
        paths.log("model_maps_figure", "dataset", "condition"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        metrics=METRICS,
        # for the caption
        miniature=PLAN.figures.miniature_study,
        defaults=PLAN.figures.default_layers_of_study,
        code=PLAN.code("model_maps_figure.py"),
    script:
        "../workflow_scripts/model_maps_figure.py"


rule alignment_table:
    input:
        unpack(PLAN.alignment.all_matrices),
    output:
        **table("alignment", "all scores"),
    log:
        paths.log("alignment_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        metrics=METRICS,
        defaults=PLAN.figures.default_layers_of_study,
        code=PLAN.code("alignment_table.py"),
    script:
        "../workflow_scripts/alignment_table.py"


rule pairs_table:
    input:
        unpack(PLAN.alignment.all_matrices),
    output:
        **table("pairs", "pairs of models"),
    log:
        paths.log("pairs_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        metrics=METRICS,
        defaults=PLAN.figures.default_layers_of_study,
        code=PLAN.code("pairs_table.py"),
    script:
        "../workflow_scripts/pairs_table.py"
