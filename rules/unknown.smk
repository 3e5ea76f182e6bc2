# For targets of no other rule: an error that names the unknown word and the nearest known one.
# Included last: its pattern excludes the outputs of all other rules.
from snakemake.io import regex_from_filepattern

OUTPUTS = [str(output) for rule in workflow.rules for output in rule.output]


rule unknown_target:
    input:
        targets.refusal(OUTPUTS, STUDY, KNOWN_METRICS),
    output:
        "{target}",
    log:
        # a constraint of its own, since the long one takes a tenth of a dry run to compile
        paths.log("unknown_target", "target,.+"),
    wildcard_constraints:
        target=targets.unknown_pattern(map(regex_from_filepattern, OUTPUTS)),
    conda:
        "../envs/analysis.yaml"
    shell:
        "false"
