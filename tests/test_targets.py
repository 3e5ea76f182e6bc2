import pytest
from test_study import load

from diffalign import targets


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("cknaa/dinov2_vs_sd3.npy", "unknown metric or stage 'cknaa'; did you mean 'cknna'?"),
        ("cknna/dinov3_vs_sd3.npy", "unknown model 'dinov3'; did you mean 'dinov2'?"),
        ("cknna/dinov2_vs_sd3_b99.npy", "sd3 has no layer 'b99'; it has embed, b0 … b23, final"),
        ("cknna/photograph/clean/dinov2_vs_sd3.npy", "unknown dataset 'photograph'; did you mean 'photographs'?"),
        ("cknna/photographs/claen/dinov2_vs_sd3.npy", "unknown condition 'claen'; did you mean 'clean'?"),
        ("cknna/photographs/clean/layrs/dinov2_vs_sd3.npy", "unknown folder 'layrs'; did you mean 'layers'?"),
        ("cknna/photographs/clean/layers/dinov2_vs_sd3_b8.npy", "names a layer; here all layers are meant"),
        ("features/photographs/clean/sd3/b8.pt", "write 'sd3-t0.5' for 'sd3'"),
        ("features/photographs/clean/sd3-t0.5/b99.pt", "sd3 has no layer 'b99'"),
        ("neighbors/photographs/clean/sd4-t0.5.npz", "unknown model 'sd4'; did you mean 'sd3'?"),
        (
            "figures/photographs/clean/layer_map/dinov2_vs_sd3.png",
            "unknown figure 'layer_map'; did you mean 'layer_maps'?",
        ),
        ("figures/photographs/clean/layer_maps/dinov3_vs_sd3.png", "unknown model 'dinov3'"),
        ("latents/photographs/clean/sd3va/latents_stats.pt", "unknown model 'sd3va'; did you mean 'sd3vae'?"),
        ("prompts/photographs/sd3-labl.safetensors", "sd3 has no variant 'labl'"),
        ("recipes/sd4.json", "unknown model 'sd4'"),
        ("cknna/a/b/c/d/e.npy", "is no file of this workflow; files of this stage are results/cknna/{pair} or"),
    ],
)
def test_the_unknown_word_is_named(target: str, message: str) -> None:
    explained = targets.explain(f"results/{target}", load())
    assert message in explained
    assert explained.startswith(f"'results/{target}'")
