# Inputs: precomputed feature files (models of family precomputed); features and matrices of the study; scores of others.
# Outputs: feature files in place of an extraction; scores of others in a table; on request, results in the layouts of
# other projects.


rule fetch_features:
    output:
        features=paths.DOWNLOADED_FEATURES,
        record=paths.DOWNLOADED_FEATURES_RECORD,
    log:
        paths.log("fetch_features", "model", "file"),
    wildcard_constraints:
        model=PLAN.features.downloaded,
        file=PLAN.features.downloads,
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        url=PLAN.features.url,
        sha256=PLAN.features.url_sha256,
    script:
        "../workflow_scripts/fetch_features.py"


# sizes and modification times of local files of one data set and condition
use rule recipe as feature_sources with:
    output:
        paths.FEATURE_SOURCES,
    log:
        paths.log("feature_sources", "dataset", "condition", "model"),
    wildcard_constraints:
        model=PLAN.features.on_disk,
    localrule: True
    params:
        content=as_json(PLAN.features.feature_sources),


for name, model in PLAN.features.precomputed_models.items():

    rule:
        name:
            PLAN.features.rule_name("import", name)
        input:
            **PLAN.features.import_inputs(name),
        output:
            **FEATURES,
        log:
            paths.log("import_features", "dataset", "condition", "bundle"),
        wildcard_constraints:
            bundle=PLAN.features.bundles(model),
        conda:
            "../envs/models.yaml"
        threads: 1
        resources:
            mem_mb=PLAN.features.memory(4000, model, copies=2),
            runtime=60,
        script:
            "../workflow_scripts/import_features.py"

    if model.features.bits_per_byte:

        rule:
            name:
                PLAN.features.rule_name("import_bits_per_byte", name)
            input:
                **PLAN.features.download(name),
            output:
                paths.LOSSES,
            log:
                paths.log("import_bits_per_byte", "dataset", "condition", "means"),
            wildcard_constraints:
                means=PLAN.features.bundles(model),
            conda:
                "../envs/models.yaml"
            threads: 1
            resources:
                mem_mb=memory(8000),
                runtime=60,
            params:
                path=PLAN.language.import_file,
                files=PLAN.language.import_digest,
                code=PLAN.code("import_bits_per_byte.py"),
            script:
                "../workflow_scripts/import_bits_per_byte.py"


