"""What must hold on a CUDA device: `make gpu-check`. Needs torch, lightning, numpy and pytest; names what it skips."""

import os

import pytest
import torch

from counterpoint.randomness import Draw
from objectives.scenes import scene
from test_objectives import CASES, build, called

DEVICE = os.environ.get("COUNTERPOINT_TEST_DEVICE", "cuda")  # cpu: to see that these tests themselves run
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(DEVICE == "cuda" and not torch.cuda.is_available(), reason="no CUDA device"),
]
ACCELERATOR = "gpu" if DEVICE == "cuda" else "cpu"


@pytest.mark.parametrize("name", CASES)
def test_an_objective_gives_what_it_gives_on_the_cpu(name):
    where, found = CASES[name].scenes[0], []
    for device in ("cpu", DEVICE):
        m, o = build(name).to(device), scene(where).map(lambda t: t.detach().to(device))  # noqa: B023
        for e in o.student:
            e.z.requires_grad_()
        loss = called(m, o)
        gradients = torch.autograd.grad(loss, [e.z for e in o.student], allow_unused=True, materialize_grads=True)
        found.append([loss.detach().cpu(), *(gradient.cpu() for gradient in gradients)])
    torch.testing.assert_close(found[1], found[0], rtol=1e-7, atol=1e-9)


def test_small_draws_are_those_of_the_cpu_and_large_ones_repeat():
    ids = torch.tensor([3, 99, 4])
    here, there = Draw(5, ids), Draw(5, ids.to(DEVICE))
    assert torch.equal(here.uniform(4), there.uniform(4).cpu())
    assert torch.equal(here.permutation(9), there.permutation(9).cpu())
    large = [Draw(5, ids.to(DEVICE)).normal(1000) for _ in range(2)]
    assert torch.equal(*large) and torch.equal(Draw(5, ids[[1]].to(DEVICE)).normal(1000)[0], large[0][1])


def _train(micro=None, callbacks=(), ckpt=None, **options):
    from building import loop, train
    from counterpoint.objectives.info_nce import InfoNCE
    from counterpoint.objectives.moco import MoCo
    from counterpoint_toy.parts import Pairs

    objectives = {
        "nce": InfoNCE(temperature=0.3, learnable=True, pairs="across"),
        "moco": MoCo(temperature=0.3, queue=37, momentum=0.9, modalities=["signal", "words"]),
    }
    module = loop(objectives, micro=micro)
    train(module, Pairs(size=48, missing=0.3), batch=16, callbacks=callbacks, ckpt=ckpt, accelerator=ACCELERATOR, devices=1, **options)  # fmt: skip
    return module


def test_micro_batches_give_the_gradient_of_the_whole_batch():
    from building import Gradients

    whole, parts = Gradients(), Gradients()
    _train(callbacks=[whole], epochs=1)
    _train(micro=5, callbacks=[parts], epochs=1)
    for name, expected in whole.seen[0].items():
        torch.testing.assert_close(parts.seen[0][name], expected, rtol=1e-3, atol=1e-5)


def test_a_stopped_run_ends_bit_identical(tmp_path):
    import lightning

    from building import assert_same_state

    class Stop(lightning.Callback):
        def on_train_batch_end(self, trainer, module, *rest):
            if trainer.global_step == 4:
                trainer.save_checkpoint(tmp_path / "stopped.ckpt")
                raise KeyError("stopped")

    straight = _train(epochs=3, deterministic=True)
    with pytest.raises(KeyError):
        _train(epochs=3, deterministic=True, callbacks=[Stop()])
    assert_same_state(straight, _train(epochs=3, deterministic=True, ckpt=tmp_path / "stopped.ckpt"))


def test_bfloat16_trains():
    module = _train(precision="bf16-mixed")
    assert module.last_outputs.student[0].z.dtype == torch.float32
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_views_and_encoder_of_the_ecg_pack():
    from counterpoint.batch import View
    from counterpoint.views.signal import Crop, Noise, TimeMask
    from counterpoint_ecg.encoders.resnet1d import ResNet1d
    from counterpoint_ecg.views.amplitude import BaselineWander, Scale
    from counterpoint_ecg.views.timing import TimeWarp

    ids = torch.arange(6, device=DEVICE)
    view = View("ecg", torch.randn(6, 3, 500, device=DEVICE), ids)
    for step in (
        Crop(samples=400, stretch=0.1),
        TimeMask(),
        Scale(),
        BaselineWander(cycles=(0.5, 5)),
        TimeWarp(),
        Noise(snr_db=10),
    ):
        made = step.to(DEVICE)(view, Draw(1, ids))
        assert made.data.device.type == DEVICE and torch.isfinite(made.data).all()
        assert torch.equal(made.data, step(view, Draw(1, ids)).data)
    encoder = ResNet1d(channels=3, width=8, blocks=(1, 1)).to(DEVICE)
    assert encoder(view.data).h.shape == (6, encoder.width)


