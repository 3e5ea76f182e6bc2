"""What published code does beside the profiles: tables without drift, and differences that are explained."""

import importlib.util
from typing import Any

import pytest
from conftest import ROOT, read_yaml
from test_study import load

from diffalign.config.parity import ParityError, ParityFile, table

SOURCE = {"setting": "k", "published": 10, "source": "metrics.py#L417"}


def derive() -> Any:
    spec = importlib.util.spec_from_file_location("derive_parity", ROOT / "schemas" / "derive_parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(*rows: dict[str, Any]) -> str:
    head = {"repository": "some/code", "commit": "0" * 40, "study": ["config.yaml"]}
    file = ParityFile.model_validate({**head, "rows": [{**SOURCE, **row} for row in rows]})
    return table(file, load(), lambda name: name == "tests/test_it.py::test_it")


def test_the_tables_are_those_of_the_profiles_and_no_difference_is_unexplained() -> None:
    module = derive()
    named = [str(path.relative_to(ROOT / "profiles")) for path in module.parity_files()]
    assert named == sorted(named)
    assert {"platonic/parity.yaml", "platonic/parity_test.yaml", "things/parity.yaml", "vfmvae/parity.yaml"} <= set(
        named
    )
    # derived raises where a row differs without a reason
    assert (ROOT / "docs" / "reproduce.md").read_text() == module.derived(), "run `make reference`"


def test_every_profile_names_files_that_snakemake_can_be_given() -> None:
    for path in derive().parity_files():
        files = read_yaml(path)["study"]
        assert files[0] == "config.yaml"
        command = " ".join(files)
        assert f"--configfile {command}" in (ROOT / "docs" / "reproduce.md").read_text()


def test_a_row_says_what_the_configuration_has() -> None:
    autoencoders = {"published": "a sample", "value": "mode", "here": "models[sdvae, vavae].posterior"}
    lines = made(
        {"here": "alignment.k"},
        {"published": 7, "here": "alignment.k", "reason": "ten are a habit"},
        autoencoders,
        {"published": ["bicubic", "bilinear"], "here": "models[dinov2, siglip2].input.interpolation"},
        {"published": "the null label", "value": "uncond", "here": "models[sit].conditionings[0]"},
        {"published": "a|b", "words": "the same", "checked": "tests/test_it.py::test_it"},
        {"source": "https://example.org/paper", "words": "eleven", "reason": "one more"},
        {"published": "nothing", "value": "none", "here": "datasets[photographs].prompt"},
    ).splitlines()[2:]
    link = f"([metrics.py:417](https://github.com/some/code/blob/{'0' * 40}/metrics.py#L417))"
    assert lines[0] == f"| k | 10 {link} | 10 | yes |"
    assert lines[1] == f"| k | 7 {link} | 10 | no: ten are a habit |"
    assert lines[2] == f"| k | a sample {link} | mode | yes |"
    assert lines[3].endswith("| bicubic, bilinear | yes |")
    assert lines[4].endswith("| uncond | yes |")
    assert lines[5] == f"| k | a\\|b {link} | the same | yes |"
    assert lines[6] == "| k | 10 ([source](https://example.org/paper)) | eleven | no: one more |"
    # an empty text
    assert lines[7].endswith("| none | yes |")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"here": "alignment.k", "published": 7}, "is 10, not as published, without a reason"),
        ({"here": "models[sit, sd1].conditionings[0]", "published": "label"}, "is uncond, not as published"),
        ({"here": "alignment.k", "reason": "none"}, "is as published, so there is no reason"),
        ({"here": "alignment.kk"}, "there is no 'kk'; did you mean 'k"),
        ({"here": "models[dinov22].noise"}, "there is no 'dinov22'; did you mean 'dinov2'"),
        ({"here": "models[sit].conditionings[7]"}, "there is no '7'"),
        ({"here": "models[sit"}, "'models[sit' is no place"),
        ({}, "give one of 'here' and 'words'"),
        ({"here": "alignment.k", "words": "ten"}, "give one of 'here' and 'words'"),
        ({"words": "ten"}, "words need the test that shows them ('checked'), or the reason"),
        ({"words": "ten", "checked": "tests/test_it.py::test_that"}, "there is no test 'tests/test_it.py::test_that'"),
    ],
)
def test_a_row_that_says_something_else_is_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(ParityError) as caught:
        made({"here": "alignment.k"}, {"setting": "neighbours", **row})
    assert str(caught.value).startswith("neighbours: ")
    assert message in str(caught.value)


@pytest.mark.parametrize("wrong", ["metrics.py", "metrics.py#417", "see metrics.py#L4", "metrics.py#L4-9"])
def test_a_source_has_lines(wrong: str) -> None:
    with pytest.raises(ValueError, match="is no source; write path/in/the/repository.py#L12"):
        made({"here": "alignment.k", "source": wrong})
