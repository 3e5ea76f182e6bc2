# Inputs: features of a model and of its untrained twin at every noise level, of what they are compared with and of
# controls; the manifest, for labels.
# Outputs: alignment of every layer at every level, and what is left of it beyond controls; maps.


rule atlas:
    input:
        unpack(PLAN.atlas.inputs),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        **PLAN.atlas.outputs(),
    log:
        paths.log("atlas", "dataset", "condition", "a"),
    wildcard_constraints:
        a=TYPED,
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.atlas.memory(4000 + STUDY.compute.memory_mb),
        runtime=480,
    params:
        levels=list(STUDY.atlas.passes),
        reference_layer=PLAN.atlas.reference_layer,
        controls=PLAN.atlas.controls(),
        components=STUDY.atlas.components,
        metrics=METRICS,
        k=STUDY.alignment.k,
        preparation=vars(STUDY.alignment.preparation),
        seed=STUDY.seed,
        code=PLAN.code("atlas.py"),
    script:
        "../workflow_scripts/atlas.py"


rule atlas_figure:
    input:
        **PLAN.atlas.figure_inputs(),
    output:
        figure(
            paths.ATLAS_FIGURE,
            caption="atlas",
            category="Noise levels",
            subcategory="{dataset}, {condition}",
            model="{a}",
            metric="{metric}",
        ),
    log:
        paths.log("atlas_figure", "dataset", "condition", "metric", "a"),
    wildcard_constraints:
        a=TYPED,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.atlas.miniature,
        code=PLAN.code("atlas_figure.py"),
    script:
        "../workflow_scripts/atlas_figure.py"
