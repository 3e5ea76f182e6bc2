"""The plan without Snakemake: paths, facts for the report, estimates of memory."""

import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from conftest import ROOT, catalogue, merge, read_yaml
from test_study import load

from diffalign.config.mistakes import ConfigError
from diffalign.models import all_families
from diffalign.plan import Plan, paths
from diffalign.plan.stage import memory


def plan(overlay: dict[str, Any] | None = None) -> Plan:
    return Plan(load(overlay), all_families())


def test_every_pattern_of_a_path_stands_once() -> None:
    patterns = {name: value for name, value in vars(paths).items() if name.isupper()}
    assert len(set(patterns.values())) == len(patterns)
    root = re.compile(r"""["'](?:results|resources)/""")
    library = ROOT / "workflow_scripts"
    composed = [
        path.relative_to(ROOT).as_posix()
        for folder, pattern in ((library, "**/*.py"), (ROOT / "rules", "*.smk"))
        for path in folder.glob(pattern)
        if path.name != "paths.py" and root.search(path.read_text())
    ]
    assert not composed, f"these compose paths of results themselves: {composed}"


def test_files_that_are_removed_are_known_below_any_prefix() -> None:
    removed = re.compile(paths.temporary())
    for path in ("results/unpooled/d/clean/sit-t0.2", "alike/results/unpooled/d/clean/sit-t0.2"):
        assert removed.fullmatch(path)
    assert not removed.fullmatch("results/features/d/clean/sit-t0.2.json")


def test_words_take_the_place_of_wildcards_and_others_stay() -> None:
    assert paths.fill("a/{b}/{c}.npy", b="x") == "a/x/{c}.npy"
    assert paths.log("align", "metric", "a") == "logs/align/{metric}/{a}.log"


def test_memory_grows_with_the_attempt_and_with_what_is_held() -> None:
    assert memory(1000, 24.4)(None, 1) == 1024
    assert memory(1000)(None, 3) == 3000
    made = plan({"datasets": {"imagenet": {"sample": 1000}}})
    wildcards = SimpleNamespace(dataset="imagenet")
    model = made.study.models["dinov2"]
    few = made.features.memory(1000, model)(wildcards, 1)
    assert few > 1000
    many = plan({"datasets": {"imagenet": {"sample": 100000}}}).features.memory(1000, model)(wildcards, 1)
    assert many - 1000 == pytest.approx(100 * (few - 1000), abs=100)


@pytest.mark.parametrize(
    ("entry", "count"),
    [
        ({"kind": "faces", "size": 64}, 6),
        ({"kind": "photographs", "size": 64, "per_photograph": 1}, 20),
        ({"kind": "photographs", "size": 64}, 320),
        ({"kind": "packaged", "collection": "digits", "size": 16}, 1797),
        ({"kind": "table", "path": "words.tsv", "columns": {"name": "id", "caption": "id"}}, 2),
        ({"kind": "transformed", "path": ".", "size": 64}, 1),
        ({"kind": "folder", "path": "clean", "size": 64}, 1),
        ({"kind": "folder", "path": "clean", "size": 64, "sample": 3}, 3),
        # only a job learns these
        ({"kind": "folder", "path": "clean", "size": 64, "split": {"part": "train"}}, None),
        ({"kind": "table", "hub": {"repository": "a/b"}, "columns": {"caption": "id"}}, None),
        ({"kind": "folder", "archive": {"path": "x.zip"}, "path": "clean", "size": 64}, None),
        # the job says what is wrong with them
        ({"kind": "folder", "path": "none", "size": 64}, None),
        ({"kind": "table", "path": "none.tsv", "columns": {"caption": "id"}}, None),
    ],
)
def test_too_few_images_for_k_are_refused_where_a_plan_can_tell(
    entry: dict[str, Any], count: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "words.tsv").write_text("id\na\nb\n")
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "a.png").touch()
    for k in (2, 5, 19, 20, 320, 1796, 1797):
        stimuli = plan({"datasets": {"mine": entry}, "alignment": {"k": k, "k_max": 2000}}).stimuli
        if count is None or k < count:
            stimuli.check_neighbors("mine")
            continue
        with pytest.raises(ValueError, match=f"'mine' has {count} images, and {k} neighbours .* need at least {k + 1}"):
            stimuli.check_neighbors("mine")
    dense = {"datasets": {"mine": entry}, "alignment": {"k": 1797, "k_max": 2000, "metrics": ["cka"]}}
    plan(dense).stimuli.check_neighbors("mine")


