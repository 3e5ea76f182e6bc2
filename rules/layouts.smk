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
