# Needs: images, the checkpoints of autoencoders and of text encoders; or latents that were made elsewhere.
# Makes: latents in a fixed number of shards with the statistics that normalise them, and prompts: texts, embedded, or
# embeddings that were given.
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
        conditioning=any_of(word for word in names.CONDITIONINGS if word != names.TEXT),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        gpu=1,
        device=STUDY.compute.device,
        mem_mb=growing(32000),
        runtime=60,
    params:
        model=lambda w: STUDY.models[w.model].teller(),
        texts=texts_told,
        files=files_told,
        code=lambda w: code_of("prompts.py", family_code(w.model)),
    script:
        "../workflow_scripts/prompts.py"


# the same texts, embedded by text encoders with the weights that they begin with
use rule prompts as prompts_untrained with:
    input:
        weights=f"{UNTRAINED}/checkpoint",
        record=f"{UNTRAINED}/weights.json",
        manifest="results/images/{dataset}/clean/manifest.tsv",
    output:
        "results/prompts/{dataset}/{model}-{conditioning}-untrained.safetensors",
    log:
        "logs/prompts/{dataset}/{model}-{conditioning}-untrained.log",
    params:
        model=lambda w: replace(STUDY.models[w.model], untrained=True).teller(),
        texts=texts_told,
        files=files_told,
        code=lambda w: code_of("prompts.py", family_code(w.model)),


rule given_prompts:
    input:
        manifest="results/images/{dataset}/clean/manifest.tsv",
    output:
        "results/prompts/{dataset}/{model}-{word}.safetensors",
    log:
        "logs/given_prompts/{dataset}/{model}-{word}.log",
    wildcard_constraints:
        model=any_of_or_none(name for name, model in STUDY.models.items() if model.embeddings),
        word=any_of_or_none({word for model in STUDY.models.values() for word in model.embeddings}),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=60,
    params:
        source=given_embeddings,
        files=lambda w: files_digest([Path(given_embeddings(w))]),
        code=code_of("given_prompts.py"),
    script:
        "../workflow_scripts/given_prompts.py"
