# Needs: neighbour lists of two bundles on clean images and under every condition of se_cknna.
# Makes: the mean of CKNNA over these conditions, with clean beside it; a table and figures of the pairs of the study.


rule se_cknna:
    input:
        a=lambda w: lists_under(w.a, se_conditions(), w),
        # under reference clean, the second side has clean images everywhere
        b=lambda w: lists_under(w.b, se_conditions("b"), w),
        settings="results/recipes/settings/alignment.json",
        calibration="results/recipes/settings/calibration.json",
    output:
        score="results/se_cknna/{dataset}/{a}_vs_{b}.npy",
        recipe="results/se_cknna/{dataset}/{a}_vs_{b}.json",
    log:
        "logs/se_cknna/{dataset}/{a}_vs_{b}.log",
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        mem_mb=growing(6000),
        runtime=60,
    params:
        layer_a=lambda w: STUDY.layer(w.a),
        layer_b=lambda w: STUDY.layer(w.b),
        dataset=lambda w: w.get("dataset", STUDY.default_dataset),
        conditions=se_conditions(),
        reference=STUDY.se_cknna.reference,
        mean_over=STUDY.se_cknna.mean_over,
        code=code_of("se_cknna.py"),
    script:
        "../workflow_scripts/se_cknna.py"


# the short form: the default data set
use rule se_cknna as se_cknna_default with:
    output:
        score="results/se_cknna/{a}_vs_{b}.npy",
        recipe="results/se_cknna/{a}_vs_{b}.json",
    log:
        "logs/se_cknna/{a}_vs_{b}.log",


rule se_cknna_table:
    input:
        recipes=[path for dataset in STUDY.study_datasets for path in se_recipes(dataset)],
    output:
        tsv=report(
            "results/tables/se_cknna.tsv",
            caption="../report/se_cknna_table.rst",
            category="Tables",
            labels={"table": "SE-CKNNA"},
        ),
        parquet="results/tables/se_cknna.parquet",
    log:
        "logs/se_cknna_table.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        code=code_of("se_cknna_table.py"),
    script:
        "../workflow_scripts/se_cknna_table.py"


rule se_cknna_figure:
    input:
        recipes=lambda w: se_recipes(w.dataset),
    output:
        report(
            "results/figures/{dataset}/se_cknna.png",
            caption="../report/se_cknna.rst",
            category="SE-CKNNA",
            subcategory="{dataset}",
            labels={"pairs": "all of the study"},
        ),
        "results/figures/{dataset}/se_cknna.pdf",
    log:
        "logs/se_cknna_figure/{dataset}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        # for the caption
        miniature=any(STUDY.is_miniature(name) for pair in STUDY.se_cknna.pairs for name in pair.split(names.SEPARATOR)),
        code=code_of("se_cknna_figure.py"),
    script:
        "../workflow_scripts/se_cknna_figure.py"


# one pair, on request
use rule se_cknna_figure as se_cknna_figure_of_pair with:
    input:
        recipes=["results/se_cknna/{dataset}/{a}_vs_{b}.json"],
    output:
        report(
            "results/figures/{dataset}/se_cknna/{a}_vs_{b}.png",
            caption="../report/se_cknna.rst",
            category="SE-CKNNA",
            subcategory="{dataset}",
            labels={"pairs": "{a} vs {b}"},
        ),
        "results/figures/{dataset}/se_cknna/{a}_vs_{b}.pdf",
    log:
        "logs/se_cknna_figure/{dataset}/{a}_vs_{b}.log",
    params:
        miniature=lambda w: STUDY.is_miniature(w.a) or STUDY.is_miniature(w.b),
        code=code_of("se_cknna_figure.py"),
