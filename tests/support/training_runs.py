"""What training runs leave behind, and a way to step in."""

import logging

import torch

from cliffsteer import Surrogate


def weights(run):
    return Surrogate.from_pretrained(run / "surrogate").state_dict()


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def scalars(run):
    """What TensorBoard has: tag -> {step: value}, and the tags of images."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    values, images = {}, set()
    for path in sorted((run / "tensorboard").glob("events*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "images":
                    images.add(value.tag)
                else:
                    values.setdefault(value.tag, {})[event.step] = float(value.tensor.float_val[0])
    return values, images


class At(logging.Handler):
    """Does something when training tells that a step is validated."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def emit(self, record):
        if record.getMessage().startswith(f"step {self.step} "):
            self.action()

    def __enter__(self):
        self.logger = logging.getLogger("cliffsteer.training")
        self.level = self.logger.level
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)

    def __exit__(self, *_):
        self.logger.removeHandler(self)
        self.logger.setLevel(self.level)
