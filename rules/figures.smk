# Needs: layer x layer matrices and their recipes.
# Makes: what people look at: heat maps and curves over depth for every pair, one table of all scores.


rule layer_maps:
    input:
        unpack(matrices_of),
    output:
        report(
            "results/figures/{dataset}/{condition}/layer_maps/{a}_vs_{b}.png",
            caption="../report/layer_maps.rst",
            category="Alignment, layer by layer",
            subcategory="{dataset}, {condition}",
            labels={"pair": "{a} vs {b}", "figure": "layer x layer"},
        ),
        "results/figures/{dataset}/{condition}/layer_maps/{a}_vs_{b}.pdf",
    log:
        "logs/layer_maps/{dataset}/{condition}/{a}_vs_{b}.log",
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        # for the caption
        miniature=lambda w: STUDY.is_miniature(w.a) or STUDY.is_miniature(w.b),
        code=code_of("layer_maps.py"),
    script:
        "../workflow_scripts/layer_maps.py"


rule depth_curves:
    input:
        unpack(matrices_of),
    output:
        report(
            "results/figures/{dataset}/{condition}/depth_curves/{a}_vs_{b}.png",
            caption="../report/depth_curves.rst",
            category="Alignment, layer by layer",
            subcategory="{dataset}, {condition}",
            labels={"pair": "{a} vs {b}", "figure": "over depth"},
        ),
        "results/figures/{dataset}/{condition}/depth_curves/{a}_vs_{b}.pdf",
    log:
        "logs/depth_curves/{dataset}/{condition}/{a}_vs_{b}.log",
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        # for the caption
        miniature=lambda w: STUDY.is_miniature(w.a) or STUDY.is_miniature(w.b),
        defaults=lambda w: default_layers(w.a, w.b),
        code=code_of("depth_curves.py"),
    script:
        "../workflow_scripts/depth_curves.py"


rule alignment_table:
    input:
        **with_recipes(all_matrices()),
    output:
        tsv=report(
            "results/tables/alignment.tsv",
            caption="../report/alignment_table.rst",
            category="Tables",
            labels={"table": "all scores"},
        ),
        parquet="results/tables/alignment.parquet",
    log:
        "logs/alignment_table.log",
    conda:
        "../envs/analysis.yaml"
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        defaults=default_layers(*(name for pair in STUDY.pairs for name in pair)),
        code=code_of("alignment_table.py"),
    script:
        "../workflow_scripts/alignment_table.py"
