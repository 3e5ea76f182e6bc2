# Needs: the neighbour lists of two bundles, and the settings that every score depends on.
# Makes: single scores, and layer x layer matrices of all metrics in one job; a recipe beside each.


rule alignment_settings:
    output:
        "results/recipes/settings/alignment.json",
    log:
        "logs/alignment_settings.log",
    conda:
        "../envs/analysis.yaml"
    params:
        content={
            "k": STUDY.alignment.k,
            "eps": STUDY.alignment.eps,
            "code": code_of("align.py", "align_layers.py"),
        },
    script:
        "../workflow_scripts/alignment_settings.py"


rule align:
    input:
        unpack(both_sides),
        settings="results/recipes/settings/alignment.json",
    output:
        score="results/{metric}/{dataset}/{condition}/{a}_vs_{b}.npy",
        recipe="results/{metric}/{dataset}/{condition}/{a}_vs_{b}.json",
    log:
        "logs/align/{metric}/{dataset}/{condition}/{a}_vs_{b}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        layer_a=lambda w: STUDY.layer(w.a),
        layer_b=lambda w: STUDY.layer(w.b),
        dataset=lambda w: w.get("dataset", STUDY.default_dataset),
        condition=lambda w: w.get("condition", STUDY.default_condition),
    script:
        "../workflow_scripts/align.py"


# the short form: the default data set and condition
use rule align as align_default with:
    output:
        score="results/{metric}/{a}_vs_{b}.npy",
        recipe="results/{metric}/{a}_vs_{b}.json",
    log:
        "logs/align/{metric}/{a}_vs_{b}.log",


rule align_layers:
    input:
        unpack(both_sides),
        settings="results/recipes/settings/alignment.json",
    output:
        matrices=matrices(METRICS, "{dataset}", "{condition}", "{a}", "{b}"),
        recipes=recipes_of(matrices(METRICS, "{dataset}", "{condition}", "{a}", "{b}")),
    log:
        "logs/align_layers/{dataset}/{condition}/{a}_vs_{b}.log",
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(8000),
        runtime=120,
    params:
        metrics=list(METRICS),
    script:
        "../workflow_scripts/align_layers.py"
