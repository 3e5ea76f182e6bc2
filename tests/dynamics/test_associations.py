"""Rank correlations over samples: known answers, exact nulls, and the rate of false findings over a grid."""

import itertools

import numpy as np
import pytest
from scipy.stats import spearmanr

from diffalign.dynamics import associations
from diffalign.dynamics.associations import Associations, associate, strata
from diffalign.randomness import keyed


def associated(
    activations: np.ndarray, changes: np.ndarray, within: list[str], permutations: int = 199
) -> Associations:
    return associate(activations, changes, within, permutations, seed=0)


def noise(name: str, *shape: int) -> np.ndarray:
    return keyed(0, "test", name).standard_normal(shape)


def test_one_stratum_is_spearman() -> None:
    activations, changes = noise("a", 2, 3, 4, 30), noise("f", 5, 4, 30)
    activations[0, 0, 0] = np.round(activations[0, 0, 0])
    found = associated(activations, changes, ["all"] * 30)
    assert found.rho.shape == found.p.shape == found.p_family.shape == found.q.shape == (2, 5, 3, 4)
    for a, f, layer, step in itertools.product(range(2), range(5), range(3), range(4)):
        expected = spearmanr(activations[a, layer, step], changes[f, step]).statistic
        assert found.rho[a, f, layer, step] == pytest.approx(expected, abs=1e-12)
    assert found.samples == 30


def test_p_of_all_permutations() -> None:
    """Two strata of three: 36 orders, drawn often enough, against each of them gone through."""
    within = ["a", "b", "a", "b", "a", "b"]
    activation, change = np.array([1.0, 9, 2, 7, 3, 8]), np.array([2.0, 6, 1, 4, 3, 5])
    found = associated(activation.reshape(1, 1, 1, 6), change.reshape(1, 1, 6), within, 40000)

    def statistic(x: np.ndarray) -> float:
        ranks = [np.argsort(np.argsort(v)) + 1.0 for v in (x, change)]
        for side in ranks:
            for members in ([0, 2, 4], [1, 3, 5]):
                side[members] -= side[members].mean()
        return abs(float(ranks[0] @ ranks[1])) + 1e-9

    null = []
    for first, second in itertools.product(itertools.permutations([0, 2, 4]), itertools.permutations([1, 3, 5])):
        moved = activation.copy()
        moved[[0, 2, 4]], moved[[1, 3, 5]] = activation[list(first)], activation[list(second)]
        null.append(statistic(moved))
    exact = np.mean(np.array(null) >= statistic(activation) - 2e-9)
    assert found.p[0, 0, 0, 0] == pytest.approx(exact, abs=0.01)
    # with one cell the family is the cell
    assert found.p_family[0, 0, 0, 0] == found.p[0, 0, 0, 0]


def test_a_class_that_drives_both_is_no_evidence() -> None:
    within = [f"0/{n % 6}" for n in range(120)]
    of_class = np.array([10.0 * (n % 6) for n in range(120)])
    activations = noise("class a", 1, 2, 3, 120) + of_class
    changes = noise("class f", 1, 3, 120) + of_class
    assert spearmanr(activations[0, 0, 0], changes[0, 0]).statistic > 0.9
    found = associated(activations, changes, within, 999)
    assert np.abs(found.rho).max() < 0.3
    assert found.p_family.min() > 0.05


def test_a_planted_correlation_is_found() -> None:
    within = [f"{n % 3}/{n % 2}" for n in range(120)]
    changes = noise("planted f", 2, 5, 120) + np.arange(120) % 2 * 5.0
    activations = noise("planted a", 1, 4, 5, 120)
    activations[0, 2, 3] -= 0.7 * changes[1, 3]
    found = associated(activations, changes, within, 999)
    assert found.rho[0, 1, 2, 3] < -0.3
    assert found.p_family[0, 1, 2, 3] == found.p[0, 1, 2, 3] == pytest.approx(0.001)
    assert found.q[0, 1, 2, 3] < 0.05
    others = np.delete(found.p_family.ravel(), np.ravel_multi_index((0, 1, 2, 3), found.p_family.shape))
    assert others.min() > 0.05
    assert (found.p_family >= found.p).all()


