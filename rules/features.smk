# Needs: images, or latents and prompts; the checkpoint and the recipe of a bundle (a model with its variant).
# Makes: one feature file for every layer, from one forward pass; neighbour lists of all of them, and factors.


rule recipe:
    output:
        "results/recipes/{bundle}.json",
    log:
        "logs/recipe/{bundle}.log",
    conda:
        "../envs/analysis.yaml"
    params:
        content=recipe_of,
    script:
        "../workflow_scripts/recipe.py"


# with shards, an extraction runs the model on a part of the images, and a merge follows
for name, model in image_models().items():

    rule:
        name:
            extraction_rule(name)
        input:
            unpack(extraction_inputs(name)),
        output:
            **extraction_outputs(model),
        log:
            f"logs/extract/{{dataset}}/{{condition}}/{EXTRACTED}.log",
        wildcard_constraints:
            bundle=names.bundle_pattern(name, model.vocabulary),
            part=r"\d+",
            parts=r"\d+",
        conda:
            "../envs/models.yaml"
        threads: 4
        resources:
            gpu=1,
            device=STUDY.compute.device,
            batch_size=model.batch_size or STUDY.compute.batch_size,
            workers=STUDY.compute.workers,
            compile=int(STUDY.compute.compile),
            mem_mb=growing(24000),
            runtime=720,
        params:
            layers=list(model.layers),
        script:
            "../workflow_scripts/extract.py"

    if STUDY.extraction_shards > 1:

        rule:
            name:
                f"merge_features_{name.replace('.', '_')}"
            input:
                feature_parts(),
            output:
                **feature_outputs(model),
            log:
                "logs/merge_features/{dataset}/{condition}/{bundle}.log",
            wildcard_constraints:
                bundle=names.bundle_pattern(name, model.vocabulary),
            conda:
                "../envs/models.yaml"
            threads: 1
            resources:
                mem_mb=growing(8000),
                runtime=120,
            params:
                layers=list(model.layers),
                code=code_of("merge_features.py"),
            script:
                "../workflow_scripts/merge_features.py"


rule text_features:
    input:
        unpack(text_inputs),
    output:
        features=f"{FEATURES}/{names.TEXT_LAYERS[0]}.pt",
        manifest=f"{FEATURES}/layers.json",
    log:
        "logs/text_features/{dataset}/{condition}/{bundle}.log",
    wildcard_constraints:
        bundle="|".join(names.text_pattern(name, vocabulary) for name, vocabulary in STUDY.catalogue.items()),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    script:
        "../workflow_scripts/text_features.py"


rule neighbors:
    input:
        layers=f"{FEATURES}/layers.json",
    output:
        "results/neighbors/{dataset}/{condition}/{bundle}.npz",
    log:
        "logs/neighbors/{dataset}/{condition}/{bundle}.log",
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        gpu=1,
        device=STUDY.compute.device,
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=growing(14000 + STUDY.compute.memory_mb),
        runtime=120,
    params:
        k_max=STUDY.alignment.k_max,
        preparation=asdict(STUDY.alignment.preparation),
        code=code_of("neighbors.py"),
    script:
        "../workflow_scripts/neighbors.py"


if STUDY.alignment.shards > 1:

    # the same search for a part of the images
    use rule neighbors as neighbors_part with:
        output:
            temp("results/neighbors/{dataset}/{condition}/{bundle}/{part}-of-{parts}.npz"),
        log:
            "logs/neighbors/{dataset}/{condition}/{bundle}/{part}-of-{parts}.log",
        wildcard_constraints:
            part=r"\d+",
            parts=r"\d+",

    rule merge_neighbors:
        input:
            neighbor_parts(),
        output:
            "results/neighbors/{dataset}/{condition}/{bundle}.npz",
        log:
            "logs/merge_neighbors/{dataset}/{condition}/{bundle}.log",
        conda:
            "../envs/analysis.yaml"
        threads: 1
        resources:
            mem_mb=growing(4000),
            runtime=60,
        params:
            code=code_of("merge_neighbors.py"),
        script:
            "../workflow_scripts/merge_neighbors.py"

    # the whole in one job is not what was asked for
    ruleorder: merge_neighbors > neighbors


rule factors:
    input:
        neighbors=f"{NEIGHBORS}.npz",
        layers=f"{FEATURES}/layers.json",
    output:
        f"{FACTORS}.npz",
    log:
        "logs/factors/{dataset}/{condition}/{bundle}.log",
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        mem_mb=growing(8000),
        runtime=120,
    params:
        code=code_of("factors.py"),
    script:
        "../workflow_scripts/factors.py"