rule published_scores_table:
    input:
        **PLAN.exchange.inputs(),
    output:
        **table("published_scores", "published scores"),
    log:
        paths.log("published_scores_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        files=PLAN.exchange.files(),
        metrics=PLAN.exchange.metrics(),
        digests=PLAN.exchange.digests(),
        k=STUDY.alignment.k,
        code=PLAN.code("published_scores_table.py"),
    script:
        "../workflow_scripts/published_scores_table.py"


rule published_people_table:
    input:
        **PLAN.exchange.people_inputs(),
    output:
        **table("published_people", "published accuracies of models and people"),
    log:
        paths.log("published_people_table"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        files=PLAN.exchange.people_files(),
        digests=PLAN.exchange.people_digests(),
        names=PLAN.exchange.people_names(),
        reductions=PLAN.exchange.reductions(),
        settings=PLAN.exchange.people_settings(),
        code=PLAN.code("published_people_table.py"),
    script:
        "../workflow_scripts/published_people_table.py"


rule export_vfmvae:
    input:
        unpack(PLAN.stimuli.manifest),
        features=PLAN.layouts.features,
    output:
        features=f"{paths.fill(paths.EXPORT, layout='vfmvae')}.pt",
        recipe=f"{paths.fill(paths.EXPORT, layout='vfmvae')}.json",
    log:
        paths.log("export_vfmvae", "dataset", "condition", "a"),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=30,
    params:
        layout="vfmvae",
        layers=PLAN.layouts.one_layer,
        code=PLAN.code("export_features.py"),
    script:
        "../workflow_scripts/export_features.py"


# all layers of a diffusion model, or the default layer of another, in files with the published names
use rule export_vfmvae as export_vfmvae_files with:
    input:
        unpack(PLAN.stimuli.manifest),
        features=PLAN.layouts.features,
    output:
        features=directory(f"{paths.fill(paths.EXPORT, layout='vfmvae')}/features"),
        recipe=f"{paths.fill(paths.EXPORT, layout='vfmvae')}/recipe.json",
    log:
        paths.log("export_vfmvae_files", "dataset", "condition", "a"),
    wildcard_constraints:
        a=TYPED,
    params:
        layout="vfmvae_files",
        layers=PLAN.layouts.published_layers,
        code=PLAN.code("export_features.py"),


use rule export_vfmvae as export_thingsvision with:
    output:
        features=f"{paths.fill(paths.EXPORT, layout='thingsvision')}/features.npy",
        names=f"{paths.fill(paths.EXPORT, layout='thingsvision')}/file_names.txt",
        recipe=f"{paths.fill(paths.EXPORT, layout='thingsvision')}/recipe.json",
    log:
        paths.log("export_thingsvision", "dataset", "condition", "a"),
    params:
        layout="thingsvision",
        layers=PLAN.layouts.one_layer,
        code=PLAN.code("export_features.py"),


# all layers of a model in one file
use rule export_vfmvae as export_platonic with:
    input:
        unpack(PLAN.layouts.platonic_features),
    output:
        features=f"{paths.fill(paths.EXPORT, layout='platonic')}.pt",
        names=f"{paths.fill(paths.EXPORT, layout='platonic')}.txt",
        recipe=f"{paths.fill(paths.EXPORT, layout='platonic')}.json",
    log:
        paths.log("export_platonic", "dataset", "condition", "a"),
    wildcard_constraints:
        a=TYPED,
    params:
        layout="platonic",
        layers=PLAN.layouts.all_layers,
        code=PLAN.code("export_features.py"),


rule export_platonic_alignment:
    input:
        matrices=paths.MATRICES,
    output:
        alignment=f"{paths.EXPORT_PAIR}.npy",
        recipe=f"{paths.EXPORT_PAIR}.json",
    log:
        paths.log("export_platonic_alignment", "scores", "dataset", "condition", "a", "b"),
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        metric=PLAN.layouts.metric,
        code=PLAN.code("export_alignment.py"),
    script:
        "../workflow_scripts/export_alignment.py"


# all pairs between the two sides of the study in one file
use rule export_platonic_alignment as export_platonic_set with:
    input:
        matrices=PLAN.layouts.scores_of_set,
    output:
        alignment=f"{paths.EXPORT_SET}.npy",
        recipe=f"{paths.EXPORT_SET}.json",
    log:
        paths.log("export_platonic_set", "scores", "dataset", "condition"),


# features and accuracies beside people in the layout of the published code of diffusion models
rule export_people:
    input:
        unpack(PLAN.layouts.people_inputs),
    output:
        features=directory(f"{paths.EXPORT_PEOPLE}/features"),
        together=f"{paths.EXPORT_PEOPLE}/model_features_per_source_cleaned.pkl",
        alignment=f"{paths.EXPORT_PEOPLE}/alignment.pkl",
        recipe=f"{paths.EXPORT_PEOPLE}/recipe.json",
    log:
        paths.log("export_people", "dataset", "condition", "a"),
    wildcard_constraints:
        a=TYPED,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
    params:
        concepts=PLAN.stimuli.concepts,
        published=PLAN.layouts.published,
        code=PLAN.code("export_people.py"),
    script:
        "../workflow_scripts/export_people.py"


rule export_probe:
    input:
        unpack(PLAN.layouts.probe_inputs),
    output:
        directory(f"{paths.EXPORT_PEOPLE}/results"),
    log:
        paths.log("export_probe", "dataset", "condition", "a"),
    wildcard_constraints:
        a=TYPED,
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(8000),
        runtime=30,
    params:
        published=PLAN.layouts.published,
        code=PLAN.code("export_probe.py"),
    script:
        "../workflow_scripts/export_probe.py"


rule export_reduction:
    input:
        unpack(PLAN.layouts.reduction_inputs),
    output:
        directory(f"{paths.EXPORT_PEOPLE}/reduction"),
    log:
        paths.log("export_reduction", "dataset", "condition", "a"),
    wildcard_constraints:
        a=TYPED,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        modules=PLAN.layouts.modules,
        published=PLAN.layouts.published,
        code=PLAN.code("export_reduction.py"),
    script:
        "../workflow_scripts/export_reduction.py"


# clean and noisy images, rotations and scales in VFM-VAE's layout
rule export_images:
    input:
        folders=PLAN.layouts.pictures(),
        manifest=paths.fill(paths.MANIFEST, condition="equivariance"),
    output:
        folders=[directory(folder) for folder in PLAN.layouts.picture_folders()],
        records=f"{paths.EXPORT_IMAGES}/equivariance_transforms.json",
    log:
        paths.log("export_images", "dataset"),
    wildcard_constraints:
        dataset=PLAN.stimuli.with_images,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=120,
    params:
        code=PLAN.code("export_images.py"),
    script:
        "../workflow_scripts/export_images.py"
