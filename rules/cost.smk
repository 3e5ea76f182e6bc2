# Inputs: none: the plan of the study.
# Outputs: on request, what the study costs before it is started: jobs, hours, bytes, by rule and model.


rule cost:
    output:
        **table("cost", "what the study costs"),
    log:
        paths.log("cost"),
    localrule: True
    conda:
        "../envs/plan.yaml"
    params:
        # the plan is another one wherever the configuration is
        study=lambda wildcards: PLAN.cost.digest(config),
        code=PLAN.code("cost.py"),
    script:
        "../workflow_scripts/cost.py"
