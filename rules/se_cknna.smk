# Inputs: neighbour lists of two bundles on clean images and under every condition of se_cknna.
# Outputs: the mean of CKNNA over these conditions, compared with clean; a table and figures of the pairs of the study.


rule se_cknna:
    input:
        unpack(PLAN.se_cknna.manifest),
        a=PLAN.se_cknna.lists_a,
        b=PLAN.se_cknna.lists_b,
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        score=paths.SE_SCORE,
        recipe=paths.SE_RECIPE,
    log:
        paths.log("se_cknna", "dataset", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        mem_mb=memory(6000),
        runtime=60,
    params:
        **PLAN.se_cknna.params(),
        layer_a=PLAN.alignment.layer_a,
        layer_b=PLAN.alignment.layer_b,
        dataset=PLAN.alignment.dataset,
        code=PLAN.code("se_cknna.py"),
    script:
        "../workflow_scripts/se_cknna.py"


# short path: default data set
use rule se_cknna as se_cknna_default with:
    output:
        score=paths.DEFAULT_SE_SCORE,
        recipe=paths.DEFAULT_SE_RECIPE,
    log:
        paths.log("se_cknna_default", "a", "b"),


rule se_cknna_table:
    input:
        recipes=PLAN.se_cknna.all_recipes,
    output:
        **table("se_cknna", "SE-CKNNA"),
    log:
        paths.log("se_cknna_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        code=PLAN.code("se_cknna_table.py"),
    script:
        "../workflow_scripts/se_cknna_table.py"


rule se_cknna_figure:
    input:
        recipes=PLAN.se_cknna.recipes,
    output:
        figure(
            paths.SE_FIGURE,
            tabled=True,
            caption="se_cknna",
            category="SE-CKNNA",
            subcategory="{dataset}",
            pairs="all of the study",
        ),
    log:
        paths.log("se_cknna_figure", "dataset"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        # for the caption
        miniature=PLAN.se_cknna.miniature,
        code=PLAN.code("se_cknna_figure.py"),
    script:
        "../workflow_scripts/se_cknna_figure.py"


# one pair, on request
use rule se_cknna_figure as se_cknna_figure_of_pair with:
    input:
        recipes=[paths.SE_RECIPE],
    output:
        figure(
            paths.SE_PAIR_FIGURE,
            tabled=True,
            caption="se_cknna",
            category="SE-CKNNA",
            subcategory="{dataset}",
            pairs="{a} vs {b}",
        ),
    log:
        paths.log("se_cknna_figure_of_pair", "dataset", "a", "b"),
    params:
        miniature=PLAN.figures.miniature("a", "b"),
        code=PLAN.code("se_cknna_figure.py"),
