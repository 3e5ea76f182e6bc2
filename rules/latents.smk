# Inputs: images, checkpoints of autoencoders and of text encoders; or precomputed latents.
# Outputs: latents in a fixed number of shards with their normalisation statistics; prompt embeddings, computed or given.
# Device, batch size and workers are resources, here and in features.smk: results do not depend on them, and a changed
# resource, unlike a changed parameter, reruns nothing.


rule latents:
    input:
        unpack(PLAN.latents.clean_statistics),
        unpack(PLAN.weights.of_target),
        images=paths.PICTURES,
        manifest=paths.MANIFEST,
    output:
        shards=PLAN.latents.shards,
        statistics=paths.LATENT_STATISTICS,
    log:
        paths.log("latents", "dataset", "condition", "model"),
    wildcard_constraints:
        model=PLAN.latents.autoencoders(),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        batch_size=PLAN.latents.batch_size,
        workers=STUDY.compute.workers,
        mem_mb=memory(16000),
        runtime=480,
    params:
        model=PLAN.latents.autoencoder,
        shards=STUDY.latent_shards,
        code=PLAN.code_with_family("latents.py"),
    script:
        "../workflow_scripts/latents.py"


rule import_latents:
    input:
        manifest=paths.MANIFEST,
    output:
        shards=PLAN.latents.shards,
        statistics=paths.LATENT_STATISTICS,
        record=paths.LATENTS_RECORD,
    log:
        paths.log("import_latents", "dataset", "condition", "model"),
    wildcard_constraints:
        model=PLAN.latents.autoencoders(imported=True),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=240,
    params:
        model=PLAN.latents.autoencoder,
        shards=STUDY.latent_shards,
        files=PLAN.latents.imported_files,
        code=PLAN.code("import_latents.py"),
    script:
        "../workflow_scripts/import_latents.py"


rule prompts:
    input:
        unpack(PLAN.weights.of_target),
        # maps images to texts
        manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
    output:
        paths.PROMPTS,
    log:
        paths.log("prompts", "dataset", "model", "conditioning"),
    wildcard_constraints:
        model=PLAN.latents.prompted_models,
        conditioning=PLAN.latents.prompt_conditionings,
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        mem_mb=memory(32000),
        runtime=60,
    params:
        model=PLAN.latents.prompt_spec,
        texts=PLAN.latents.texts,
        files=PLAN.stimuli.text_files,
        code=PLAN.code_with_family("prompts.py"),
    script:
        "../workflow_scripts/prompts.py"


# the same texts, embedded by untrained text encoders
use rule prompts as prompts_untrained with:
    input:
        weights=paths.UNTRAINED_CHECKPOINT,
        record=paths.UNTRAINED_RECORD,
        manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
    output:
        paths.UNTRAINED_PROMPTS,
    log:
        paths.log("prompts_untrained", "dataset", "model", "conditioning"),
    params:
        model=PLAN.latents.untrained_prompt_spec,
        texts=PLAN.latents.texts,
        files=PLAN.stimuli.text_files,
        code=PLAN.code_with_family("prompts.py"),


rule given_prompts:
    input:
        manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
    output:
        paths.GIVEN_PROMPTS,
    log:
        paths.log("given_prompts", "dataset", "model", "word"),
    wildcard_constraints:
        model=PLAN.latents.with_embeddings,
        word=PLAN.latents.embedding_words,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=60,
    params:
        source=PLAN.latents.embeddings,
        alone=PLAN.latents.embeddings_alone,
        files=PLAN.latents.embedding_files,
        code=PLAN.code("given_prompts.py"),
    script:
        "../workflow_scripts/given_prompts.py"
