# Inputs: the records that jobs leave in results/provenance, and the files that they are of.
# Outputs: one table of what every file was made from; a check of all files, which fails where one is not as it was.


rule provenance:
    input:
        PLAN.everything_made,
    output:
        paths.PROVENANCE,
    log:
        paths.log("provenance"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(4000),
        runtime=60,
    params:
        code=PLAN.code("provenance.py"),
    script:
        "../workflow_scripts/provenance.py"


# without an output, so that it runs whenever it is asked for
rule verify:
    log:
        paths.log("verify"),
    conda:
        "../envs/models.yaml"
    threads: 1
    resources:
        mem_mb=memory(16000),
        runtime=720,
    params:
        sample=STUDY.compute.verified,
        seed=STUDY.seed,
        temporary=paths.temporary(),
    script:
        "../workflow_scripts/verify.py"
