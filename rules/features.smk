# Inputs: images, or latents and prompts; the checkpoint and the recipe of a bundle (model with variant).
# Outputs: a folder of feature files, one a layer, from one forward pass, and its manifest; neighbour lists and factors of
# all layers.
FEATURES = {"features": directory(paths.FEATURES), "manifest": paths.FEATURE_MANIFEST}


rule recipe:
    output:
        paths.RECIPE,
    log:
        paths.log("recipe", "bundle"),
    localrule: True
    conda:
        "../envs/analysis.yaml"
    params:
        content=as_json(PLAN.features.recipe),
    shell:
        WRITE_CONTENT


# with parts, each extraction runs the model on a part of the images, and a merge follows
for name, model in PLAN.features.image_models.items():

    rule:
        name:
            PLAN.features.rule_name("extract", name)
        input:
            unpack(PLAN.features.inputs(name)),
            recipe=paths.RECIPE,
            dataset=paths.DATASET_RECORD,
            manifest=paths.MANIFEST,
        output:
            **({"part": temp(paths.FEATURE_PART)} if PLAN.features.in_parts else FEATURES),
        log:
            PLAN.features.log("extract"),
        wildcard_constraints:
            bundle=PLAN.features.bundles(model),
            part=r"\d+",
            parts=r"\d+",
        conda:
            "../envs/models.yaml"
        threads: 4
        resources:
            **PLAN.cluster.gpus(PLAN.features.gpus(model)),
            device=STUDY.compute.device,
            batch_size=PLAN.features.batch_size(model),
            workers=STUDY.compute.workers,
            compile=int(STUDY.compute.compile),
            mem_mb=PLAN.features.extraction_memory(16000, model),
            runtime=PLAN.features.runtime(model),
        params:
            layers=list(model.layers),
            class_tokens=PLAN.features.class_token_layer(name),
            shards=below_prefix(PLAN.features.shards()),
        script:
            "../workflow_scripts/extract.py"

    if PLAN.features.in_parts:

        rule:
            name:
                PLAN.features.rule_name("merge_features", name)
            input:
                PLAN.features.parts(),
            output:
                **FEATURES,
            log:
                paths.log("merge_features", "dataset", "condition", "bundle"),
            wildcard_constraints:
                bundle=PLAN.features.bundles(model),
            conda:
                "../envs/models.yaml"
            threads: 1
            resources:
                mem_mb=PLAN.features.memory(4000, model),
                runtime=120,
            params:
                code=PLAN.code("merge_features.py"),
            script:
                "../workflow_scripts/merge_features.py"


rule text_features:
    input:
        unpack(PLAN.features.texts_inputs),
    output:
        **FEATURES,
    log:
        paths.log("text_features", "dataset", "condition", "bundle"),
    wildcard_constraints:
        bundle=PLAN.features.text_bundles,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    script:
        "../workflow_scripts/text_features.py"


# all tokens of some layers, for the reduction of tokens and for teachers of a training
rule unpooled:
    input:
        unpack(PLAN.features.unpooled_inputs),
        recipe=paths.RECIPE,
        dataset=paths.DATASET_RECORD,
        manifest=paths.MANIFEST,
    output:
        unpooled=temp(directory(paths.TOKENS)),
    log:
        paths.log("unpooled", "dataset", "condition", "bundle"),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        **PLAN.cluster.gpus(PLAN.features.unpooled_gpus),
        device=STUDY.compute.device,
        batch_size=PLAN.features.unpooled_batch_size,
        workers=STUDY.compute.workers,
        compile=int(STUDY.compute.compile),
        mem_mb=PLAN.features.unpooled_memory(24000),
        runtime=PLAN.features.unpooled_runtime,
    params:
        layers=PLAN.features.unpooled_layers,
    script:
        "../workflow_scripts/extract.py"


rule neighbors:
    input:
        layers=PLAN.features.manifest,
    output:
        paths.NEIGHBORS,
    log:
        paths.log("neighbors", "dataset", "condition", "bundle"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        memory_mb=STUDY.compute.memory_mb,
        # unit rows and a copy in float64
        mem_mb=PLAN.features.memory(6000 + STUDY.compute.memory_mb, copies=4),
        runtime=120,
    params:
        k_max=STUDY.alignment.k_max,
        preparation=vars(STUDY.alignment.preparation),
        code=PLAN.code("neighbors.py"),
    script:
        "../workflow_scripts/neighbors.py"


if STUDY.alignment.parts > 1:

    # search for a part of the images
    use rule neighbors as neighbors_part with:
        output:
            temp(paths.NEIGHBOR_PART),
        log:
            paths.log("neighbors_part", "dataset", "condition", "bundle", "part", "parts"),
        wildcard_constraints:
            part=r"\d+",
            parts=r"\d+",

    rule merge_neighbors:
        input:
            PLAN.features.neighbor_parts(),
        output:
            paths.NEIGHBORS,
        log:
            paths.log("merge_neighbors", "dataset", "condition", "bundle"),
        conda:
            "../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=memory(4000),
            runtime=60,
        params:
            code=PLAN.code("merge_neighbors.py"),
        script:
            "../workflow_scripts/merge_neighbors.py"

    # not with parts
    ruleorder: merge_neighbors > neighbors


rule factors:
    input:
        neighbors=paths.NEIGHBORS,
        layers=PLAN.features.manifest,
    output:
        paths.FACTORS,
    log:
        paths.log("factors", "dataset", "condition", "bundle"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        mem_mb=PLAN.features.memory(6000, copies=4),
        runtime=120,
    params:
        code=PLAN.code("factors.py"),
    script:
        "../workflow_scripts/factors.py"
