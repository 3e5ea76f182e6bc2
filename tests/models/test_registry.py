"""Which families there are, what listing them costs, and which code a job depends on through its model's family."""

import shutil
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import ROOT

from diffalign import code_digests
from diffalign.models import Family, all_families, find_family, module_path, registry

SCRIPTS = ROOT / "workflow_scripts"


def test_families_are_found_by_name() -> None:
    reads = {"diffusers_mmdit": "latents", "diffusers_vae": "pixels", "precomputed": "features", "reg": "latents"}
    assert reads.items() <= {name: family.reads for name, family in all_families().items()}.items()
    assert list(all_families()) == sorted(all_families())
    assert all_families()["reg"] == Family(
        "latents", "labels", ("architecture", "path", "class_tokens"), ("interpolate_positions",), "architecture"
    )
    assert all_families()["diffusers_mmdit"].conditioned_on == "prompts"
    assert {name for name, family in all_families().items() if family.complete} == {"timm_vision"}
    assert {name for name, family in all_families().items() if family.decodes} == {"diffusers_vae", "vavae"}
    with pytest.raises(ValueError, match=r"unknown family 'tim'; allowed: .*diffusers_mmdit"):
        find_family("tim")
    with pytest.raises(ValueError, match="a family without 'make_miniature' was asked for it"):
        all_families()["precomputed"].make_miniature({}, Path(), 0)


def test_a_diffusion_family_is_conditioned_on_what_it_can_embed() -> None:
    unconditional = {name for name, family in all_families().items() if family.conditioned_on is None}
    assert {name for name in unconditional if all_families()[name].reads == "latents"} == {"gaussian", "power_law"}
    for name, family in all_families().items():
        assert name in unconditional or family.reads == "latents", name
        embeds = family.embed_prompts.__name__ == "embed_prompts"
        assert embeds == (family.conditioned_on == "prompts"), name


def test_a_module_that_declares_no_family_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty.py").touch()
    monkeypatch.setattr(registry, "_FOLDER", tmp_path)
    monkeypatch.setitem(sys.modules, "diffalign.models.families.empty", types.ModuleType("empty"))
    with pytest.raises(TypeError, match=rf"{tmp_path}/empty\.py: FAMILY = Family\(…\) is missing"):
        all_families.__wrapped__()


def test_listing_the_families_imports_none_of_their_libraries() -> None:
    code = (
        "import sys, time; from diffalign.models import all_families; assert len(all_families()) > 10;"
        "heavy = {'torch', 'diffusers', 'timm', 'transformers', 'safetensors', 'pandas', 'scipy'} & set(sys.modules);"
        "print(heavy or '', time.process_time())"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={"PYTHONPATH": str(SCRIPTS)}, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 1, done.stdout


def digests(script: str = "extract.py") -> dict[str, str]:
    """Family -> the digest of a job of a model of it."""
    code_digests._module.cache_clear()
    code_digests._files_of.cache_clear()
    tree = code_digests._ROOT.parent
    return {
        name: code_digests.code_digest([tree / script, tree / module_path(name).relative_to(SCRIPTS)])
        for name in all_families()
    }


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the code, of which digests are taken."""
    shutil.copytree(SCRIPTS, tmp_path / "scripts", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    monkeypatch.setattr(code_digests, "_ROOT", (tmp_path / "scripts" / "diffalign").resolve())
    yield (tmp_path / "scripts" / "diffalign").resolve()
    monkeypatch.undo()
    code_digests._module.cache_clear()
    code_digests._files_of.cache_clear()


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("families/sit.py", "towards_data=True", "towards_data=False", {"sit"}),
        ("families/timm_vision.py", '"num_classes": classes', '"num_classes": classes + 1', {"timm_vision"}),
        ("networks/sit.py", "(2 if", "(3 if", {"sit"}),
        ("networks/repa.py", "enumerate(self.blocks, 1)", "enumerate(self.blocks, 2)", {"repa", "reg"}),
        ("networks/gaussian.py", "alpha * power / safe", "alpha * power / variance", {"gaussian", "power_law"}),
        ("networks/vavae.py", "GroupNorm(32", "GroupNorm(16", {"vavae"}),
        (
            "networks/latent_transformers.py",
            "_FREQUENCIES = 256",
            "_FREQUENCIES = 128",
            {"sit", "repa", "reg", "lightningdit"},
        ),
        ("networks/posterior.py", "clamp(-30, 20)", "clamp(-20, 20)", {"diffusers_vae", "vavae", "vfmvae"}),
        ("flows.py", "net.eval()", "net.train()", {"sit", "repa", "reg", "lightningdit"}),
        ("pipelines.py", "self.step = 2 if", "self.step = 4 if", {"diffusers_pipeline"}),
        (
            "schedules.py",
            "PUBLISHED_STEPS = 100",
            "PUBLISHED_STEPS = 50",
            {"diffusers_unet", "diffusers_mmdit", "diffusers_pipeline", "diffusers_dit"},
        ),
        ("precision.py", 'precision == "float32"', 'precision == "float64"', set(all_families())),
        ("protocol.py", 'not in ("names", "latents")', 'not in ("latents",)', set(all_families())),
        # what completes an entry of the configuration changes that entry, which recipes hold
        ("timm_registry.py", "Or {_SAY}", "Otherwise {_SAY}", set()),
        ("networks/sit.py", '"""The velocity', '"""A velocity', set()),
    ],
)
def test_a_changed_line_reruns_the_extractions_that_run_it(
    file: str, old: str, new: str, changed: set[str], tree: Path
) -> None:
    before = digests()
    assert len(set(before.values())) == len(before)
    path = tree / "models" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    after = digests()
    assert {name for name in before if before[name] != after[name]} == changed
