# Needs: what is said of images (their manifests, files of texts); the checkpoints and recipes of language models; matrices
# of pairs of a language model and another.
# Makes: texts by image, the features of every hidden state, both means over tokens and last tokens, from one pass a text,
# how well each model predicts the texts, and alignment against that.


rule texts:
    input:
        manifest="results/images/{dataset}/clean/manifest.tsv",
        dataset="results/images/{dataset}/clean/dataset.json",
    output:
        "results/texts/{dataset}/{conditioning}.json",
    log:
        "logs/texts/{dataset}/{conditioning}.log",
    wildcard_constraints:
        conditioning=any_of(TEXTS_OF_IMAGES),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        texts=texts_told,
        files=files_told,
        code=code_of("texts.py"),
    script:
        "../workflow_scripts/texts.py"


for name, model in language_models().items():

    rule:
        name:
            extraction_rule(name)
        input:
            unpack(said_inputs),
        output:
            **extraction_outputs(model),
        log:
            f"logs/extract/{{dataset}}/{{condition}}/{EXTRACTED.replace('bundle', 'means')}.log",
        wildcard_constraints:
            means=bundles_of_means(model),
            part=r"\d+",
            parts=r"\d+",
        conda:
            "../envs/models.yaml"
        threads: 4
        resources:
            gpu=1,
            device=STUDY.compute.device,
            device_map=model.device_map or "",
            batch_size=model.batch_size or STUDY.compute.batch_size,
            mem_mb=growing(24000),
            runtime=720,
        params:
            layers=list(model.layers),
        script:
            "../workflow_scripts/extract_texts.py"

    if STUDY.extraction_shards > 1:

        rule:
            name:
                f"merge_texts_{name.replace('.', '_')}"
            input:
                feature_parts(MEANS),
            output:
                **language_outputs(model),
            log:
                "logs/merge_texts/{dataset}/{condition}/{means}.log",
            wildcard_constraints:
                means=bundles_of_means(model),
            conda:
                "../envs/models.yaml"
            threads: 1
            resources:
                batch_size=model.batch_size or STUDY.compute.batch_size,
                mem_mb=growing(8000),
                runtime=120,
            params:
                layers=list(model.layers),
                code=code_of("merge_texts.py"),
            script:
                "../workflow_scripts/merge_texts.py"


rule quality_table:
    input:
        **quality_inputs(),
    output:
        tsv=report(
            "results/tables/quality.tsv",
            caption="../report/quality_table.rst",
            category="Tables",
            labels={"table": "alignment and bits per byte"},
        ),
        parquet="results/tables/quality.parquet",
        correlations_tsv=report(
            "results/tables/quality_correlations.tsv",
            caption="../report/quality_table.rst",
            category="Tables",
            labels={"table": "rank correlations with bits per byte"},
        ),
        correlations_parquet="results/tables/quality_correlations.parquet",
    log:
        "logs/quality_table.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(4000),
        runtime=60,
    params:
        languages=languages(),
        seed=STUDY.seed,
        code=code_of("quality_table.py"),
    script:
        "../workflow_scripts/quality_table.py"


rule quality_figure:
    input:
        table="results/tables/quality.tsv",
        correlations="results/tables/quality_correlations.tsv",
    output:
        report(
            "results/figures/{dataset}/{condition}/quality/{metric}.png",
            caption="../report/quality.rst",
            category="Models",
            subcategory="{dataset}, {condition}",
            labels={"metric": "{metric}", "figure": "alignment and bits per byte"},
        ),
        "results/figures/{dataset}/{condition}/quality/{metric}.pdf",
    log:
        "logs/quality_figure/{dataset}/{condition}/{metric}.log",
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=growing(2000),
        runtime=30,
    params:
        # for the caption
        miniature=any(STUDY.is_miniature(name) for pair in pairs_with_language() for name in pair),
        code=code_of("quality_figure.py"),
    script:
        "../workflow_scripts/quality_figure.py"
