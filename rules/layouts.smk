# Needs: feature files that were made elsewhere (models of family precomputed); features and matrices of the study.
# Makes: feature files in the place of an extraction; on request, results in the layouts of other projects.


for name, model in precomputed_models().items():

    rule:
        name:
            f"import_{name.replace('.', '_')}"
        input:
            recipe="results/recipes/{bundle}.json",
        output:
            features=[f"{FEATURES}/{layer}.pt" for layer in model.layers],
            manifest=f"{FEATURES}/layers.json",
        log:
            "logs/import/{dataset}/{condition}/{bundle}.log",
        wildcard_constraints:
            bundle=names.bundle_pattern(name, model.vocabulary),
        conda:
            "../envs/models.yaml"
        threads: 1
        resources:
            mem_mb=growing(8000),
            runtime=60,
        params:
            layers=list(model.layers),
        script:
            "../workflow_scripts/import_features.py"


rule export_vfmvae:
    input:
        unpack(manifest_of_images),
        features=exported_layer,
    output:
        features=f"{EXPORT}/vfmvae/{{dataset}}/{{condition}}/{{a}}.pt",
        recipe=f"{EXPORT}/vfmvae/{{dataset}}/{{condition}}/{{a}}.json",
    log:
        "logs/export_vfmvae/{dataset}/{condition}/{a}.log",
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=30,
    params:
        layout="vfmvae",
        code=code_of("export_features.py"),
    script:
        "../workflow_scripts/export_features.py"


use rule export_vfmvae as export_thingsvision with:
    output:
        features=f"{EXPORT}/thingsvision/{{dataset}}/{{condition}}/{{a}}/features.npy",
        names=f"{EXPORT}/thingsvision/{{dataset}}/{{condition}}/{{a}}/file_names.txt",
        recipe=f"{EXPORT}/thingsvision/{{dataset}}/{{condition}}/{{a}}/recipe.json",
    log:
        "logs/export_thingsvision/{dataset}/{condition}/{a}.log",
    params:
        layout="thingsvision",
        code=code_of("export_features.py"),


# all layers of a model in one file
use rule export_vfmvae as export_platonic with:
    input:
        features=exported_layers,
    output:
        features=f"{EXPORT}/platonic/{{dataset}}/{{condition}}/{{a}}.pt",
        names=f"{EXPORT}/platonic/{{dataset}}/{{condition}}/{{a}}.txt",
        recipe=f"{EXPORT}/platonic/{{dataset}}/{{condition}}/{{a}}.json",
    log:
        "logs/export_platonic/{dataset}/{condition}/{a}.log",
    wildcard_constraints:
        a=TYPED,
    params:
        layout="platonic",
        code=code_of("export_features.py"),


rule export_platonic_alignment:
    input:
        matrix="results/{metric}/{dataset}/{condition}/layers/{a}_vs_{b}.npy",
        recipe="results/{metric}/{dataset}/{condition}/layers/{a}_vs_{b}.json",
    output:
        alignment=f"{EXPORT}/platonic/{{dataset}}/{{condition}}/{{a}}_vs_{{b}}/{{metric}}_k{STUDY.alignment.k}.npy",
        recipe=f"{EXPORT}/platonic/{{dataset}}/{{condition}}/{{a}}_vs_{{b}}/{{metric}}_k{STUDY.alignment.k}.json",
    log:
        "logs/export_platonic_alignment/{metric}/{dataset}/{condition}/{a}_vs_{b}.log",
    wildcard_constraints:
        a=TYPED,
        b=TYPED,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        code=code_of("export_alignment.py"),
    script:
        "../workflow_scripts/export_alignment.py"


# clean and noisy images, rotations and scales, as VFM-VAE keeps them
rule export_images:
    input:
        folders=[f"results/images/{{dataset}}/{condition}/png" for condition in published_conditions()],
        manifest="results/images/{dataset}/equivariance/manifest.tsv",
    output:
        folders=[directory(f"{EXPORT}/transformed_images/{{dataset}}/{c}") for c in published_conditions()],
        records=f"{EXPORT}/transformed_images/{{dataset}}/equivariance_transforms.json",
    log:
        "logs/export_images/{dataset}.log",
    wildcard_constraints:
        dataset=with_images(),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=120,
    params:
        code=code_of("export_images.py"),
    script:
        "../workflow_scripts/export_images.py"
