# Needs: neighbour lists of two bundles, features and factors where a metric needs them; the settings of all scores.
# Makes: single scores; layer x layer matrices of all metrics in one job, and their calibration in another.


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
            "rbf_sigma": STUDY.alignment.rbf_sigma,
            "code": code_of("align_layers.py"),
        },
    script:
        "../workflow_scripts/alignment_settings.py"


use rule alignment_settings as calibration_settings with:
    output:
        "results/recipes/settings/calibration.json",
    log:
        "logs/calibration_settings.log",
    params:
        content={
            "permutations": STUDY.alignment.permutations,
            "alpha": STUDY.alignment.alpha,
            "split_selection": STUDY.alignment.split_selection,
            "seed": STUDY.seed,
            "code": code_of("align.py", "calibrate_layers.py"),
        },


rule align:
    input:
        unpack(both_sides),
        settings="results/recipes/settings/alignment.json",
        calibration="results/recipes/settings/calibration.json",
    output:
        score="results/{metric}/{dataset}/{condition}/{a}_vs_{b}.npy",
        recipe="results/{metric}/{dataset}/{condition}/{a}_vs_{b}.json",
    log:
        "logs/align/{metric}/{dataset}/{condition}/{a}_vs_{b}.log",
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        mem_mb=growing(4000),
        runtime=60,
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
        unpack(all_metrics),
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
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=growing(4000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        metrics=list(METRICS),
        seed=STUDY.seed,
    script:
        "../workflow_scripts/align_layers.py"


rule calibrate_layers:
    input:
        unpack(all_metrics),
        matrices=matrices(METRICS, "{dataset}", "{condition}", "{a}", "{b}"),
        recipes=recipes_of(matrices(METRICS, "{dataset}", "{condition}", "{a}", "{b}")),
        settings="results/recipes/settings/alignment.json",
        calibration="results/recipes/settings/calibration.json",
    output:
        calibrations(METRICS, "{dataset}", "{condition}", "{a}", "{b}"),
    log:
        "logs/calibrate_layers/{dataset}/{condition}/{a}_vs_{b}.log",
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=growing(4000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        metrics=list(METRICS),
    script:
        "../workflow_scripts/calibrate_layers.py"
