"""What the text says about the dead salmon and about neurons, computed again."""

import pytest
import torch
import torch.nn.functional as F
from scipy import stats

from utils.attribution.case_01d import activations_of_pairs, ink_of, unit_activations
from utils.attribution.multiple_testing import benjamini_hochberg, bonferroni, max_statistic_permutation
from utils.models.digits_cnn import accuracy, digits_data, load_digits_cnn, random_digits_cnn
from utils.start.tools import record_activation

N_SCANS = 133
TASK = (torch.arange(N_SCANS) // 10 % 2).float()


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def t_for(data):
    """Student's t of the correlation of each column with labels."""
    columns = data - data.mean(0)
    columns = columns / columns.norm(dim=0).clamp_min(1e-12)

    def t_statistics(labels):
        centred = labels.to(data.dtype) - labels.to(data.dtype).mean()
        r = (centred / centred.norm()) @ columns
        return r * ((len(data) - 2) / (1 - r**2)).sqrt()

    return t_statistics


def p_values_of(t, n):
    return torch.from_numpy(2 * stats.t.sf(t.abs().double().numpy(), n - 2))


def scan(salmon, seed):
    volumes = torch.randn(N_SCANS, 1, *salmon.shape, generator=seeded(seed))
    volumes = F.avg_pool3d(F.avg_pool3d(volumes, 2, stride=1, padding=1), 2, stride=1)
    inside = volumes[:, 0, salmon]
    return inside / inside.std()


@pytest.fixture(scope="module")
def fish():
    """Mask of the fish, the region behind its eye, and the noise of the first scan."""
    z, y, x = torch.meshgrid(torch.arange(16) - 7.5, torch.arange(28) - 13.5, torch.arange(64) - 27.0, indexing="ij")
    body = (z / 7) ** 2 + (y / 11) ** 2 + (x / 24) ** 2 <= 1
    tail = (x > 20) & (x < 35) & (y.abs() < 0.75 * (x - 19)) & (z.abs() < 3)
    salmon = body | tail
    return salmon, ((z / 3) ** 2 + (y / 3) ** 2 + ((x + 15) / 3) ** 2 <= 1)[salmon]


@pytest.fixture(scope="module")
def noise(fish):
    return scan(fish[0], seed=0)


class TestSalmon:
    def test_noise_lights_up(self, fish, noise):
        assert int(fish[0].sum()) == 8736 and int(fish[1].sum()) == 112
        p = p_values_of(t_for(noise)(TASK), N_SCANS)
        assert abs(int((p < 0.001).sum()) - 13) <= 1 and abs(int((p < 0.05).sum()) - 516) <= 3
        others = [p_values_of(t_for(scan(fish[0], seed))(TASK), N_SCANS) for seed in range(1, 6)]
        assert [int((other < 0.001).sum()) for other in others] == pytest.approx([8, 4, 5, 17, 17], abs=1)
        assert float(torch.stack([p, *others]).lt(0.05).double().mean()) == pytest.approx(0.052, abs=0.001)

    def test_t_is_scipys(self, noise):
        some = noise[:, :5].double()
        expected = stats.ttest_ind(some[TASK == 1].numpy(), some[TASK == 0].numpy())
        torch.testing.assert_close(t_for(some)(TASK), torch.from_numpy(expected.statistic))
        torch.testing.assert_close(p_values_of(t_for(some)(TASK), N_SCANS), torch.from_numpy(expected.pvalue))

    def test_corrections_silence_the_dead_and_not_the_living(self, fish, noise):
        region = fish[1]
        for data, expected in (
            (noise, (0, 0, 0, 0)),
            (noise + 0.9 * TASK[:, None] * region, (111, 6, 89, 94)),
        ):
            p = p_values_of(t_for(data)(TASK), N_SCANS)
            p_max = max_statistic_permutation(t_for(data), TASK, n_permutations=199, generator=seeded(1))
            by_rate, strict, permuted = benjamini_hochberg(p)[0], bonferroni(p)[0], p_max <= 0.05
            found = [(by_rate & region).sum(), (by_rate & ~region).sum(), strict.sum(), permuted.sum()]
            assert [int(n) for n in found] == pytest.approx(expected, abs=2)
            assert not (strict & ~region).any() and not (permuted & ~region).any()

    def test_the_permutation_limit_is_lower_than_bonferronis(self, noise):
        statistic, generator = t_for(noise), seeded(2)
        largest = torch.stack(
            [statistic(TASK[torch.randperm(N_SCANS, generator=generator)]).abs().max() for _ in range(199)]
        )
        assert stats.t.isf(0.025 / 8736, N_SCANS - 2) == pytest.approx(4.73, abs=0.005)
        assert float(largest.quantile(0.95)) == pytest.approx(4.64, abs=0.03)


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        ("no effect", (0.997, 0.051, 0.052)),
        ("tests alike", (0.779, 0.029, 0.033)),
        ("twenty effects", (0.985, 0.043, 0.410)),
    ],
)
def test_simulated_error_rates(world, expected):
    generator = seeded(0)
    z = torch.randn(4000, 100, generator=generator, dtype=torch.float64)
    if world == "tests alike":
        z = 0.5**0.5 * z + 0.5**0.5 * torch.randn(4000, 1, generator=generator, dtype=torch.float64)
    real = torch.arange(100) < (20 if world == "twenty effects" else 0)
    p = torch.special.erfc((z + 3 * real).abs() / 2**0.5)
    rejections = (p <= 0.05, bonferroni(p)[0], benjamini_hochberg(p)[0])
    for rejected, rate in zip(rejections, expected, strict=True):
        assert float((rejected & ~real).any(1).double().mean()) == pytest.approx(rate, abs=0.001)
    if world == "twenty effects":
        shares = [float((r & ~real).sum(1).div(r.sum(1).clamp_min(1)).mean()) for r in rejections]
        power = [float((r & real).sum(1).double().mean() / 20) for r in rejections]
        assert shares == pytest.approx([0.183, 0.006, 0.040], abs=0.001)
        assert power == pytest.approx([0.85, 0.31, 0.61], abs=0.01)


