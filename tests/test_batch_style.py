"""One style a view and batch: amplitudes of the low frequencies are one sample's, phases each one's own."""

import pytest
import torch

from building import loop, towers
from counterpoint.batch import Batch, View
from counterpoint.errors import ComponentError
from counterpoint.objectives.info_nce import InfoNCE
from counterpoint.randomness import Draw
from counterpoint.views.batch_style import BatchStyle, restyled, window
from counterpoint.views.copies import Copies
from counterpoint.views.pipeline import Pipeline

SHAPES = [(2, 33), (1, 16), (3, 8, 10), (1, 7, 9), (2, 6, 5, 8)]


def draws(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def full(x):
    return torch.fft.fftn(x, dim=tuple(range(2, x.ndim)))


@pytest.mark.parametrize("shape", SHAPES)
def test_low_frequencies_have_one_amplitude_and_phases_stay(shape):
    data = draws(5, *shape)
    made = restyled(data, data[3], 0.3)
    d, before, after = len(shape) - 1, full(data), full(made)
    near = [2 * torch.fft.fftfreq(size).abs() <= 0.3 ** (1 / d) for size in shape[1:]]
    low = torch.stack(torch.meshgrid(*near, indexing="ij")).all(0)
    assert low.any() and not low.all()
    torch.testing.assert_close(after.abs()[..., low], before.abs()[3].expand_as(before)[..., low])
    assert after.abs()[..., low].var(0).max() < 1e-20 < before.abs()[..., low].var(0).min()
    torch.testing.assert_close(after[..., ~low], before[..., ~low])
    turned = after * before.conj()
    torch.testing.assert_close(turned.angle(), torch.zeros_like(turned.angle()), atol=1e-7, rtol=0)
    torch.testing.assert_close(made[3], data[3])


def test_the_window_takes_its_share_of_all_frequencies():
    for sizes in ((101,), (51, 61), (21, 23, 25)):
        wide = torch.ones(sizes)
        whole = int(torch.fft.fftn(wide).numel())
        for ratio in (0.1, 0.5, 1.0):
            last = torch.full((window(sizes, ratio).shape[-1],), 2.0)
            last[0] = 1.0  # frequency 0 stands once in the half that rfftn keeps, the others for two
            assert abs(float((window(sizes, ratio) * last).sum()) / whole - ratio) < 0.06
    assert window((8, 8), 1e-9).sum() == 1


def view(data, index):
    return View("m", data, torch.arange(len(data))), Draw(7, index)


def test_the_order_of_the_batch_does_not_matter_and_the_style_is_of_the_view():
    data, index, order = draws(6, 2, 16).float(), torch.arange(6) + 40, torch.tensor([3, 1, 5, 0, 2, 4])
    one = BatchStyle()(*view(data, index)).data
    two = BatchStyle()(*view(data[order], index[order])).data
    torch.testing.assert_close(one[order], two)
    pipeline = Pipeline("m", [Copies(n=2), BatchStyle(ratio=(0.5, 0.5))])
    styles = set()
    for step in range(20):
        raw = View("m", data, torch.arange(6))
        for made in pipeline(raw, index, 0, step):
            same = [i for i in range(6) if torch.allclose(made.data[i], data[i], atol=1e-5)]
            assert len(same) == 1
            styles.add(same[0])
    assert len(styles) > 3


def test_micro_batches_have_the_style_of_the_batch():
    rows = torch.arange(7)
    batch = Batch({"signal": View("signal", torch.randn(7, 2, 64), rows)}, rows)
    found = []
    for micro in (None, 3):
        module = loop({"nce": InfoNCE()}, modalities=("signal",), micro=micro, made=towers(("signal",)))
        module.pipelines["signal"] = Pipeline("signal", [Copies(n=2), BatchStyle()])
        student = module.forward_pass.encode(batch, 0)[0]
        sum(e.z.square().sum() for e in student).backward()
        found.append([e.z for e in student] + [p.grad for p in module.towers.parameters()])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_what_it_cannot_take():
    assert len(BatchStyle()(*view(draws(0, 2, 16), torch.arange(0)))) == 0
    one = draws(1, 2, 16)
    torch.testing.assert_close(BatchStyle()(*view(one, torch.arange(1))).data, one)
    assert BatchStyle()(*view(draws(2, 2, 16).half(), torch.arange(2))).data.dtype == torch.float16
    with pytest.raises(ComponentError, match="wants real numbers"):
        BatchStyle()(*view(torch.ones(2, 1, 8, dtype=torch.uint8), torch.arange(2)))
    ragged = View("m", draws(2, 2, 16), torch.arange(2), mask=torch.arange(16) < torch.tensor([[16], [9]]))
    with pytest.raises(ComponentError, match="differ in length"):
        BatchStyle()(ragged, Draw(7, torch.arange(2)))
    with pytest.raises(ComponentError, match="ratio is a range"):
        BatchStyle(ratio=(0.5, 0.1))
