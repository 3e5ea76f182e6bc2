# Inputs: human choices on the objects of a data set of kind things; features of bundles on this data set.
# Outputs: odd-one-out accuracies of every layer, probes, regressions to human dimensions; figures of all models.


rule human_choices:
    output:
        paths.CHOICES,
    log:
        paths.log("human_choices", "dataset", "triplets"),
    wildcard_constraints:
        dataset=PLAN.human.datasets,
        triplets=PLAN.human.triplet_words,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
    params:
        concepts=PLAN.stimuli.concepts,
        triplets=PLAN.human.triplet_source,
        dimensions=PLAN.human.dimensions,
        files=PLAN.human.choice_files,
        code=PLAN.code("human_choices.py"),
    script:
        "../workflow_scripts/human_choices.py"


rule odd_one_out:
    input:
        unpack(PLAN.human.inputs),
    output:
        **PLAN.human.outputs(paths.fill(paths.ANALYSIS, analysis="odd_one_out"), choices=".npz"),
    log:
        paths.log("odd_one_out", "dataset", "condition", "bundle"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.features.memory(6000 + STUDY.compute.memory_mb, copies=4),
        runtime=60,
    params:
        settings=PLAN.human.settings(pca=STUDY.human.pca, precision=STUDY.human.precision),
        code=PLAN.code("odd_one_out.py"),
    script:
        "../workflow_scripts/odd_one_out.py"


use rule odd_one_out as odd_one_out_combined with:
    input:
        unpack(PLAN.human.combined_inputs),
    output:
        **PLAN.human.outputs(paths.fill(paths.COMBINED, analysis="odd_one_out"), choices=".npz"),
    log:
        paths.log("odd_one_out_combined", "dataset", "condition", "combined"),
    wildcard_constraints:
        combined=PLAN.human.combinations,
    params:
        settings=PLAN.human.settings(pca=STUDY.human.pca, precision=STUDY.human.precision),
        combined=PLAN.human.combination,
        transform=PLAN.human.transform_file,
        code=PLAN.code("odd_one_out.py"),


rule odd_one_out_figure:
    input:
        unpack(PLAN.human.odd_one_out_results),
    output:
        figure(
            paths.fill(paths.HUMAN_FIGURE, analysis="odd_one_out"),
            caption="odd_one_out",
            category="People",
            subcategory="{dataset}, {condition}",
            figure="odd one out",
        ),
    log:
        paths.log("odd_one_out_figure", "dataset", "condition"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        **PLAN.human.figure_params(),
        code=PLAN.code("odd_one_out_figure.py"),
    script:
        "../workflow_scripts/odd_one_out_figure.py"


rule human_rsa:
    input:
        layers=PLAN.features.manifest,
    output:
        **PLAN.human.outputs(paths.fill(paths.ANALYSIS, analysis="human_rsa")),
    log:
        paths.log("human_rsa", "dataset", "condition", "bundle"),
    wildcard_constraints:
        dataset=PLAN.human.datasets,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=60,
    params:
        concepts=PLAN.stimuli.concepts,
        similarities=PLAN.human.similarities,
        files=PLAN.human.similarity_files,
        distance=STUDY.human.distance,
        seed=STUDY.seed,
        code=PLAN.code("human_rsa.py"),
    script:
        "../workflow_scripts/human_rsa.py"


rule reduction:
    input:
        unpack(PLAN.human.reduction_inputs),
    output:
        **PLAN.human.outputs(paths.fill(paths.ANALYSIS, analysis="reduction")),
    log:
        paths.log("reduction", "dataset", "condition", "bundle"),
    conda:
        "../envs/models.yaml"
    threads: 8
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=memory(8000 + STUDY.compute.memory_mb),
        runtime=240,
    params:
        settings=PLAN.human.settings(**PLAN.human.reduction()),
        # of the tokens, which are temporary
        layers=PLAN.human.reduced_layers,
        code=PLAN.code("reduction.py"),
    script:
        "../workflow_scripts/reduction.py"


rule regression:
    input:
        unpack(PLAN.human.inputs),
    output:
        **PLAN.human.outputs(paths.fill(paths.ANALYSIS, analysis="regression"), predictions=".npz"),
    log:
        paths.log("regression", "dataset", "condition", "bundle"),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=PLAN.features.memory(6000 + STUDY.compute.memory_mb, copies=4),
        runtime=120,
    params:
        settings=PLAN.human.settings(**STUDY.human.regression.plain()),
        code=PLAN.code("regression.py"),
    script:
        "../workflow_scripts/regression.py"


rule probe:
    input:
        unpack(PLAN.human.inputs),
    output:
        **PLAN.human.outputs(paths.fill(paths.ANALYSIS, analysis="probe")),
        transforms=directory(paths.fill(paths.ANALYSIS, analysis="probe")),
    log:
        paths.log("probe", "dataset", "condition", "bundle"),
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        mem_mb=PLAN.features.memory(12000, copies=4),
        runtime=720,
    params:
        **PLAN.human.settings(plan=STUDY.human.probe.plain()),
        # not an output, so that it survives a killed job
        checkpoints=below_prefix(paths.PROBE_CHECKPOINTS),
        code=PLAN.code("probe.py"),
    script:
        "../workflow_scripts/probe.py"


use rule regression as regression_combined with:
    input:
        unpack(PLAN.human.combined_inputs),
    output:
        **PLAN.human.outputs(paths.fill(paths.COMBINED, analysis="regression"), predictions=".npz"),
    log:
        paths.log("regression_combined", "dataset", "condition", "combined"),
    wildcard_constraints:
        combined=PLAN.human.combinations,
    params:
        settings=PLAN.human.settings(**STUDY.human.regression.plain()),
        combined=PLAN.human.combination,
        transform=PLAN.human.transform_file,
        code=PLAN.code("regression.py"),


use rule probe as probe_combined with:
    input:
        unpack(PLAN.human.combined_inputs),
    output:
        **PLAN.human.outputs(paths.fill(paths.COMBINED, analysis="probe")),
        transforms=directory(paths.fill(paths.COMBINED, analysis="probe")),
    log:
        paths.log("probe_combined", "dataset", "condition", "combined"),
    wildcard_constraints:
        combined=PLAN.human.combinations,
    params:
        **PLAN.human.settings(plan=STUDY.human.probe.plain()),
        combined=PLAN.human.combination,
        transform=PLAN.human.transform_file,
        checkpoints=below_prefix(paths.COMBINED_CHECKPOINTS),
        code=PLAN.code("probe.py"),


rule regression_figure:
    input:
        unpack(PLAN.human.regression_results),
    output:
        figure(
            paths.fill(paths.HUMAN_FIGURE, analysis="regression"),
            caption="regression",
            category="People",
            subcategory="{dataset}, {condition}",
            figure="human dimensions",
        ),
    log:
        paths.log("regression_figure", "dataset", "condition"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        **PLAN.human.figure_params(),
        code=PLAN.code("regression_figure.py"),
    script:
        "../workflow_scripts/regression_figure.py"


rule probe_figure:
    input:
        unpack(PLAN.human.probe_results),
    output:
        figure(
            paths.fill(paths.HUMAN_FIGURE, analysis="probe"),
            caption="probe",
            category="People",
            subcategory="{dataset}, {condition}",
            figure="before and after a probe",
        ),
    log:
        paths.log("probe_figure", "dataset", "condition"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        **PLAN.human.figure_params(),
        code=PLAN.code("probe_figure.py"),
    script:
        "../workflow_scripts/probe_figure.py"


rule noise_levels_figure:
    input:
        unpack(PLAN.human.over_noise),
    output:
        figure(
            paths.NOISE_FIGURE,
            caption="noise_levels",
            category="People",
            subcategory="{dataset}, {condition}",
            figure="{model} over noise levels",
        ),
    log:
        paths.log("noise_levels_figure", "dataset", "condition", "model"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        **PLAN.human.figure_params(),
        grid=PLAN.human.noise_grid_of,
        code=PLAN.code("noise_levels_figure.py"),
    script:
        "../workflow_scripts/noise_levels_figure.py"


rule human_table:
    input:
        **PLAN.human.table_inputs(),
    output:
        **table("human", "models and people"),
    log:
        paths.log("human_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        places=PLAN.human.places(),
        bundles=PLAN.human.table_bundles(),
        code=PLAN.code("human_table.py"),
    script:
        "../workflow_scripts/human_table.py"


rule human_differences:
    input:
        **PLAN.human.difference_inputs(),
    output:
        **table("human_differences", "differences between models in predicting people"),
    log:
        paths.log("human_differences"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=120,
    params:
        places=PLAN.human.places(),
        bundles=PLAN.human.table_bundles(),
        seed=STUDY.seed,
        code=PLAN.code("human_differences.py"),
    script:
        "../workflow_scripts/human_differences.py"


rule disagreements_figure:
    input:
        unpack(PLAN.human.inputs_of_layer),
    output:
        figure(
            paths.DISAGREEMENTS_FIGURE,
            tabled=True,
            caption="disagreements",
            category="People",
            subcategory="{dataset}, {condition}",
            figure="disagreements of {a}",
        ),
    log:
        paths.log("disagreements_figure", "dataset", "condition", "a"),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
    params:
        layer=PLAN.human.layer,
        distance=STUDY.human.distance,
        # for the caption
        miniature=PLAN.figures.miniature("a"),
        code=PLAN.code("disagreements_figure.py"),
    script:
        "../workflow_scripts/disagreements_figure.py"
