# Inputs: texts of images (manifests, text files); checkpoints and recipes of language models; matrices of pairs with a
# language model.
# Outputs: texts by image; features of every hidden state, of means over tokens and of last tokens, from one pass per
# text; bits per byte of each model, and alignment against them. Language models read no images, so their features are
# stored under the condition clean and shared by all conditions.
TEXT_FEATURES = {
    "features": directory(PLAN.language.means),
    "manifest": f"{PLAN.language.means}.json",
    "last": directory(PLAN.language.last),
    "last_manifest": f"{PLAN.language.last}.json",
    "losses": paths.LOSSES,
    "table": paths.LOSS_TABLE,
}


rule texts:
    input:
        manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
        dataset=paths.fill(paths.DATASET_RECORD, condition=CLEAN),
    output:
        paths.TEXTS,
    log:
        paths.log("texts", "dataset", "conditioning"),
    wildcard_constraints:
        conditioning=PLAN.language.conditionings,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        texts=PLAN.stimuli.texts,
        files=PLAN.stimuli.text_files,
        code=PLAN.code("texts.py"),
    script:
        "../workflow_scripts/texts.py"


for name, model in PLAN.features.language_models.items():

    rule:
        name:
            PLAN.features.rule_name("extract", name)
        input:
            unpack(PLAN.language.inputs),
        output:
            **({"part": temp(PLAN.language.part)} if PLAN.features.in_parts else TEXT_FEATURES),
        log:
            PLAN.features.log("extract", "means"),
        wildcard_constraints:
            condition=CLEAN,
            means=PLAN.language.bundles(model),
            part=r"\d+",
            parts=r"\d+",
        conda:
            "../envs/models.yaml"
        threads: 4
        resources:
            **PLAN.cluster.gpus(PLAN.features.gpus(model)),
            device=STUDY.compute.device,
            device_map=PLAN.features.device_map(model),
            # GPUs that it is spread over, however a cluster is asked for them
            spread=PLAN.features.gpus(model),
            batch_size=PLAN.features.batch_size(model),
            # mean-pooled and last-token features
            mem_mb=PLAN.features.extraction_memory(16000, model, copies=2),
            runtime=PLAN.features.runtime(model),
        params:
            layers=list(model.layers),
            shards=below_prefix(PLAN.features.shards("means")),
        script:
            "../workflow_scripts/extract_texts.py"

    if PLAN.features.in_parts:

        rule:
            name:
                PLAN.features.rule_name("merge_texts", name)
            input:
                PLAN.language.parts(),
            output:
                **TEXT_FEATURES,
            log:
                paths.log("merge_texts", "dataset", "condition", "means"),
            wildcard_constraints:
                condition=CLEAN,
                means=PLAN.language.bundles(model),
            conda:
                "../envs/models.yaml"
            threads: 1
            resources:
                batch_size=PLAN.features.batch_size(model),
                mem_mb=PLAN.features.memory(4000, model, copies=2),
                runtime=120,
            params:
                code=PLAN.code("merge_texts.py"),
            script:
                "../workflow_scripts/merge_texts.py"


rule bits_per_byte_table:
    input:
        unpack(PLAN.language.table_inputs),
    output:
        **table("bits_per_byte", "alignment and bits per byte"),
        **{
            f"correlations_{kind}": path
            for kind, path in table(
                "bits_per_byte_correlations", "rank correlations with bits per byte", "bits_per_byte_table"
            ).items()
        },
    log:
        paths.log("bits_per_byte_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        metrics=METRICS,
        languages=PLAN.language.languages,
        seed=STUDY.seed,
        code=PLAN.code("bits_per_byte_table.py"),
    script:
        "../workflow_scripts/bits_per_byte_table.py"


rule bits_per_byte_figure:
    input:
        table=paths.fill(paths.TABLE, table="bits_per_byte") + ".tsv",
        correlations=paths.fill(paths.TABLE, table="bits_per_byte_correlations") + ".tsv",
    output:
        figure(
            paths.fill(paths.METRIC_FIGURE, figure="bits_per_byte"),
            caption="bits_per_byte",
            category="Models",
            subcategory="{dataset}, {condition}",
            metric="{metric}",
            figure="alignment and bits per byte",
        ),
    log:
        paths.log("bits_per_byte_figure", "dataset", "condition", "metric"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.language.miniature,
        code=PLAN.code("bits_per_byte_figure.py"),
    script:
        "../workflow_scripts/bits_per_byte_figure.py"
