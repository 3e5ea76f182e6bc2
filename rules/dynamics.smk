# Inputs: checkpoints of diffusion models and their autoencoders, statistics of latents, images; a vision model.
# Outputs: trajectories of every seed; frequencies, features, activations, contributions of layers and alignment along
# them, and figures of all.


rule dynamics_recipe:
    output:
        paths.DYNAMICS_RECIPE,
    log:
        paths.log("dynamics_recipe", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    localrule: True
    conda:
        "../envs/analysis.yaml"
    threads: 1
    params:
        content=as_json(PLAN.dynamics.recipe),
    shell:
        WRITE_CONTENT


rule trajectories:
    input:
        unpack(PLAN.dynamics.trajectory_inputs),
    output:
        directory(paths.TRAJECTORIES),
    log:
        paths.log("trajectories", "model", "configuration", "seed"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
        seed="[0-9]+",
    conda:
        "../envs/models.yaml"
    threads: 4
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        batch_size=PLAN.dynamics.batch_size,
        mem_mb=PLAN.features.checkpoint_memory(16000),
        runtime=720,
    script:
        "../workflow_scripts/trajectories.py"


rule image_dynamics:
    input:
        unpack(PLAN.dynamics.image_inputs),
    output:
        **PLAN.dynamics.tables("curves", "spectra", "times", "order"),
        measures=f"{paths.DYNAMICS}/measures.parquet",
        seed_times=f"{paths.DYNAMICS}/seed_times.parquet",
        recipe=f"{paths.DYNAMICS}/images.json",
    log:
        paths.log("image_dynamics", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        batch_size=STUDY.compute.batch_size,
        mem_mb=memory(8000),
        runtime=240,
    params:
        reference_layer=PLAN.dynamics.reference_layer,
        measuring=PLAN.dynamics.measuring(),
        seed=STUDY.seed,
        code=PLAN.dynamics.code("image_dynamics.py"),
    script:
        "../workflow_scripts/image_dynamics.py"


rule activation_dynamics:
    input:
        unpack(PLAN.dynamics.activation_inputs),
    output:
        **PLAN.dynamics.tables("activations", "associations", "readouts", "attention"),
        pooled=f"{paths.DYNAMICS}/pooled.safetensors",
        recipe=f"{paths.DYNAMICS}/activations.json",
    log:
        paths.log("activation_dynamics", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        batch_size=PLAN.dynamics.batch_size,
        mem_mb=PLAN.features.checkpoint_memory(16000),
        runtime=720,
    params:
        words=PLAN.dynamics.words,
        permutations=STUDY.dynamics.permutations,
        ridge=list(STUDY.dynamics.ridge),
        seed=STUDY.seed,
        code=PLAN.dynamics.code("activation_dynamics.py"),
    script:
        "../workflow_scripts/activation_dynamics.py"


rule contributions:
    input:
        unpack(PLAN.dynamics.contribution_inputs),
    output:
        **PLAN.dynamics.tables("contributions"),
        recipe=f"{paths.DYNAMICS}/contributions.json",
    log:
        paths.log("contributions", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        batch_size=PLAN.dynamics.batch_size,
        mem_mb=PLAN.features.checkpoint_memory(16000),
        runtime=1440,
    params:
        ablations=PLAN.dynamics.ablations,
        measuring=PLAN.dynamics.measuring(),
        code=PLAN.dynamics.code("contributions.py"),
    script:
        "../workflow_scripts/contributions.py"


rule trajectory_alignment:
    input:
        unpack(PLAN.dynamics.alignment_inputs),
        settings=paths.ALIGNMENT_SETTINGS,
        calibration=paths.CALIBRATION_SETTINGS,
    output:
        **PLAN.dynamics.tables("alignment"),
        recipe=f"{paths.DYNAMICS}/alignment.json",
    log:
        paths.log("trajectory_alignment", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        **PLAN.cluster.gpus(),
        device=STUDY.compute.device,
        batch_size=STUDY.compute.batch_size,
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=memory(4000 + STUDY.compute.memory_mb),
        runtime=480,
    params:
        reference_layer=PLAN.dynamics.reference_layer,
        metrics=METRICS,
        k=STUDY.alignment.k,
        preparation=vars(STUDY.alignment.preparation),
        seed=STUDY.seed,
        code=PLAN.dynamics.code("trajectory_alignment.py"),
    script:
        "../workflow_scripts/trajectory_alignment.py"


rule trajectory_sheet_figure:
    input:
        trajectories=PLAN.dynamics.first_trajectories,
    output:
        figure(
            paths.fill(paths.DYNAMICS_FIGURE, figure="trajectory_sheet"),
            caption="trajectory_sheet",
            category="Dynamics",
            subcategory="{configuration}",
            model="{model}",
            figure="trajectory",
        ),
    log:
        paths.log("trajectory_sheet_figure", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        bands=PLAN.dynamics.measuring()["bands"],
        samples=4,
        miniature=PLAN.dynamics.miniature,
        code=PLAN.code("trajectory_sheet_figure.py"),
    script:
        "../workflow_scripts/trajectory_sheet_figure.py"


rule trajectory_animation:
    input:
        trajectories=PLAN.dynamics.first_trajectories,
    output:
        report(
            paths.fill(paths.DYNAMICS_FIGURE, figure="animation") + ".gif",
            caption="../report/trajectory_animation.rst",
            category="Dynamics",
            subcategory="{configuration}",
            labels={"model": "{model}", "figure": "animation"},
        ),
    log:
        paths.log("trajectory_animation", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        samples=6,
        miniature=PLAN.dynamics.miniature,
        code=PLAN.code("trajectory_animation.py"),
    script:
        "../workflow_scripts/trajectory_animation.py"


rule wavelet_figure:
    input:
        trajectories=PLAN.dynamics.first_trajectories,
    output:
        figure(
            paths.fill(paths.DYNAMICS_FIGURE, figure="wavelets"),
            caption="wavelet",
            category="Dynamics",
            subcategory="{configuration}",
            model="{model}",
            figure="wavelets",
        ),
    log:
        paths.log("wavelet_figure", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        wavelet=STUDY.dynamics.wavelet,
        levels=STUDY.dynamics.wavelet_levels,
        miniature=PLAN.dynamics.miniature,
        code=PLAN.code("wavelet_figure.py"),
    script:
        "../workflow_scripts/wavelet_figure.py"


rule spectra_figure:
    input:
        unpack(PLAN.dynamics.beside("spectra")),
    output:
        figure(
            paths.fill(paths.DYNAMICS_FIGURE, figure="spectra/{domain}"),
            caption="spectra",
            category="Dynamics",
            subcategory="{configuration}",
            model="{model}",
            figure="spectra of {domain}",
        ),
    log:
        paths.log("spectra_figure", "model", "configuration", "domain"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
        domain="latents|images",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        domain=lambda wildcards: wildcards.domain,
        miniature=PLAN.dynamics.miniature,
        code=PLAN.code("spectra_figure.py"),
    script:
        "../workflow_scripts/spectra_figure.py"


rule dynamics_curves_figure:
    input:
        unpack(PLAN.dynamics.beside("curves", "times")),
    output:
        figure(
            paths.fill(paths.DYNAMICS_FIGURE, figure="curves"),
            caption="dynamics_curves",
            category="Dynamics",
            subcategory="{configuration}",
            model="{model}",
            figure="curves",
        ),
    log:
        paths.log("dynamics_curves_figure", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        miniature=PLAN.dynamics.miniature,
        code=PLAN.code("dynamics_curves_figure.py"),
    script:
        "../workflow_scripts/dynamics_curves_figure.py"


rule layer_steps_figure:
    input:
        unpack(PLAN.dynamics.layer_inputs),
    output:
        figure(
            paths.fill(paths.DYNAMICS_FIGURE, figure="layer_steps"),
            caption="layer_steps",
            category="Dynamics",
            subcategory="{configuration}",
            model="{model}",
            figure="layers",
        ),
    log:
        paths.log("layer_steps_figure", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        features=PLAN.dynamics.drawn,
        activation="norm",
        method=PLAN.dynamics.drawn_method,
        miniature=PLAN.dynamics.miniature,
        code=PLAN.code("layer_steps_figure.py"),
    script:
        "../workflow_scripts/layer_steps_figure.py"


rule layer_statistics_figure:
    input:
        unpack(PLAN.dynamics.statistics_inputs),
    output:
        figure(
            paths.fill(paths.DYNAMICS_FIGURE, figure="layer_statistics"),
            caption="layer_statistics",
            category="Dynamics",
            subcategory="{configuration}",
            model="{model}",
            figure="statistics of layers",
        ),
    log:
        paths.log("layer_statistics_figure", "model", "configuration"),
    wildcard_constraints:
        model=PLAN.dynamics.checkpoints,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        alpha=STUDY.alignment.alpha,
        miniature=PLAN.dynamics.miniature,
        code=PLAN.code("layer_statistics_figure.py"),
    script:
        "../workflow_scripts/layer_statistics_figure.py"


rule emergence_table:
    input:
        times=PLAN.dynamics.of_all("times"),
        seed_times=PLAN.dynamics.of_all("seed_times"),
    output:
        **{f"times_{kind}": path for kind, path in table("emergence", "emergence", "emergence_table").items()},
        **{
            f"contrasts_{kind}": path
            for kind, path in table("emergence_contrasts", "contrasts of emergence", "emergence_table").items()
        },
    log:
        paths.log("emergence_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        references=PLAN.dynamics.references(),
        code=PLAN.code("emergence_table.py"),
    script:
        "../workflow_scripts/emergence_table.py"


rule emergence_figure:
    input:
        times=paths.fill(paths.TABLE, table="emergence") + ".parquet",
    output:
        figure(
            paths.EMERGENCE_FIGURE,
            caption="emergence",
            category="Dynamics",
            subcategory="all models",
            figure="emergence",
        ),
    log:
        paths.log("emergence_figure"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        miniature=PLAN.dynamics.any_miniature(),
        code=PLAN.code("emergence_figure.py"),
    script:
        "../workflow_scripts/emergence_figure.py"
