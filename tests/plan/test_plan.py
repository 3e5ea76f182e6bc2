"""The plan without Snakemake: paths, facts for the report, estimates of memory."""

import re
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from conftest import ROOT, catalogue, merge, read_yaml
from test_study import load

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
