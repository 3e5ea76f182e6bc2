# Inputs: un-pooled tokens of layers, pooled features of pairs of layers, images, masks of their parts.
# Outputs: transforms into one space, scores before and after, pictures of normalized cuts; the toy study.


rule didactic_alignment:
    output:
        **PLAN.shared_space.tables(paths.DIDACTIC, "summary", "claims"),
        seeds=f"{paths.DIDACTIC}/seeds.parquet",
        arrays=f"{paths.DIDACTIC}/first_seed.npz",
    log:
        paths.log("didactic_alignment"),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        seeds=list(range(PLAN.shared_space.didactic.seeds)),
        c=PLAN.shared_space.didactic.affinity,
        landmarks=PLAN.shared_space.didactic.landmarks,
        half_shared=PLAN.shared_space.didactic.half_shared.plain(),
        code=PLAN.code("didactic_alignment.py"),
    script:
        "../workflow_scripts/didactic_alignment.py"


rule didactic_alignment_figure:
    input:
        seeds=f"{paths.DIDACTIC}/seeds.parquet",
        arrays=f"{paths.DIDACTIC}/first_seed.npz",
    output:
        figure(paths.DIDACTIC_FIGURE, "didactic_alignment", "Shared space", "toy study", figure="{figure}"),
    log:
        paths.log("didactic_alignment_figure", "figure"),
    wildcard_constraints:
        figure="cases|targets",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        figure=lambda wildcards: wildcards.figure,
        code=PLAN.code("didactic_alignment_figure.py"),
    script:
        "../workflow_scripts/didactic_alignment_figure.py"


rule shared_space:
    input:
        unpack(PLAN.shared_space.space_inputs),
    output:
        **PLAN.shared_space.tables(paths.SPACE, "consistency", "edges"),
        eigenvectors=f"{paths.SPACE}/eigenvectors.safetensors",
        transforms=f"{paths.SPACE}/transforms.safetensors",
        recipe=f"{paths.SPACE}/recipe.json",
    log:
        paths.log("shared_space", "space"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        memory_mb=STUDY.compute.memory_mb,
        mem_mb=memory(16000),
        runtime=240,
    params:
        sets=PLAN.shared_space.sets,
        settings=PLAN.shared_space.space_settings,
        code=PLAN.code("shared_space.py"),
    script:
        "../workflow_scripts/shared_space.py"


rule shared_space_figure:
    input:
        unpack(PLAN.shared_space.picture_inputs),
        eigenvectors=f"{paths.SPACE}/eigenvectors.safetensors",
        consistency=f"{paths.SPACE}/consistency.parquet",
        edges=f"{paths.SPACE}/edges.parquet",
    output:
        figure(paths.SPACE_FIGURE, "shared_space", "Shared space", "pictures", space="{space}"),
    log:
        paths.log("shared_space_figure", "space"),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        shown=6,
        miniature=PLAN.shared_space.miniature,
        code=PLAN.code("shared_space_figure.py"),
    script:
        "../workflow_scripts/shared_space_figure.py"


rule shared_transforms:
    input:
        unpack(PLAN.shared_space.pair_inputs),
    output:
        **PLAN.shared_space.transforms(),
        recipe=f"{paths.ALIGNED_PAIR}/transforms.json",
    log:
        paths.log("shared_transforms", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        mem_mb=memory(8000),
        runtime=240,
    params:
        layers=PLAN.shared_space.pair_layers,
        settings=PLAN.shared_space.pair_settings(),
        code=PLAN.code("shared_transforms.py"),
    script:
        "../workflow_scripts/shared_transforms.py"


rule shared_scores:
    input:
        unpack(PLAN.shared_space.pair_inputs),
        transforms=list(PLAN.shared_space.transforms().values()),
        recipe=f"{paths.ALIGNED_PAIR}/transforms.json",
    output:
        **PLAN.shared_space.tables(paths.ALIGNED_PAIR, "scores", "contrasts"),
        recipe=f"{paths.ALIGNED_PAIR}/scores.json",
    log:
        paths.log("shared_scores", "dataset", "condition", "a", "b"),
    conda:
        "../envs/models.yaml"
    threads: 2
    resources:
        mem_mb=memory(8000),
        runtime=240,
    params:
        layers=PLAN.shared_space.pair_layers,
        settings=PLAN.shared_space.pair_settings(),
        code=PLAN.code("shared_scores.py"),
    script:
        "../workflow_scripts/shared_scores.py"


rule shared_scores_figure:
    input:
        scores=f"{paths.ALIGNED_PAIR}/scores.parquet",
        contrasts=f"{paths.ALIGNED_PAIR}/contrasts.parquet",
    output:
        figure(paths.ALIGNED_PAIR_FIGURE, "shared_scores", "Shared space", "pairs", pair="{a}_vs_{b}"),
    log:
        paths.log("shared_scores_figure", "dataset", "condition", "a", "b"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        miniature=PLAN.shared_space.miniature_pair,
        code=PLAN.code("shared_scores_figure.py"),
    script:
        "../workflow_scripts/shared_scores_figure.py"
