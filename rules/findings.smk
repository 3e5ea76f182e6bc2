# Inputs: tables over trainings, of atlases, contrasts and shared spaces, and orders of emergence.
# Outputs: what they say, one sentence a finding, with values, intervals, and over what these are.


rule findings:
    input:
        **PLAN.findings.inputs(),
    output:
        tsv=reported(PLAN.findings.outputs["tsv"], "findings", "findings_table"),
        parquet=PLAN.findings.outputs["parquet"],
        text=report(PLAN.findings.outputs["text"], "../report/findings_table.rst", category="Findings"),
    log:
        paths.log("findings"),
    conda:
        "../envs/analysis.yaml"
    threads: 1
    resources:
        mem_mb=memory(2000),
        runtime=10,
    params:
        metrics=METRICS,
        reference=STUDY.through_training.reference,
        towards=PLAN.findings.towards(),
        references=PLAN.dynamics.references(),
        spaces=PLAN.shared_space.named(),
        code=PLAN.code("findings.py"),
    script:
        "../workflow_scripts/findings.py"
