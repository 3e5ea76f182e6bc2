"""profiles/slurm/site.yaml: all that a site changes, checked before Snakemake reads anything else."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, merge, read_yaml
from snakemake.profiles import ProfileConfigFileParser
from snakemake_executor_plugin_slurm.partitions import PartitionLimits, read_partition_file

from diffalign.config.mistakes import ConfigError
from diffalign.config.site import PartitionSection, SiteSection, check_unchanged, read_site, site_of_profile

SITE = ROOT / "profiles" / "slurm" / "site.yaml"


def changed(folder: Path, overlay: dict[str, Any]) -> Path:
    content = read_yaml(SITE)
    merge(content, overlay)
    path = folder / "site.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def profile(site: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The options of the profile, called from a folder where this is the file of the site."""
    root = site.parent / "root"
    (root / "profiles" / "slurm").mkdir(parents=True)
    (root / "workflow_scripts").symlink_to(ROOT / "workflow_scripts")
    (root / "profiles" / "slurm" / "site.yaml").symlink_to(site)
    monkeypatch.chdir(root)
    with (ROOT / "profiles" / "slurm" / "config.yaml").open() as file:
        return dict(ProfileConfigFileParser().parse(file))


def test_every_key_of_the_section_is_shipped_with_its_default() -> None:
    assert read_yaml(SITE)["site"] == SiteSection().plain()
    assert read_site(SITE).site == SiteSection()


def test_limits_of_partitions_are_those_that_the_plugin_knows() -> None:
    assert set(PartitionSection.model_fields) == {field.name for field in fields(PartitionLimits)} | {"cluster"}
    assert [each.name for each in read_partition_file(SITE)] == ["cpu", "gpu"]


def test_a_draft_of_the_plugin_is_read(tmp_path: Path) -> None:
    limits = {"max_runtime": "2-00:00:00", "max_nodes": 4, "max_threads": 64, "max_mem_mb_per_cpu": 4000, "max_gpu": 8}
    path = changed(tmp_path, {"partitions": {"cpu": {"max_runtime": 60}, "all": {**limits, "cluster": "main"}}})
    assert set(read_site(path).partitions) == {"cpu", "gpu", "all"}
    found = {each.name: each for each in read_partition_file(path)}
    assert (found["all"].limits.max_runtime, found["all"].partition_cluster) == (2880, "main")


def test_the_profile_says_what_the_site_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = {"account": "shutil", "constraint": "a100|a6000", "qos": "long", "reservation": "ours"}
    said = {**named, "status_command": "squeue", "jobs": 20, "largest_node_mb": 90_000}
    options = profile(changed(tmp_path, {"site": said}), monkeypatch)
    assert options["default-resources"] == [
        *("runtime=30", "mem_mb=4000", "slurm_account='shutil'", "constraint='a100|a6000'")
    ]
    assert options["resources"] == ["mem_mb=90000"]
    keys = ("slurm-qos", "slurm-reservation", "slurm-status-command", "jobs")
    assert [options[key] for key in keys] == ["long", "ours", "squeue", "20"]
    assert options["slurm-partition-config"] == str(tmp_path / "site.yaml")


def test_what_a_site_leaves_empty_is_no_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with (ROOT / "profiles" / "slurm" / "config.yaml").open() as file:
        options = ProfileConfigFileParser().parse(file)
    assert options["default-resources"] == ["runtime=30", "mem_mb=4000"]
    assert not {"slurm-qos", "slurm-reservation", "slurm-status-command"} & set(options)


@pytest.mark.parametrize(
    ("overlay", "message"),
    [
        ({"site": {"jbos": 3}}, "site: unknown key 'jbos'; did you mean 'jobs'?"),
        ({"site": {"partition": "x"}}, "site: unknown key 'partition'; allowed: account, qos, reservation, constraint"),
        ({"site": {"account": 1234}}, "site.account: 1234 is not of type 'string'"),
        ({"site": {"account": "a'b"}}, 'site.account: "a\'b" is no name of SLURM'),
        ({"site": {"status_command": "sqeue"}}, "site.status_command: 'sqeue' is not allowed; did you mean 'squeue'?"),
        ({"site": {"jobs": 0}}, "site.jobs: 0 is less than the minimum of 1"),
        ({"partitions": {"cpu": {"max_thread": 4}}}, "unknown key 'max_thread'; did you mean 'max_threads'?"),
        ({"partitions": {"cpu": {"max_mem_mb": None}}}, "partitions.cpu.max_mem_mb: is empty; expected: number"),
        ({"slurm": {"gpus_by": "gre"}}, "slurm.gpus_by: 'gre' is not allowed; did you mean 'gres'?"),
        ({"compute": {"device": "gpu"}}, "compute.device: 'gpu' is not allowed"),
        ({"sites": {}}, "(top level): unknown key 'sites'; did you mean 'site'?"),
        ({"models": {}}, "(top level): unknown key 'models'; allowed: partitions, site, slurm, compute, hardware"),
    ],
)
def test_a_mistake_is_named_with_the_file(overlay: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = changed(tmp_path, overlay)
    with pytest.raises(ConfigError) as caught:
        read_site(path)
    assert f"{path}: " in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(("text", "message"), [(None, "No such file"), ("{", "cannot be read as YAML"), ("3", "exp")])
def test_a_file_that_is_none_ends_the_call_with_its_name(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(SystemExit, match=message) as caught:
        site_of_profile(path)
    assert str(path) in str(caught.value)


def test_what_the_profile_has_read_cannot_be_changed_later(tmp_path: Path) -> None:
    path = changed(tmp_path, {"site": {"jobs": 3}})
    config = yaml.safe_load(path.read_text())
    check_unchanged(config, [path], path)
    check_unchanged({"study": {}}, [path], path)
    # a file of the study that changes nothing of it
    mine = tmp_path / "mine.yaml"
    mine.write_text("study: {}\n")
    check_unchanged(config, [path, mine], path)
    config["site"]["jobs"] = 5
    with pytest.raises(ConfigError, match="--config: site: is read by profiles/slurm from its site.yaml before this"):
        check_unchanged(config, [path, mine], path)
    mine.write_text("site: {jobs: 5}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: site: is read by profiles/slurm from its site\.yaml before"):
        check_unchanged(config, [path, mine], path)