def test_noise_that_remembers_breaks_the_test_by_scans_and_not_by_blocks():
    blocks = (torch.arange(120) // 10 % 2).float()
    fresh = torch.randn(120, 100, 40, generator=seeded(5))
    scans = [fresh[0]]
    for now in fresh[1:]:
        scans.append(0.6 * scans[-1] + 0.8 * now)
    rates = {}
    for by_block in (False, True):
        errors = 0
        for seed, data in enumerate(torch.stack(scans, dim=1)):
            statistic = t_for(data)

            def of_blocks(labels, statistic=statistic):
                return statistic(labels.repeat_interleave(10))

            given = (of_blocks, blocks[::10]) if by_block else (statistic, blocks)
            p = max_statistic_permutation(*given, n_permutations=39, generator=seeded(seed))
            errors += bool((p <= 0.05).any())
        rates[by_block] = errors / 100
    assert rates[False] > 0.6 and rates[True] < 0.15


@pytest.fixture(scope="module")
def digits():
    return digits_data()


@pytest.fixture(scope="module")
def units(digits):
    def of(model):
        with torch.no_grad():
            maps = [
                record_activation(model, name, digits.test_images).mean((2, 3)) for name in ("relu1", "relu2", "relu3")
            ]
            return torch.cat([*maps, record_activation(model, "relu4", digits.test_images)], dim=1)

    return of


class TestNeurons:
    def test_as_many_units_of_random_networks_go_with_eights(self, digits, units):
        eight, n = (digits.test_labels == 8).float(), len(digits.test_labels)
        trained = p_values_of(t_for(units(load_digits_cnn()))(eight), n)
        assert trained.shape == (144,) and n == 445
        counts = [int((trained <= 0.05).sum()), *(int(f(trained)[0].sum()) for f in (benjamini_hochberg, bonferroni))]
        assert counts == pytest.approx([84, 81, 53], abs=1)
        random = [p_values_of(t_for(units(random_digits_cnn(seed)))(eight), n) for seed in range(20)]
        survive = torch.tensor([int(bonferroni(p)[0].sum()) for p in random]).double()
        assert survive.mean() == pytest.approx(37, abs=1) and survive.max() == pytest.approx(50, abs=1)
        assert accuracy(load_digits_cnn(), digits.test_images, digits.test_labels) == pytest.approx(0.996, abs=0.001)

    def test_the_strongest_units(self, digits, units):
        eight, n = (digits.test_labels == 8).float(), len(digits.test_labels)

        def sizes(model):
            t = t_for(units(model))(eight)
            return (t.abs() / (n - 2 + t**2).sqrt()).sort(descending=True).values

        trained, random = sizes(load_digits_cnn()), torch.stack([sizes(random_digits_cnn(s)) for s in range(20)])
        assert float(trained[0]) == pytest.approx(0.54, abs=0.01)
        assert float(random[:, 0].max()) == pytest.approx(0.53, abs=0.01)
        assert float(trained[:10].mean()) == pytest.approx(0.34, abs=0.01)
        assert random[:, :10].mean(1).min() < trained[:10].mean() < random[:, :10].mean(1).max()

    def test_a_coin_goes_with_no_unit_after_correction(self, digits, units):
        generator, n = seeded(3), len(digits.test_labels)
        coin = torch.randint(2, (n,), generator=generator).float()
        p = p_values_of(t_for(units(load_digits_cnn()))(coin), n)
        assert int((p <= 0.05).sum()) <= 4 and not bonferroni(p)[0].any() and not benjamini_hochberg(p)[0].any()


@pytest.fixture(scope="module")
def sizes(digits):
    """|t| [network, unit] by digit, the trained network first."""
    models = [load_digits_cnn(), *(random_digits_cnn(seed) for seed in range(39))]
    ink, found = ink_of(digits.test_images), {}
    for digit in range(10):
        others, pairs = (digits.test_labels != digit).nonzero()[:, 0].tolist(), []
        for number in (digits.test_labels == digit).nonzero()[:, 0].tolist():
            nearest = min(others, key=lambda other, number=number: abs(float(ink[other] - ink[number])))
            if abs(float(ink[nearest] - ink[number])) <= 0.5:
                pairs.append((number, nearest))
                others.remove(nearest)
        true = torch.tensor([1.0, 0.0]).repeat(len(pairs))
        found[digit] = torch.stack([t_for(activations_of_pairs(model, pairs))(true).abs() for model in models])
    return found


class TestWhoseDiscovery:
    """What the text says beside the case: each digit with its neighbours in ink, strongest and mean unit."""

    def test_eights(self, sizes):
        strongest = sizes[8].amax(1)
        r = strongest / (82 + strongest**2).sqrt()  # 42 pairs
        assert float(strongest[0]) == pytest.approx(9.85, abs=0.05) and float(strongest[1:].max()) < 8.9
        assert [float(r[0]), float(r[1:].max()), float(r[1:].median())] == pytest.approx([0.74, 0.70, 0.60], abs=0.01)

    def test_another_digit_or_measure_another_verdict(self, sizes):
        p = {d: (1 + int((s[1:].amax(1) >= s[0].max()).sum())) / 40 for d, s in sizes.items()}
        assert {digit for digit, value in p.items() if value > 0.05} == {1, 3, 6}
        assert (1 + int((sizes[3][1:].mean(1) >= sizes[3][0].mean()).sum())) / 40 <= 0.05

    def test_what_has_nothing_to_do_with_digits(self, digits):
        ink, eight = ink_of(digits.test_images), digits.test_labels == 8
        assert [float(ink[eight].mean()), float(ink[~eight].mean())] == pytest.approx([20.7, 19.2], abs=0.05)
        trained = unit_activations(load_digits_cnn(), digits.test_images).std(0).mean()
        random = torch.stack(
            [unit_activations(random_digits_cnn(s), digits.test_images).std(0).mean() for s in range(9)]
        )
        assert 5 < float(trained / random.mean()) < 20
