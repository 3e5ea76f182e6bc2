"""The reference of the configuration: generated files without drift, and one default of a key."""

import importlib.util
from collections.abc import Iterator
from dataclasses import MISSING, fields
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, catalogue, read_yaml

from diffalign import dataset_specs, specs
from diffalign.config.datasets import DatasetEntry, SimilarityEntry, SourceEntry, TripletEntry
from diffalign.config.fields import Section
from diffalign.config.models import FeatureFilesEntry, InputEntry, LatentFilesEntry, ModelEntry, WeightsEntry
from diffalign.config.reference import page, schema
from diffalign.config.study import Configuration
from diffalign.config.training import TrainingEntry
from diffalign.config.work import ComputeSection


def sections(section: type[Section] = Configuration) -> Iterator[type[Section]]:
    from diffalign.config.reference import _inner

    yield section
    for field in section.model_fields.values():
        for _, inner in _inner(field.annotation):
            yield from sections(inner)


def test_the_schema_and_the_page_are_those_of_the_sections() -> None:
    spec = importlib.util.spec_from_file_location("derive_reference", ROOT / "schemas" / "derive.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for path, text in module.derived().items():
        assert path.read_text() == text, f"{path} is out of date: run `make reference`"


def test_every_key_has_a_line_of_documentation_and_stands_on_the_page() -> None:
    text = page()
    for section in sections():
        assert section.__doc__
        for name, field in section.model_fields.items():
            assert field.description, f"{section.__name__}.{name}"
            assert f"| `{field.alias or name}` |" in text


def test_the_schema_accepts_what_is_shipped_and_refuses_a_wrong_word() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    shipped = [
        ROOT / "config.yaml",
        *(ROOT / "profiles").glob("*/study.yaml"),
        *(ROOT / "profiles").glob("*/published*.yaml"),
        *(ROOT / "profiles").glob("*/test*.yaml"),
    ]
    for path in shipped:
        validator.validate(read_yaml(path))
    validator.validate({"models": catalogue()})
    for wrong in (
        {"seeed": 1},
        {"alignment": {"k": 1}},
        {"alignment": {"alpha": 1}},
        {"alignment": {"metrics": []}},
        {"conditions": ["cleen"]},
        {"models": {"x": {"input": {"interpolation": "cubic"}}}},
    ):
        assert list(validator.iter_errors(wrong)), wrong


@pytest.mark.parametrize(
    ("section", "record"),
    [
        (ModelEntry, specs.Model),
        (WeightsEntry, specs.Weights),
        (TrainingEntry, specs.Training),
        (InputEntry, specs.ImageInput),
        (LatentFilesEntry, specs.LatentFiles),
        (FeatureFilesEntry, specs.FeatureFiles),
        (DatasetEntry, dataset_specs.Dataset),
        (SourceEntry, dataset_specs.SourceFile),
        (TripletEntry, dataset_specs.TripletFile),
        (SimilarityEntry, dataset_specs.SimilarityFile),
        (ComputeSection, specs.Compute),
    ],
)
def test_records_of_jobs_have_the_defaults_of_the_keys(section: type[Section], record: Any) -> None:
    # recipes leave out defaults, so a record with another default would say something else
    for each in fields(record):
        field = section.model_fields.get(each.name)
        if field is None or each.name in ("seed", "weights", "columns", "steps"):
            continue
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if default is not MISSING and not field.is_required():
            assert field.default == default, f"{record.__name__}.{each.name}"
