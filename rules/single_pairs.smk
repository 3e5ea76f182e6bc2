# Needs: neighbour lists of two representations; features and images where something is looked at again.
# Makes: a closer look at single pairs, on request: rows an image, galleries, curves over k and N, other preparations.


rule per_image:
    input:
        unpack(lists_of_both),
        unpack(manifest_of_images),
        settings="results/recipes/settings/alignment.json",
    output:
        table="results/per_image/{dataset}/{condition}/{a}_vs_{b}.parquet",
        recipe="results/per_image/{dataset}/{condition}/{a}_vs_{b}.json",
    log:
        "logs/per_image/{dataset}/{condition}/{a}_vs_{b}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        layer_a=lambda w: STUDY.layer(w.a),
        layer_b=lambda w: STUDY.layer(w.b),
        code=code_of("per_image.py"),
    script:
        "../workflow_scripts/per_image.py"


rule gallery:
    input:
        unpack(lists_of_both),
        unpack(pictures),
        settings="results/recipes/settings/alignment.json",
    output:
        report(
            "results/figures/{dataset}/{condition}/gallery/{a}_vs_{b}.png",
            caption="../report/gallery.rst",
            category="Single pairs",
            subcategory="{dataset}, {condition}",
            labels={"pair": "{a} vs {b}", "figure": "gallery"},
        ),
        "results/figures/{dataset}/{condition}/gallery/{a}_vs_{b}.pdf",
    log:
        "logs/gallery/{dataset}/{condition}/{a}_vs_{b}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        layer_a=lambda w: STUDY.layer(w.a),
        layer_b=lambda w: STUDY.layer(w.b),
        # for the caption
        miniature=lambda w: STUDY.is_miniature(w.a) or STUDY.is_miniature(w.b),
        code=code_of("gallery.py"),
    script:
        "../workflow_scripts/gallery.py"


rule curves:
    input:
        unpack(lists_and_features_of_both),
        settings="results/recipes/settings/alignment.json",
        calibration="results/recipes/settings/calibration.json",
    output:
        "results/tables/curves/{dataset}/{condition}/{a}_vs_{b}.tsv",
    log:
        "logs/curves/{dataset}/{condition}/{a}_vs_{b}.log",
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=growing(8000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        layer_a=lambda w: STUDY.layer(w.a),
        layer_b=lambda w: STUDY.layer(w.b),
        metrics=list(METRICS),
        code=code_of("curves.py"),
    script:
        "../workflow_scripts/curves.py"


rule curves_figure:
    input:
        table="results/tables/curves/{dataset}/{condition}/{a}_vs_{b}.tsv",
    output:
        report(
            "results/figures/{dataset}/{condition}/curves/{a}_vs_{b}.png",
            caption="../report/curves.rst",
            category="Single pairs",
            subcategory="{dataset}, {condition}",
            labels={"pair": "{a} vs {b}", "figure": "over k and N"},
        ),
        "results/figures/{dataset}/{condition}/curves/{a}_vs_{b}.pdf",
    log:
        "logs/curves_figure/{dataset}/{condition}/{a}_vs_{b}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        # for the caption
        miniature=lambda w: STUDY.is_miniature(w.a) or STUDY.is_miniature(w.b),
        code=code_of("curves_figure.py"),
    script:
        "../workflow_scripts/curves_figure.py"


rule sensitivity:
    input:
        unpack(lists_and_features_of_both),
        settings="results/recipes/settings/alignment.json",
        calibration="results/recipes/settings/calibration.json",
    output:
        tsv="results/tables/sensitivity/{dataset}/{condition}/{a}_vs_{b}.tsv",
        parquet="results/tables/sensitivity/{dataset}/{condition}/{a}_vs_{b}.parquet",
    log:
        "logs/sensitivity/{dataset}/{condition}/{a}_vs_{b}.log",
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        # the layers of a model are held at once where they are clamped together
        mem_mb=growing(14000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        layer_a=lambda w: STUDY.layer(w.a),
        layer_b=lambda w: STUDY.layer(w.b),
        metrics=list(METRICS),
        code=code_of("sensitivity.py"),
    script:
        "../workflow_scripts/sensitivity.py"
