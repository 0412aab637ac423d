"""Cards of surrogates of which little is known."""

from cliffsteer import Field, FieldSpec, Grid, Surrogate
from cliffsteer.normalization import Normalization

SPEC = FieldSpec((1, -1), [Field("phi", 0), Field("wind", 1, "m/s", "parameter", (0.0, 1.0))])


def saved(tmp_path, **options):
    model = {"name": "csresnet", "hidden_channels": 2, "blocks": [1], "kernel_size": 3}
    surrogate = Surrogate.create(model, SPEC, Grid((8, 8)), 0.5, 2, 1, Normalization.identity(SPEC))
    return (surrogate.save_pretrained(tmp_path / "s", **options) / "README.md").read_text()


def test_what_is_not_known_is_said(tmp_path):
    card = saved(tmp_path)
    for text in (
        "What it was trained on is not known.",
        "How it was trained is not known.",
        "It was not evaluated.",
        "signs of the axes: +, -.",
        "| wind | 1 (vector) | m/s | parameter |",
        'parameters={"wind": ...}',
        "frames: (batch, 2, 4, 8, 8)",
    ):
        assert text in card


def test_validation_metrics_of_a_training_are_told_as_such(tmp_path):
    card = saved(tmp_path, training_config={"data": {"root": "nowhere"}}, metrics={"valid/loss": 0.25})
    assert "| valid/loss | 0.25 |" in card
    assert "not evaluated on test data" in card
    assert '"root": "nowhere"' in card


def test_data_that_were_made_elsewhere(tmp_path):
    recipe = {"solver": "their_code", "options": {}, "splits": {"test": 1}, "frames": 3}
    card = saved(tmp_path, metrics={"dataset": {"recipe": recipe}})
    assert "# csresnet for their_code" in card
    assert "Made elsewhere, under the name their_code" in card
