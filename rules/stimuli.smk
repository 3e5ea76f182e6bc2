# Needs: the data set's folder, or the photographs that ship with scikit-image and scikit-learn.
# Makes: square PNG files, a manifest (name, label, caption, sha256) and dataset.json for every data set; the same of
# rotated and noisy images, made from these.


rule hub_table:
    output:
        folder=directory("resources/datasets/{dataset}/table"),
        record="resources/datasets/{dataset}/table.json",
    log:
        "logs/hub_table/{dataset}.log",
    wildcard_constraints:
        dataset=any_of_or_none(name for name, dataset in STUDY.datasets.items() if dataset.hub),
    conda:
        "../envs/models.yaml"
    params:
        source=lambda w: STUDY.datasets[w.dataset].hub,
    script:
        "../workflow_scripts/hub_table.py"


rule images:
    input:
        unpack(downloaded_table),
    output:
        folder=directory(f"{IMAGES}/png"),
        manifest=f"{IMAGES}/manifest.tsv",
        spec=f"{IMAGES}/dataset.json",
    log:
        "logs/images/{dataset}/{condition}.log",
    wildcard_constraints:
        dataset=with_images(),
        condition=CLEAN,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
    params:
        dataset=lambda w: without_defaults(STUDY.datasets[w.dataset]),
        concepts=concepts_of,
        # a seed is a parameter only where something is drawn
        seed=lambda w: STUDY.seed if STUDY.datasets[w.dataset].sample else 0,
        files=table_files,
        code=code_of("images.py"),
    script:
        "../workflow_scripts/images.py"


rule named_texts:
    input:
        unpack(downloaded_table),
    output:
        manifest=f"{IMAGES}/manifest.tsv",
        spec=f"{IMAGES}/dataset.json",
    log:
        "logs/named_texts/{dataset}/{condition}.log",
    wildcard_constraints:
        dataset=with_texts_alone(),
        condition=CLEAN,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        dataset=lambda w: without_defaults(STUDY.datasets[w.dataset]),
        seed=lambda w: STUDY.seed if STUDY.datasets[w.dataset].sample else 0,
        files=table_files,
        code=code_of("named_texts.py"),
    script:
        "../workflow_scripts/named_texts.py"


rule transformed_images:
    input:
        clean="results/images/{dataset}/clean/png",
        manifest="results/images/{dataset}/clean/manifest.tsv",
        spec="results/images/{dataset}/clean/dataset.json",
    output:
        folder=directory(f"{IMAGES}/png"),
        manifest=f"{IMAGES}/manifest.tsv",
        spec=f"{IMAGES}/dataset.json",
    log:
        "logs/transformed_images/{dataset}/{condition}.log",
    wildcard_constraints:
        dataset=with_images(),
        condition=any_of_or_none(condition for condition in STUDY.conditions if condition != CLEAN),
    conda:
        "../envs/analysis.yaml"
    threads: 4
    resources:
        workers=STUDY.compute.workers,
        mem_mb=growing(4000),
        runtime=120,
    params:
        seeding=STUDY.transforms.seeding,
        seed=STUDY.transforms.seed,
        published=published_images,
        files=lambda w: folder_digest(Path(published_images(w))) if published_images(w) else None,
        code=code_of("transformed_images.py"),
    script:
        "../workflow_scripts/transformed_images.py"


rule concepts:
    output:
        manifest=f"{IMAGES}/manifest.tsv",
        spec=f"{IMAGES}/dataset.json",
    log:
        "logs/concepts/{dataset}/{condition}.log",
    wildcard_constraints:
        dataset=with_concepts_alone(),
        condition=CLEAN,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        dataset=lambda w: without_defaults(STUDY.datasets[w.dataset]),
        concepts=concepts_of,
        files=lambda w: files_digest([Path(STUDY.things[w.dataset].concepts.path)]),
        code=code_of("concepts.py"),
    script:
        "../workflow_scripts/concepts.py"
