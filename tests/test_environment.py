"""One place for pins: the lock and the conda environments agree with pyproject.toml, and the lock installs."""

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PINS = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["dev"]]
LOCK = (ROOT / "requirements.lock").read_text()


def test_every_dependency_is_pinned_to_one_version() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9-]+==[0-9.]+", pin) for pin in PINS)


def test_the_lock_has_every_pin_and_a_hash_for_every_package() -> None:
    locked = {line.split(" ")[0].lower() for line in LOCK.splitlines() if line and not line.startswith(" ")}
    assert {pin.lower() for pin in PINS} <= locked
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 100
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "http" not in re.sub(r"httpc?x?\w*2?==|httpx2-jsfetch==|httpcore2==", "", LOCK)


def test_the_conda_environments_are_derived_from_the_pins() -> None:
    spec = importlib.util.spec_from_file_location("derive", ROOT / "envs" / "derive.py")
    assert spec is not None
    assert spec.loader is not None
    derive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(derive)
    environments = derive.environments()
    assert {path.name for path in (ROOT / "envs").glob("*.yaml")} == set(environments)
    for name, content in environments.items():
        assert (ROOT / "envs" / name).read_text() == content
    used = set(re.findall(r"envs/(\w+\.yaml)", "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))))
    assert used == set(environments)


def imported(files: list[Path]) -> set[str]:
    """Top-level packages that these files import anywhere."""
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {module.split(".")[0] for module in modules}


@pytest.mark.parametrize(
    ("environment", "scripts"),
    [
        (
            "analysis",
            (
                "images",
                "align",
                "align_layers",
                "merge_neighbors",
                "pair_figures",
                "relative_depth_curves_figure",
                "model_maps_figure",
                "alignment_table",
                "pairs_table",
                "export_alignment",
                "published_scores_table",
                "published_people_table",
                "export_reduction",
                "per_image",
                "gallery_figure",
                "curves_figure",
                "through_training_table",
                "training_maps_figure",
                "through_training_figure",
                "atlas_figure",
                "contrasts_figure",
                "contrasts_table",
                "variance_figure",
                "rank_stability_figure",
                "ladder_figure",
                "texts",
                "provenance",
            ),
        ),
        (
            "models",
            (
                "extract",
                "latents",
                "prompts",
                "neighbors",
                "weights",
                "import_features",
                "export_features",
                "export_people",
                "export_probe",
                "curves_table",
                "training_alignment",
                "atlas",
                "contrast",
                "ladder",
                "sensitivity_table",
                "variance_table",
                "power_table",
                "rank_stability",
                "extract_texts",
                "merge_texts",
                "verify",
            ),
        ),
        ("plan", ("cost",)),
    ],
)
def test_an_environment_has_what_its_scripts_import(environment: str, scripts: tuple[str, ...]) -> None:
    from diffalign import code_digests

    packages = {
        "PIL": "pillow",
        "pywt": "pywavelets",
        "skimage": "scikit-image",
        "sklearn": "scikit-learn",
        "yaml": "pyyaml",
        "huggingface_hub": "huggingface-hub",
        "pydantic_core": "pydantic",
    }
    has = set(PROJECT["tool"]["diffalign"]["envs"][environment])
    files = [ROOT / "workflow_scripts" / f"{script}.py" for script in scripts]
    if environment == "models":
        files += sorted((ROOT / "workflow_scripts/diffalign/models").rglob("*.py"))
    needed = imported(sorted(code_digests.modules_of(files))) - sys.stdlib_module_names - {"diffalign", "snakemake"}
    # imported lazily by functions that these scripts never call
    never = {
        "analysis": {"torch", "safetensors"},
        "models": {"mlxtend", "skimage", "sklearn"},
        "plan": {"mlxtend", "skimage", "sklearn", "torch", "safetensors"},
    }[environment]
    assert {packages.get(name, name) for name in needed - never} <= has


def test_what_is_installed_is_the_lock() -> None:
    # make installs the lock, with hashes, into a new .venv; here, that nothing of it is missing or another version
    uv = Path(sys.executable).parent / "uv"
    assert uv.exists(), "make test installs uv into .venv"
    command = [uv, "pip", "install", "--dry-run", "--python", sys.executable, "--require-hashes", "-r"]
    made = subprocess.run([*command, ROOT / "requirements.lock"], check=True, capture_output=True, text=True)
    assert "Would make no changes" in made.stderr + made.stdout
    subprocess.run([uv, "pip", "check", "--quiet", "--python", sys.executable], check=True)
