# Inputs: neighbour lists of two bundles; features and factors for the metrics that need them; settings of scores.
# Outputs: single scores; layer x layer matrices of all metrics in one file, and their calibrations in another; the matrix
# of one metric on request.


use rule recipe as alignment_settings with:
    output:
        paths.ALIGNMENT_SETTINGS,
    log:
        paths.log("alignment_settings"),
    localrule: True
    params:
        content=as_json(PLAN.alignment.settings),


use rule recipe as calibration_settings with:
    output:
        paths.CALIBRATION_SETTINGS,
    log:
        paths.log("calibration_settings"),
    localrule: True
    params:
        content=as_json(PLAN.alignment.calibration_settings),


use rule recipe as metrics_settings with:
    output:
        paths.METRICS_SETTINGS,
    log:
        paths.log("metrics_settings"),
    localrule: True
    params:
        content=as_json(PLAN.alignment.metrics_settings),


rule align:
    input:
        unpack(PLAN.alignment.features_and_factors),
        unpack(PLAN.alignment.manifest),
        neighbors_a=PLAN.alignment.neighbors("a"),
        neighbors_b=PLAN.alignment.neighbors("b"),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        score=paths.SCORE,
        recipe=paths.SCORE_RECIPE,
    log:
        paths.log("align", "metric", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        mem_mb=PLAN.alignment.memory(2000),
        runtime=60,
    params:
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        dataset=PLAN.alignment.dataset,
        condition=PLAN.alignment.condition,
    script:
        "../workflow_scripts/align.py"


# short path: default data set and condition
use rule align as align_default with:
    output:
        score=paths.DEFAULT_SCORE,
        recipe=paths.DEFAULT_SCORE_RECIPE,
    log:
        paths.log("align_default", "metric", "a", "b"),


rule align_layers:
    input:
        unpack(PLAN.alignment.all_metrics),
        unpack(PLAN.alignment.manifest),
        settings=paths.ALIGNMENT_SETTINGS,
        metrics=paths.METRICS_SETTINGS,
    output:
        paths.MATRICES,
    log:
        paths.log("align_layers", "dataset", "condition", "a", "b"),
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.alignment.memory(2000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        metrics=METRICS,
        seed=STUDY.seed,
    script:
        "../workflow_scripts/align_layers.py"


rule calibrate_layers:
    input:
        unpack(PLAN.alignment.all_metrics),
        unpack(PLAN.alignment.manifest),
        matrices=paths.MATRICES,
        settings=paths.ALIGNMENT_SETTINGS,
        metrics=paths.METRICS_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        paths.CALIBRATIONS,
    log:
        paths.log("calibrate_layers", "dataset", "condition", "a", "b"),
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.alignment.memory(2000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        metrics=METRICS,
    script:
        "../workflow_scripts/calibrate_layers.py"


# for readers of NumPy alone: one matrix, and its recipe beside it
rule layer_matrix:
    input:
        paths.MATRICES,
    output:
        matrix=paths.MATRIX,
        recipe=paths.MATRIX_RECIPE,
    log:
        paths.log("layer_matrix", "metric", "dataset", "condition", "a", "b"),
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
        code=PLAN.code("layer_matrix.py"),
    script:
        "../workflow_scripts/layer_matrix.py"
