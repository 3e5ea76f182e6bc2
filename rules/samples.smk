# Inputs: checkpoints of class-conditional models and their autoencoders, latents and features of held-out images.
# Outputs: samples of every class, their quality beside held-out images, a table of it, and sheets of samples.


rule samples_recipe:
    output:
        paths.SAMPLES_RECIPE,
    log:
        paths.log("samples_recipe", "model"),
    wildcard_constraints:
        model=PLAN.samples.checkpoints,
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    params:
        content=as_json(PLAN.samples.recipe),
    shell:
        WRITE_CONTENT


# all checkpoints of a model that is trained here in one job, any other checkpoint in one of its own
for suffix, checkpoints in {"": None, **PLAN.samples.jobs}.items():

    rule:
        name:
            f"samples{suffix and '_'}{suffix}"
        input:
            unpack(PLAN.samples.inputs(checkpoints)),
            dataset=paths.fill(paths.DATASET_RECORD, condition=CLEAN),
            manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
        output:
            **PLAN.samples.outputs(checkpoints),
        log:
            paths.fill(paths.log("samples", "dataset", "model"), model=suffix or "{model}"),
        wildcard_constraints:
            model=PLAN.samples.alone,
        conda:
            "../envs/models.yaml"
        threads: 4
        resources:
            **PLAN.cluster.gpus(),
            device=STUDY.compute.device,
            batch_size=PLAN.samples.batch_size(checkpoints),
            mem_mb=PLAN.features.checkpoint_memory(16000, checkpoints[0] if checkpoints else None),
            runtime=720,
        script:
            "../workflow_scripts/samples.py"

    rule:
        name:
            f"sample_quality{suffix and '_'}{suffix}"
        input:
            unpack(PLAN.samples.quality_inputs),
            samples=PLAN.samples.outputs(checkpoints)["samples"],
            manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
        output:
            **PLAN.samples.quality_outputs(checkpoints),
        log:
            paths.fill(paths.log("sample_quality", "dataset", "model"), model=suffix or "{model}"),
        wildcard_constraints:
            model=PLAN.samples.alone,
        conda:
            "../envs/models.yaml"
        threads: 4
        resources:
            **PLAN.cluster.gpus(),
            device=STUDY.compute.device,
            batch_size=STUDY.compute.batch_size,
            workers=STUDY.compute.workers,
            mem_mb=memory(8000),
            runtime=240,
        params:
            classifier_layer=PLAN.samples.reader_layer("classifier"),
            features_layer=PLAN.samples.reader_layer("features"),
            k=STUDY.samples.neighbors,
            seed=STUDY.seed,
            code=PLAN.samples.quality_code,
        script:
            "../workflow_scripts/sample_quality.py"


rule sample_quality_table:
    input:
        measured=PLAN.samples.measured(),
        given=PLAN.samples.given_table(),
    output:
        **table("sample_quality", "quality of samples"),
    log:
        paths.log("sample_quality_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        **PLAN.samples.table(),
        code=PLAN.code("sample_quality_table.py"),
    script:
        "../workflow_scripts/sample_quality_table.py"


rule sample_sheet_figure:
    input:
        unpack(PLAN.samples.sheet_inputs),
        manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
        images=paths.fill(paths.PICTURES, condition=CLEAN),
    output:
        figure(
            paths.fill(paths.SAMPLE_SHEET, condition=CLEAN),
            caption="sample_sheet",
            category="Samples",
            subcategory="{dataset}",
            model="{model}",
        ),
    log:
        paths.log("sample_sheet_figure", "dataset", "model"),
    wildcard_constraints:
        model=PLAN.samples.models,
    # files of samples are read by torch
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        miniature=PLAN.samples.miniature,
        code=PLAN.code("sample_sheet_figure.py"),
    script:
        "../workflow_scripts/sample_sheet_figure.py"
