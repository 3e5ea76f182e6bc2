# Needs: images, the checkpoints of autoencoders and of text encoders; or latents that were made elsewhere.
# Makes: latents in a fixed number of shards with the statistics that normalise them, and prompt embeddings.
# How the work is done (device, batch size, workers) stands in resources, here and in features.smk: no result depends
# on it, and a changed resource, unlike a changed parameter, reruns nothing.


rule latents:
    input:
        unpack(clean_statistics),
        weights=f"{WEIGHTS}/checkpoint",
        record=f"{WEIGHTS}/weights.json",
        images=f"{IMAGES}/png",
        manifest=f"{IMAGES}/manifest.tsv",
    output:
        shards=shards(LATENTS),
        statistics=f"{LATENTS}/latents_stats.pt",
    log:
        "logs/latents/{dataset}/{condition}/{model}.log",
    wildcard_constraints:
        model=autoencoders(),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        gpu=1,
        device=STUDY.compute.device,
        batch_size=lambda w: STUDY.models[w.model].batch_size or STUDY.compute.batch_size,
        workers=STUDY.compute.workers,
        mem_mb=growing(16000),
        runtime=480,
    params:
        model=lambda w: STUDY.models[w.model].encoder(),
        shards=STUDY.latent_shards,
        code=lambda w: code_of("latents.py", family_code(w.model)),
    script:
        "../workflow_scripts/latents.py"


rule import_latents:
    input:
        manifest=f"{IMAGES}/manifest.tsv",
    output:
        shards=shards(LATENTS),
        statistics=f"{LATENTS}/latents_stats.pt",
        record=f"{LATENTS}/latents.json",
    log:
        "logs/import_latents/{dataset}/{condition}/{model}.log",
    wildcard_constraints:
        model=autoencoders(imported=True),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=240,
    params:
        model=lambda w: STUDY.models[w.model].encoder(),
        shards=STUDY.latent_shards,
        files=latent_files,
        code=code_of("import_latents.py"),
    script:
        "../workflow_scripts/import_latents.py"


rule prompts:
    input:
        weights=f"{WEIGHTS}/checkpoint",
        record=f"{WEIGHTS}/weights.json",
        # which image has which text
        manifest="results/images/{dataset}/clean/manifest.tsv",
    output:
        "results/prompts/{dataset}/{model}-{conditioning}.safetensors",
    log:
        "logs/prompts/{dataset}/{model}-{conditioning}.log",
    wildcard_constraints:
        model=any_of_or_none(prompted_models()),
        conditioning=any_of_or_none({word for model in prompted_models().values() for word in model.conditionings}),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        gpu=1,
        device=STUDY.compute.device,
        mem_mb=growing(32000),
        runtime=60,
    params:
        family=lambda w: STUDY.models[w.model].family,
        code=lambda w: code_of("prompts.py", family_code(w.model)),
    script:
        "../workflow_scripts/prompts.py"
