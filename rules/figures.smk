# Inputs: layer x layer matrices, their recipes and calibrations.
# Outputs: heat maps, curves over depth and null histograms of every pair; maps of all models; tables.


rule layer_maps_figure:
    input:
        matrices=paths.MATRICES,
        calibrations=paths.CALIBRATIONS,
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="layer_maps"),
            tabled=True,
            caption="layer_maps",
            category="Alignment, layer by layer",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="layer x layer",
        ),
    log:
        paths.log("layer_maps_figure", "dataset", "condition", "a", "b"),
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
        code=PLAN.code("layer_maps_figure.py"),
    script:
        "../workflow_scripts/layer_maps_figure.py"


rule depth_curves_figure:
    input:
        matrices=paths.MATRICES,
        calibrations=paths.CALIBRATIONS,
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="depth_curves"),
            tabled=True,
            caption="depth_curves",
            category="Alignment, layer by layer",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="over depth",
        ),
    log:
        paths.log("depth_curves_figure", "dataset", "condition", "a", "b"),
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
        relative=False,
        code=PLAN.code("depth_curves_figure.py"),
    script:
        "../workflow_scripts/depth_curves_figure.py"


# the same over relative depth, on request
use rule depth_curves_figure as relative_depth_curves_figure with:
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="relative_depth_curves"),
            tabled=True,
            caption="depth_curves",
            category="Alignment, layer by layer",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="over relative depth",
        ),
    log:
        paths.log("relative_depth_curves_figure", "dataset", "condition", "a", "b"),
    params:
        metrics=METRICS,
        # for the caption
        miniature=PLAN.figures.miniature("a", "b"),
        defaults=PLAN.figures.default_layers_of_pair,
        relative=True,
        code=PLAN.code("depth_curves_figure.py"),


rule null_histograms_figure:
    input:
        matrices=paths.MATRICES,
        calibrations=paths.CALIBRATIONS,
    output:
        figure(
            paths.fill(paths.PAIR_FIGURE, figure="null_histograms"),
            tabled=True,
            caption="null_histograms",
            category="Alignment, layer by layer",
            subcategory="{dataset}, {condition}",
            pair="{a} vs {b}",
            figure="nulls",
        ),
    log:
        paths.log("null_histograms_figure", "dataset", "condition", "a", "b"),
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
        code=PLAN.code("null_histograms_figure.py"),
    script:
        "../workflow_scripts/null_histograms_figure.py"


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
