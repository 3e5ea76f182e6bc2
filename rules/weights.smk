# Inputs: the hub, an address, a local folder or file, an installed package, latents of a data set, or nothing
# (miniatures, models without weights).
# Outputs: a folder with the checkpoint of every model, and weights.json with its source (commit, sha256 of all files);
# the statistics of latents that lie beside some; for untrained twins, the configuration or random weights.


rule weights:
    output:
        folder=directory(paths.CHECKPOINT),
        record=paths.CHECKPOINT_RECORD,
    log:
        paths.log("weights", "model"),
    wildcard_constraints:
        model=PLAN.weights.models_from("hub", "folder", "file", "url", "package", "none"),
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        model=PLAN.weights.spec,
        files=PLAN.weights.own_files,
        downloads=below_prefix(paths.DOWNLOADS),
    script:
        "../workflow_scripts/weights.py"


rule given_statistics:
    input:
        weights=paths.CHECKPOINT,
        record=paths.CHECKPOINT_RECORD,
    output:
        paths.GIVEN_STATISTICS,
    log:
        paths.log("given_statistics", "model"),
    wildcard_constraints:
        model=PLAN.weights.with_statistics,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        asked=PLAN.weights.statistics_spec,
        code=PLAN.code("given_statistics.py"),
    script:
        "../workflow_scripts/given_statistics.py"


rule miniature_weights:
    output:
        folder=directory(paths.CHECKPOINT),
        record=paths.CHECKPOINT_RECORD,
    log:
        paths.log("miniature_weights", "model"),
    wildcard_constraints:
        model=PLAN.weights.models_from("miniature"),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        model=PLAN.weights.spec,
        seed=STUDY.seed,
        code=PLAN.code_with_family("miniature_weights.py"),
    script:
        "../workflow_scripts/miniature_weights.py"


rule latent_spectrum:
    input:
        unpack(PLAN.weights.spectrum_inputs),
    output:
        folder=directory(paths.CHECKPOINT),
        record=paths.CHECKPOINT_RECORD,
    log:
        paths.log("latent_spectrum", "model"),
    wildcard_constraints:
        model=PLAN.weights.models_from("latents"),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        model=PLAN.weights.spectrum_spec,
        code=PLAN.code("latent_spectrum.py"),
    script:
        "../workflow_scripts/latent_spectrum.py"


rule untrained_configuration:
    input:
        PLAN.weights.untrained_configuration,
    output:
        folder=directory(paths.UNTRAINED_CHECKPOINT),
        record=paths.UNTRAINED_RECORD,
    log:
        paths.log("untrained_configuration", "model"),
    wildcard_constraints:
        model=PLAN.weights.untrained_models(written=False),
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        model=PLAN.weights.spec,
        code=PLAN.code("untrained_configuration.py"),
    script:
        "../workflow_scripts/untrained_configuration.py"


rule untrained_weights:
    output:
        folder=directory(paths.UNTRAINED_CHECKPOINT),
        record=paths.UNTRAINED_RECORD,
    log:
        paths.log("untrained_weights", "model"),
    wildcard_constraints:
        model=PLAN.weights.untrained_models(written=True),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
    params:
        model=PLAN.weights.spec,
        twin=PLAN.weights.untrained_spec,
        code=PLAN.code_with_family("untrained_weights.py"),
    script:
        "../workflow_scripts/untrained_weights.py"
