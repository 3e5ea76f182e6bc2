# Needs: what people chose of the objects of a data set of kind things; the features of a bundle on it.
# Makes: odd-one-out accuracies of every layer, probes, regressions onto human dimensions; figures of all models.


rule people:
    output:
        "results/people/{dataset}/{triplets}.npz",
    log:
        "logs/people/{dataset}/{triplets}.log",
    wildcard_constraints:
        dataset=any_of_or_none(STUDY.things),
        triplets=any_of_or_none(word for things in STUDY.things.values() for word in things.triplets),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=30,
    params:
        **human_sources(),
        files=lambda w: files_digest(human_paths(w.dataset, w.triplets)),
        code=code_of("people.py"),
    script:
        "../workflow_scripts/people.py"


rule odd_one_out:
    input:
        unpack(features_and_people),
    output:
        table="results/odd_one_out/{dataset}/{condition}/{bundle}.tsv",
        parquet="results/odd_one_out/{dataset}/{condition}/{bundle}.parquet",
        recipe="results/odd_one_out/{dataset}/{condition}/{bundle}.json",
        choices="results/odd_one_out/{dataset}/{condition}/{bundle}.npz",
    log:
        "logs/odd_one_out/{dataset}/{condition}/{bundle}.log",
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=growing(8000 + STUDY.compute.memory_mb),
        runtime=60,
    params:
        settings={
            "distance": STUDY.human.distance,
            "ties": STUDY.human.ties,
            "pca": STUDY.human.pca,
            "seed": STUDY.seed,
        },
        code=code_of("odd_one_out.py"),
    script:
        "../workflow_scripts/odd_one_out.py"


rule odd_one_out_figure:
    input:
        tables=lambda w: of_human_models(w, "odd_one_out", "tsv"),
        recipes=lambda w: of_human_models(w, "odd_one_out", "json"),
    output:
        report(
            "results/figures/{dataset}/{condition}/people/odd_one_out.png",
            caption="../report/odd_one_out.rst",
            category="People",
            subcategory="{dataset}, {condition}",
            labels={"figure": "odd one out"},
        ),
        "results/figures/{dataset}/{condition}/people/odd_one_out.pdf",
    log:
        "logs/odd_one_out_figure/{dataset}/{condition}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        models=human_bundles(),
        baselines=human_bundles(STUDY.human.baselines),
        # for the caption
        miniature=any(STUDY.is_miniature(name) for name in (*STUDY.human.models, *STUDY.human.baselines)),
        code=code_of("odd_one_out_figure.py"),
    script:
        "../workflow_scripts/odd_one_out_figure.py"
