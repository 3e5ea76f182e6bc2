# Inputs: the folder of a data set, or images that installed packages hold.
# Outputs: square PNG files, a manifest (name, label, caption, sha256) and dataset.json of every data set, and of the
# rotated and noisy images made from these.


rule hub_table:
    output:
        folder=directory(paths.DOWNLOADED_TABLE),
        record=paths.DOWNLOADED_TABLE_RECORD,
    log:
        paths.log("hub_table", "dataset"),
    wildcard_constraints:
        dataset=PLAN.stimuli.on_hub,
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        source=PLAN.stimuli.hub,
    script:
        "../workflow_scripts/hub_table.py"


rule archive:
    output:
        folder=directory(paths.UNPACKED),
        record=paths.UNPACKED_RECORD,
    log:
        paths.log("archive", "dataset"),
    wildcard_constraints:
        dataset=PLAN.stimuli.in_archives,
    localrule: True
    conda:
        "../envs/models.yaml"
    params:
        source=PLAN.stimuli.archive,
        files=PLAN.stimuli.archive_file,
    script:
        "../workflow_scripts/archive.py"


rule images:
    input:
        unpack(PLAN.stimuli.downloaded_table),
    output:
        folder=directory(paths.PICTURES),
        manifest=paths.MANIFEST,
        spec=paths.DATASET_RECORD,
    log:
        paths.log("images", "dataset", "condition"),
    wildcard_constraints:
        dataset=PLAN.stimuli.with_images,
        condition=CLEAN,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=240,
    params:
        dataset=PLAN.stimuli.dataset,
        concepts=PLAN.stimuli.concepts,
        seed=PLAN.stimuli.sample_seed,
        files=PLAN.stimuli.own_files,
        code=PLAN.code("images.py"),
    script:
        "../workflow_scripts/images.py"


rule part_masks:
    input:
        manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
        spec=paths.fill(paths.DATASET_RECORD, condition=CLEAN),
    output:
        directory(paths.PART_MASKS),
    log:
        paths.log("part_masks", "dataset"),
    wildcard_constraints:
        dataset=PLAN.stimuli.with_parts,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=60,
    params:
        dataset=PLAN.stimuli.dataset_with_parts,
        files=PLAN.stimuli.part_files,
        code=PLAN.code("part_masks.py"),
    script:
        "../workflow_scripts/part_masks.py"


rule named_texts:
    input:
        unpack(PLAN.stimuli.downloaded_table),
    output:
        manifest=paths.MANIFEST,
        spec=paths.DATASET_RECORD,
    log:
        paths.log("named_texts", "dataset", "condition"),
    wildcard_constraints:
        dataset=PLAN.stimuli.with_texts_alone,
        condition=CLEAN,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        dataset=PLAN.stimuli.dataset,
        seed=PLAN.stimuli.sample_seed,
        files=PLAN.stimuli.own_files,
        code=PLAN.code("named_texts.py"),
    script:
        "../workflow_scripts/named_texts.py"


rule transformed_images:
    input:
        unpack(PLAN.stimuli.unpacked),
        clean=paths.fill(paths.PICTURES, condition=CLEAN),
        manifest=paths.fill(paths.MANIFEST, condition=CLEAN),
        spec=paths.fill(paths.DATASET_RECORD, condition=CLEAN),
    output:
        folder=directory(paths.PICTURES),
        manifest=paths.MANIFEST,
        spec=paths.DATASET_RECORD,
    log:
        paths.log("transformed_images", "dataset", "condition"),
    wildcard_constraints:
        dataset=PLAN.stimuli.with_images,
        condition=PLAN.stimuli.transforms,
    conda:
        "../envs/analysis.yaml"
    threads: 4
    resources:
        workers=STUDY.compute.workers,
        mem_mb=memory(4000),
        runtime=120,
    params:
        seeding=STUDY.transforms.seeding,
        seed=STUDY.transforms.seed,
        published=PLAN.stimuli.published_images,
        files=PLAN.stimuli.published_files,
        code=PLAN.code("transformed_images.py"),
    script:
        "../workflow_scripts/transformed_images.py"


rule concepts:
    output:
        manifest=paths.MANIFEST,
        spec=paths.DATASET_RECORD,
    log:
        paths.log("concepts", "dataset", "condition"),
    wildcard_constraints:
        dataset=PLAN.stimuli.with_concepts_alone,
        condition=CLEAN,
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=30,
    params:
        dataset=PLAN.stimuli.dataset,
        concepts=PLAN.stimuli.concepts,
        files=PLAN.stimuli.concept_file,
        code=PLAN.code("concepts.py"),
    script:
        "../workflow_scripts/concepts.py"