def test_the_seed_reaches_images_that_are_drawn_or_split_alone() -> None:
    packaged = {"kind": "packaged", "collection": "digits", "size": 16}
    split = {**packaged, "split": {"part": "train"}}
    made = plan({"seed": 7, "datasets": {"whole": packaged, "drawn": {**packaged, "sample": 9}, "split": split}})
    seeds = {word: made.stimuli.sample_seed(SimpleNamespace(dataset=word)) for word in ("whole", "drawn", "split")}
    assert seeds == {"whole": 0, "drawn": 7, "split": 7}


@pytest.mark.parametrize("overlay", ["profiles/demo/study.yaml", "profiles/platonic/published.yaml", None])
def test_the_first_page_of_the_report_is_written_for_any_study(overlay: str | None) -> None:
    config = read_yaml(ROOT / "config.yaml")
    if overlay is not None:
        merge(config, read_yaml(ROOT / overlay))
    facts = Plan(load_config(config), all_families()).figures.report_facts()
    snakemake = SimpleNamespace(config={"report": facts})
    text = jinja2.Template((ROOT / "report" / "workflow.rst").read_text()).render(snakemake=snakemake)
    assert ("random weights" in text) == (overlay == "profiles/demo/study.yaml")
    assert f"k = {facts['k']}" in text
    # files of captions read nothing of the configuration but these facts
    captions = "".join(path.read_text() for path in (ROOT / "report").glob("*.rst"))
    assert set(re.findall(r"snakemake\.config\S*", captions)) == {'snakemake.config["report"]'}


def load_config(config: dict[str, Any]) -> Any:
    from diffalign.alignment.metrics import METRICS
    from diffalign.config import study

    return study.load(config, catalogue(), all_families(), METRICS)


def test_a_ladder_reads_the_rungs_that_a_pair_and_a_data_set_have() -> None:
    theirs: dict[str, Any] = {
        "family": "precomputed",
        "features": {"path": "{dataset}/{layer}.npy", "layout": "array"},
        "layers": {"h0": "0"},
        "default_layer": "h0",
    }
    made = plan({"datasets": {"theirs": {"kind": "precomputed"}}, "models": {"mine": theirs, "other": theirs}})

    def asked(a: str, b: str, dataset: str = "imagenet") -> tuple[dict[str, Any], dict[str, Any]]:
        wildcards: Any = SimpleNamespace(a=a, b=b, dataset=dataset, condition="clean")
        return made.ladder.inputs(wildcards), made.ladder.controls(wildcards)

    files, controls = asked("dinov2_b5", "sd3-t0.2_b8")
    assert controls == {"labels": None, "untrained": None, "pixels_p8": "p8", "colors_c4": "c4"}
    folder = "results/features/imagenet/clean"
    assert files["untrained_a"] == f"{folder}/dinov2-untrained.json"
    assert files["untrained_b"] == f"{folder}/sd3-t0.2-untrained.json"
    # pure noise of its own, also for noise that is shared
    assert files["noise_b"] == f"{folder}/sd3-t1.json"
    assert asked("dinov2", "sd3-t0.2-commonnoise")[0]["noise_b"] == files["noise_b"]
    assert "noise_a" not in files
    assert files["controls"] == [f"{folder}/{name}.json" for name in ("pixels", "colors")]
    assert files["manifest"] == "results/images/imagenet/clean/manifest.tsv"
    # a twin and pure noise are no rungs of themselves
    twins, _ = asked("dinov2-untrained", "sd3-t1")
    assert {"untrained_a", "noise_b"} & set(twins) == set()
    without = plan({"ladder": {"controls": ["labels"]}})
    pair: Any = SimpleNamespace(a="dinov2_b5", b="sd3-t0.2_b8", dataset="imagenet", condition="clean")
    assert {key for key in without.ladder.inputs(pair) if "untrained" in key} == set()
    bare, none = asked("mine", "other", "theirs")
    assert none == {}
    assert set(bare) == {"a", "b", "controls"}


def test_ladders_are_part_of_the_study_that_names_pairs() -> None:
    assert plan().ladder.targets() == []
    named = plan({"ladder": {"pairs": ["dinov2_b5_vs_sd3_b8"]}}).ladder.targets()
    assert named == ["results/figures/photographs/clean/ladder/dinov2_b5_vs_sd3_b8.png"]
    with pytest.raises(ConfigError, match=r"ladder\.pairs\[0\]: .*sd33"):
        plan({"ladder": {"pairs": ["dinov2_vs_sd33"]}})
    with pytest.raises(ConfigError, match=r"ladder\.controls\[0\]: .*pixles"):
        plan({"ladder": {"pairs": ["dinov2_vs_sd3"], "controls": ["pixles"]}})