@pytest.mark.parametrize("effect", [0.0, 3.0])
def test_family_wise_rate(effect: float) -> None:
    """Independent noise, with and without what classes do to both sides: a finding in .03 to .07 of studies."""
    studies, count = 600, 36
    within = [f"0/{n % 4}" for n in range(count)] if effect else ["0"] * count
    significant = 0
    for study in range(studies):
        random = keyed(study, "family-wise", str(effect))
        of_class = effect * random.standard_normal(4)[np.arange(count) % 4]
        activations = random.standard_normal((1, 3, 4, count)) + of_class
        changes = random.standard_normal((1, 4, count)) + of_class
        significant += bool(associate(activations, changes, within, 99, study).p_family.min() <= 0.05)
    assert 0.03 <= significant / studies <= 0.07


def test_what_cannot_vary_is_missing_and_no_part_of_the_maximum() -> None:
    within = ["0/a"] * 10 + ["0/b"] * 10
    activations, changes = noise("missing a", 2, 2, 3, 20), noise("missing f", 1, 3, 20)
    plain = associated(activations[:1, :1], changes, within)
    activations[0, 1] = 5.0  # constant
    activations[1] = np.nan  # not measured
    activations[1, 0, 0] = [*range(10), *[20] * 10]
    changes[0, 1] = [*[0] * 10, *range(10)]
    found = associated(activations, changes, within)
    missing = np.zeros((2, 1, 2, 3), bool)
    missing[0, 0, 1] = missing[1] = True
    missing[1, 0, 0, 0] = False
    for values in (found.rho, found.p, found.p_family, found.q):
        np.testing.assert_array_equal(np.isnan(values), missing)
    # varies in one stratum alone, as the other side does in the other
    activations[1, 0, 1] = activations[1, 0, 0]
    assert np.isnan(associated(activations, changes, within).rho[1, 0, 0, 1])
    # the family of what is left is as without the constant layer
    alone = associated(activations[:1, :1], changes, within)
    np.testing.assert_array_equal(found.p_family[0, 0, 0], alone.p_family[0, 0, 0])
    assert np.isfinite(plain.p_family).all()


def test_samples_alone_in_their_stratum_say_nothing() -> None:
    within = [f"0/{n}" for n in range(6)]
    assert strata([0] * 6, list("abcdef")) == list("abcdef")
    assert np.isnan(associated(noise("one", 1, 1, 1, 6), noise("two", 1, 1, 6), within).p_family).all()
    pairs = [*within, "1/x", "1/x", "1/x"]
    found = associated(noise("three", 1, 1, 1, 9), noise("four", 1, 1, 9), pairs)
    assert found.samples == 3
    activations = noise("three", 1, 1, 1, 9)
    activations[..., :6] *= 100
    np.testing.assert_allclose(
        associated(activations[..., 6:], noise("four", 1, 1, 9)[..., 6:], pairs[6:]).samples, found.samples
    )


def test_strata_are_of_one_seed_and_group() -> None:
    assert strata([0, 0, 0, 1], ["a", "a", "b", "a"]) == ["0/a", "0/a", "0/b", "1/a"]
    # a photograph stands once in each seed
    assert strata([0, 0, 1, 1], ["p", "q", "p", "q"]) == ["p", "q", "p", "q"]


def test_permutations_stay_within_strata_and_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    within = ["b", "a", "b", "a", "c", "b"]
    orders = associations._orders(associations._members(within), 200, 0)
    for order in orders:
        assert [within[i] for i in order] == within
        assert sorted(order) == list(range(6))
    np.testing.assert_array_equal(orders[:50], associations._orders(associations._members(within), 50, 0))
    # all 2! 3! orders are as frequent as each other
    assert np.unique(orders, axis=0, return_counts=True)[1].min() > 6
    activations, changes = noise("chunks a", 2, 2, 3, 24), noise("chunks f", 2, 3, 24)
    whole = associated(activations, changes, ["x"] * 24)
    monkeypatch.setattr(associations, "_CHUNK", 1)
    for key, values in vars(associated(activations, changes, ["x"] * 24)).items():
        np.testing.assert_array_equal(values, getattr(whole, key))


def test_mistakes_are_named() -> None:
    activations, changes = noise("bad a", 1, 2, 3, 8), noise("bad f", 1, 3, 8)
    with pytest.raises(ValueError, match=r"changes of shape \(1, 3, 8\) and 7 strata"):
        associated(activations, changes, ["x"] * 7)
    with pytest.raises(ValueError, match="expected at least 1"):
        associated(activations, changes, ["x"] * 8, 0)
    activations[0, 1, 2, 3] = np.nan
    with pytest.raises(ValueError, match=r"activations are NaN or infinite for some samples, first at \(0, 1, 2\)"):
        associated(activations, changes, ["x"] * 8)