def _views(pack):
    """What a pack's view generators see, and some of them; what is not installed here is skipped by name."""
    if pack == "medical":
        from counterpoint_medical.views.detail import Blur, CutOut
        from counterpoint_medical.views.intensity import Gamma, Intensity, Noise
        from counterpoint_medical.views.place import Crop, Flip
        from counterpoint_medical.views.turning import Affine

        return torch.rand(4, 1, 12, 14, 16), [Crop(size=10), Flip(), Affine(), Intensity(), Gamma(), Noise(), Blur(), CutOut()]  # fmt: skip
    if pack == "video":
        from counterpoint_video.views.colour import ColourJitter, Difference, Grey
        from counterpoint_video.views.space import Blur, CropResize, Flip

        return torch.rand(4, 3, 6, 20, 24), [CropResize(size=16), Flip(), ColourJitter(), Grey(), Blur(), Difference()]
    if pack == "points3d":
        from counterpoint_points3d.views.moves import Flip, Jitter, Rotate, Scale
        from counterpoint_points3d.views.selections import Crop, Dropout, Subsample

        return torch.randn(4, 3, 200), [Rotate(), Flip(), Scale(), Jitter(), Dropout(), Crop(), Subsample(points=64)]
    if pack == "audio_text":
        pytest.importorskip("librosa", reason="the log-mel needs librosa's filter bank")
        from counterpoint_audio_text.views.gain import Gain
        from counterpoint_audio_text.views.log_mel import LogMel
        from counterpoint_audio_text.views.speed import Speed

        return torch.randn(4, 1, 4000), [Gain(), Speed(), LogMel(rate=8000, mels=20)]
    from counterpoint.views.tokens import TokenCrop, TokenDelete, TokenMask

    return torch.randint(5, 300, (4, 70)), [TokenMask(mask_token=4), TokenDelete(), TokenCrop()]


@pytest.mark.parametrize("pack", ["medical", "video", "points3d", "audio_text", "text"])
def test_views_of_a_pack_repeat_on_the_device(pack):
    from counterpoint.batch import View

    data, steps = _views(pack)
    ids = torch.arange(4, device=DEVICE)
    view = View("x", data.to(DEVICE), ids)
    for step in steps:
        made, again = (step.to(DEVICE)(view, Draw(1, ids)) for _ in range(2))
        assert made.data.device.type == DEVICE and torch.isfinite(made.data.float()).all()
        assert torch.equal(made.data, again.data)


def test_encoders_of_plain_torch_run_on_the_device():
    from counterpoint.encoders.text_transformer import TextTransformer
    from counterpoint_points3d.encoders.dgcnn import DGCNN
    from counterpoint_points3d.encoders.pointnet import PointNet

    torch.manual_seed(0)
    points, text = torch.randn(4, 3, 64), torch.randint(0, 99, (4, 9))
    for encoder, data in ((PointNet(channels=3), points), (DGCNN(channels=3, widths=(8, 8), wide=16), points), (TextTransformer(vocabulary=99), text)):  # fmt: skip
        here, there = (encoder.eval().to(device)(data.to(device)) for device in ("cpu", DEVICE))
        h = [getattr(out, "h", out).detach().cpu() for out in (here, there)]
        torch.testing.assert_close(h[1], h[0], atol=2e-3, rtol=2e-3)


def test_a_recipe_from_the_command_line(tmp_path):
    pytest.importorskip("pydantic", reason="recipes need pydantic")
    pytest.importorskip("yaml", reason="recipes need PyYAML")
    from test_fit import RECIPE, started

    (tmp_path / "recipe.yaml").write_text(RECIPE)
    options = [f"trainer.accelerator={ACCELERATOR}", "trainer.devices=1", "trainer.max_epochs=2", "callbacks=[]"]
    done = started(tmp_path, "fit", "recipe.yaml", *options)
    assert done.returncode == 0, done.stderr
    assert "trained encoder" in done.stdout
