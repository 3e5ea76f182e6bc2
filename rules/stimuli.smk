# Needs: the data set's folder, or the photographs that ship with scikit-image and scikit-learn.
# Makes: square PNG files, a manifest (name, label, caption, sha256) and dataset.json for every data set and condition.


rule images:
    output:
        folder=directory(f"{IMAGES}/png"),
        manifest=f"{IMAGES}/manifest.tsv",
        spec=f"{IMAGES}/dataset.json",
    log:
        "logs/images/{dataset}/{condition}.log",
    wildcard_constraints:
        dataset=any_of_or_none(name for name, dataset in STUDY.datasets.items() if dataset.has_images),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=240,
    params:
        dataset=lambda w: vars(STUDY.datasets[w.dataset]),
        # a seed is a parameter only where something is drawn
        seed=lambda w: STUDY.seed if STUDY.datasets[w.dataset].sample else 0,
        files=lambda w: folder_digest(Path(STUDY.datasets[w.dataset].path)) if STUDY.datasets[w.dataset].path else None,
        code=code_of("images.py"),
    script:
        "../workflow_scripts/images.py"
