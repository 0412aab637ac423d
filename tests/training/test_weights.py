import pytest
import torch

from cliffsteer import Surrogate
from cliffsteer.training import train


@pytest.fixture(scope="module")
def run(root, tmp_path_factory):
    from cliffsteer.training import DataConfig, ModelConfig, TrainConfig, TrainerConfig

    config = TrainConfig(
        DataConfig(str(root), history=2, batch_size=4),
        ModelConfig("resnet", {"hidden_channels": 6, "blocks": [1], "kernel_size": 3}),
        trainer=TrainerConfig(steps=3, validate_every=3, rollout_steps=0, images=False),
    )
    return train(config, tmp_path_factory.mktemp("before") / "run")


@pytest.mark.parametrize("source", ["", "surrogate", "checkpoints/last.ckpt"])
def test_a_training_starts_from_the_weights_of_another(small, run, tmp_path, source):
    config = small(steps=1, ema_decay=0.0, lr=1e-30)
    config.model.weights = str(run / source)
    started = Surrogate.from_pretrained(train(config, tmp_path / "run") / "surrogate").network.state_dict()
    expected = Surrogate.from_pretrained(run / "surrogate").network.state_dict()
    assert all(torch.equal(value, started[name]) for name, value in expected.items())


def test_refusals(small, run, tmp_path):
    config = small()
    config.model.weights = str(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"`model.weights` \(=.*nowhere\) does not exist"):
        train(config, tmp_path / "run")
    config.model.weights, config.model.options["hidden_channels"] = str(run), 5
    with pytest.raises(ValueError, match=r"`model.weights` \(=.*\) does not fit the network: \d+ weight\(s\) differ"):
        train(config, tmp_path / "run")
    damaged = tmp_path / "damaged.ckpt"
    damaged.write_bytes(b"no checkpoint")
    config.model.weights = str(damaged)
    with pytest.raises(ValueError, match=r"damaged.ckpt\) is damaged or no checkpoint"):
        train(config, tmp_path / "run")


def test_options_that_do_not_show_in_the_weights_must_agree(small, tmp_path):
    def config(**options):
        out = small(steps=1)
        out.model.name, out.model.options = "csresnet", {**out.model.options, **options}
        return out

    before = str(train(config(), tmp_path / "before"))
    other, fine = config(norm="layer"), config(padding="periodic")
    fine.model.weights = before
    for source in (before, f"{before}/checkpoints/last.ckpt"):
        other.model.weights = source
        with pytest.raises(ValueError, match=r"of a network with `norm` group, this one has layer: give model.options"):
            train(other, tmp_path / "run")
    train(fine, tmp_path / "run")
