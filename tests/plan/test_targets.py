import pytest
from test_study import load

from diffalign.alignment.metrics import METRICS
from diffalign.plan import targets


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("results/cknaa/dinov2_vs_sd3.npy", "unknown metric or stage 'cknaa'; did you mean 'cknna'?"),
        ("results/cknna/dinov22_vs_sd3.npy", "unknown model 'dinov22'; did you mean 'dinov2'?"),
        ("results/cknna/dinov2_vs_sd3_b99.npy", "sd3 has no layer 'b99'; it has embed, b0 … b23, final"),
        (
            "results/cknna/photograph/clean/dinov2_vs_sd3.npy",
            "unknown dataset 'photograph'; did you mean",
        ),
        ("results/cknna/photographs/claen/dinov2_vs_sd3.npy", "unknown condition 'claen'; did you mean 'clean'?"),
        ("results/cknna/photographs/clean/layrs/dinov2_vs_sd3.npy", "unknown folder 'layrs'; did you mean 'layers'?"),
        ("results/cknna/photographs/clean/layers/dinov2_vs_sd3_b8.npy", "names a layer; here all layers are meant"),
        ("results/features/photographs/clean/sd3/b8.pt", "write 'sd3-t0.5' for 'sd3'"),
        ("results/features/photographs/clean/sd3-t0.5/b99.pt", "sd3 has no layer 'b99'"),
        ("results/neighbors/photographs/clean/sd4-t0.5.npz", "unknown model 'sd4'; did you mean 'sd3'?"),
        (
            "figures/photographs/clean/layer_map/dinov2_vs_sd3.png",
            "unknown figure 'layer_map'; did you mean 'layer_maps'?",
        ),
        ("results/figures/photographs/clean/layer_maps/dinov22_vs_sd3.png", "unknown model 'dinov22'"),
        ("results/figures/photographs/clean/null_histogram/dinov2_vs_sd3.png", "did you mean 'null_histograms'?"),
        ("results/figures/photographs/clean/null_histograms/dinov2_vs_sd4.png", "unknown model 'sd4'"),
        ("results/figures/photographs/clean/model_maps/cknaa.png", "unknown metric 'cknaa'; did you mean 'cknna'?"),
        (
            "results/figures/photographs/clean/noise_levels/dinov2.png",
            "unknown diffusion model 'dinov2'; allowed: ",
        ),
        ("results/tables/pair.tsv", "unknown table 'pair'; did you mean 'pairs'?"),
        (
            "results/latents/photographs/clean/sd3va/latents_stats.pt",
            "unknown autoencoder 'sd3va'; did you mean",
        ),
        ("results/prompts/photographs/sd3-labl.safetensors", "sd3 has no variant 'labl'"),
        (
            "results/latents/photographs/clean/dinov2/latents_stats.pt",
            "unknown autoencoder 'dinov2'; allowed: sdvae",
        ),
        ("results/prompts/photographs/dinov2.safetensors", "dinov2 takes no prompts"),
        (
            "results/other/dinov2_vs_sd3.npy",
            "the metric 'other' exists but is not among alignment.metrics (cknna,",
        ),
        ("results/tables/alignmnt.tsv", "unknown table 'alignmnt'; did you mean 'alignment'?"),
        ("results/tables/curvs/photographs/clean/dinov2_vs_sd3.tsv", "unknown table 'curvs'; did you mean 'curves'?"),
        ("results/tables/curves/photographs/clean/dinov2_vs_sd3_b99.tsv", "sd3 has no layer 'b99'"),
        ("results/tables/sensitivity/photographs/claen/dinov2_vs_sd3.tsv", "unknown condition 'claen'"),
        (
            "results/per_imag/photographs/clean/dinov2_vs_sd3.parquet",
            "unknown metric or stage 'per_imag'; did you mean",
        ),
        ("results/per_image/photographs/clean/dinov22_vs_sd3_b8.parquet", "unknown model 'dinov22'; did you mean"),
        (
            "results/per_image/dinov2_vs_sd3.parquet",
            "files of this stage are results/per_image/{dataset}/{condition}/{pair} with their suffix",
        ),
        (
            "results/figures/photographs/clean/galery/dinov2_vs_sd3_b8.png",
            "unknown figure 'galery'; did you mean 'gallery'?",
        ),
        ("results/figures/photographs/clean/gallery/dinov2_vs_sd4_b8.png", "unknown model 'sd4'"),
        # these are of two layers, so naming one is no mistake; the suffix is
        ("results/figures/photographs/clean/curves/dinov2_vs_sd3_b8.jpg", "is no file of this workflow"),
        ("results/tables/sensitivity/photographs/clean/dinov2_vs_sd3_b8.csv", "is no file of this workflow"),
        ("resources/weights/dinov22/weights.json", "unknown model 'dinov22'; did you mean 'dinov2'?"),
        ("results/recipes/sd4.json", "unknown model 'sd4'"),
        ("results/export/platonik/photographs/clean/sd3.pt", "unknown layout 'platonik'; did you mean 'platonic'?"),
        ("results/export/vfmvae/photographs/clean/sd3_b99.pt", "sd3 has no layer 'b99'"),
        ("results/export/vfmvae/photographs/claen/sd3-t0.5_b9.pt", "unknown condition 'claen'"),
        ("results/export/thingsvision/photographs/clean/dinov22/features.npy", "unknown model 'dinov22'"),
        ("results/export/platonic/photographs/clean/sd3_b8.pt", "'sd3_b8' names a layer; here all layers are meant"),
        ("results/export/platonic/photographs/clean/dinov2_vs_sd4/cknna_k10.npy", "unknown model 'sd4'"),
        (
            "results/export/platonic/photographs/clean/dinov2_vs_sd3/cknaa_k10.npy",
            "unknown metric 'cknaa'; did you mean",
        ),
        ("results/export/platonic/photographs/clean/dinov2_vs_sd3/cknna_k7.npy", "taken at alignment.k = 10, not at 7"),
        (
            "results/export/vfmvae/sd3.pt",
            "are results/export/{layout}/{dataset}/{condition}/{exported} or",
        ),
        ("results/cknna/a/b/c/d/e.npy", "is no file of this workflow; files of this stage are results/cknna/{pair} or"),
    ],
)
def test_the_unknown_word_is_named(target: str, message: str) -> None:
    explained = targets.explain(target, load(), (*METRICS, "other"))
    assert message in explained
    assert explained.startswith(f"'{target}'")
