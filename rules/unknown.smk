# Needs: a target that no other rule makes. Makes: an error that names the unknown word and the nearest known one.
# Included last: its pattern leaves out every file that the rules before it make.


rule unknown_target:
    input:
        refuse,
    output:
        "{target}",
    log:
        "logs/unknown_target/{target}.log",
    wildcard_constraints:
        target=f"(?!{made_by(workflow.rules)}$)(?:results|resources)/.+",
    conda:
        "../envs/analysis.yaml"
    shell:
        "false"
