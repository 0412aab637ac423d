"""A sound solver, and for each clause of the contract one that breaks it, with the message that must name the fault."""

import torch

from cliffsteer import Field, FieldSpec, Grid
from cliffsteer.solvers import Solver, State


class Spin(Solver):
    """A scalar that decays, and a vector field that turns: ∂ₜs = −κs, ∂ₜv = ω v⌋I."""

    name = "spin"
    spin_grade = 2

    def __init__(self):
        self.grid, self.dt = Grid((5, 5)), 0.5
        self.spec = FieldSpec(
            (1, 1),
            [
                Field("amount", 0),
                Field("arrow", 1),
                Field("decay", 0, "1/s", "parameter", (0.3,)),
                Field("spin", self.spin_grade, "1/s", "parameter", (0.7,)),
            ],
        )

    def initial(self, seeds):
        noise = [
            torch.randn(3, *self.grid.shape, generator=torch.Generator().manual_seed(s), dtype=torch.float64)
            for s in seeds
        ]
        noise = torch.stack(noise)
        return State({"amount": noise[:, 0], "arrow": noise[:, 1:]}, self.read_parameters(None, len(noise)))

    def advance(self, state):
        decay, angle = (self.dt * state.parameters[name].view(-1, 1, 1) for name in ("decay", "spin"))
        x, y = state.values["arrow"].unbind(1)
        turned = torch.stack([angle.cos() * x - angle.sin() * y, angle.sin() * x + angle.cos() * y], 1)
        return State({"amount": state.values["amount"] * torch.exp(-decay), "arrow": turned}, state.parameters)

    def observe(self, state):
        return self.spec.pack({name: value[:, None] for name, value in state.values.items()})

    def restore(self, frames, parameters=None):
        self.require_finite(frames)
        fields = self.spec.unpack(frames[:, -1:].double())
        values = {"amount": fields["amount"][:, 0, 0], "arrow": fields["arrow"][:, 0]}
        return State(values, self.read_parameters(parameters, len(frames)))


BROKEN = {}


def broken(message, **told):
    def note(cls):
        BROKEN[cls.__name__] = (cls, message, told)
        return cls

    return note


@broken("it has no `dt`")
class NoTimeStep(Spin):
    def __init__(self):
        super().__init__()
        del self.dt


@broken(r"`dt` \(=0\) is no positive number")
class NoTime(Spin):
    def __init__(self):
        super().__init__()
        self.dt = 0


@broken(r"`grid` has 1 axes, but CliffordAlgebra\(\(1, 1\)\) of `spec` needs 2")
class OtherGrid(Spin):
    def __init__(self):
        super().__init__()
        self.grid = Grid((5,))


@broken(r"`initial` raised TypeError")
class InitialFails(Spin):
    def initial(self, seeds):
        return super().initial(seeds + 1)


@broken("`initial` gives other states for the same seeds, or with another global seed")
class GlobalNoise(Spin):
    def initial(self, seeds):
        state = super().initial(seeds)
        return State({**state.values, "amount": torch.rand_like(state.values["amount"])}, state.parameters)


@broken("`initial` changes torch's global random state: draw from the generator of each trajectory")
class GlobalSeed(Spin):
    def initial(self, seeds):
        torch.manual_seed(0)
        return super().initial(seeds)


@broken("`initial` gives other states for a seed when others stand beside it")
class SharedGenerator(Spin):
    def initial(self, seeds):
        state, generator = super().initial(seeds), torch.Generator().manual_seed(seeds[0])
        noise = torch.randn(len(seeds), *self.grid.shape, dtype=torch.float64, generator=generator)
        return State({**state.values, "amount": noise}, state.parameters)


@broken("`initial` gives the same state for the seeds 0 and 1")
class DeafToSeeds(Spin):
    def initial(self, seeds):
        return super().initial([0] * len(seeds))


@broken("`amount` in the state of `initial` is torch.float32, not float64")
class SinglePrecision(Spin):
    def initial(self, seeds):
        state = super().initial(seeds)
        return State({name: value.float() for name, value in state.values.items()}, state.parameters)


@broken(r"`initial` gives parameters {'decay': \(3, 1\)}, but `spec` declares {'decay': \(3, 1\), 'spin': \(3, 1\)}")
class LostParameter(Spin):
    def initial(self, seeds):
        state = super().initial(seeds)
        return State(state.values, {"decay": state.parameters["decay"]})


@broken(r"`arrow` in the state of `initial` has shape \(2, 3, 5, 5\): batch \(3\) is first")
class BatchSecond(Spin):
    def initial(self, seeds):
        state = super().initial(seeds)
        return State({**state.values, "arrow": state.values["arrow"].transpose(0, 1)}, state.parameters)


@broken("`advance` changes the state that it is given")
class InPlace(Spin):
    def advance(self, state):
        state.values["amount"].mul_(0.5)
        return super().advance(state)


@broken("`advance` gives another result when it is called again")
class Restless(Spin):
    def advance(self, state):
        later = super().advance(state)
        return State({**later.values, "amount": torch.rand_like(later.values["amount"])}, later.parameters)


@broken("`advance` gives another `amount` for seed 0 when others stand beside it")
class Mixing(Spin):
    def advance(self, state):
        later = super().advance(state)
        mean = later.values["amount"].mean(0, keepdim=True)
        return State({**later.values, "amount": later.values["amount"] + 0.1 * mean}, later.parameters)


@broken("`amount` in the state of `advance` holds NaN or infinite values")
class Divergent(Spin):
    def advance(self, state):
        later = super().advance(state)
        return State({**later.values, "amount": later.values["amount"] / 0}, later.parameters)


@broken("`advance` changes a parameter")
class DriftingParameter(Spin):
    def advance(self, state):
        later = super().advance(state)
        return State(later.values, {**later.parameters, "decay": 2 * later.parameters["decay"]})


@broken(r"`observe` gives frames of shape \(3, 4, 5, 5\), not \(3, 1, 4, 5, 5\)")
class NoTimeAxis(Spin):
    def observe(self, state):
        return super().observe(state)[:, 0]


@broken("`observe` gives frames in torch.float32, not torch.float64")
class CoarseFrames(Spin):
    def observe(self, state):
        return super().observe(state).float()


@broken("`observe` gives frames that are not zero on blades that hold no field of `spec`")
class Stray(Spin):
    def observe(self, state):
        frames = super().observe(state)
        frames[:, :, 3] = frames[:, :, 0]
        return frames


@broken(r"`observe\(restore\(frames\)\)` is off `frames` by 1.5e-01, more than 1e-10")
class Blurred(Spin):
    def restore(self, frames, parameters=None):
        return super().restore(torch.cat([frames[:, :, :1] * 0.7, frames[:, :, 1:]], 2), parameters)


@broken("`restore` does not keep parameter `decay`")
class Defaults(Spin):
    def restore(self, frames, parameters=None):
        state = super().restore(frames, parameters)
        return State(state.values, self.read_parameters({"decay": 1.0}, len(frames)))


@broken("`restore` takes frames: check it with restores=True", restores=False)
class Restorable(Spin):
    pass


@broken("`restore` raised ValueError")
class Refusing(Spin):
    def restore(self, frames, parameters=None):
        raise ValueError("no")


@broken("`restore` raised KeyError.*, not a ValueError", restores=False)
class RefusingOtherwise(Spin):
    def restore(self, frames, parameters=None):
        raise KeyError("no")


@broken(r"`step` is not observe\(advance\(restore\(frames\)\)\)")
class Doubled(Spin):
    def step(self, frames, parameters=None):
        return super().step(super().step(frames, parameters), parameters)


@broken("`step` changes the frames that it is given")
class Overwriting(Spin):
    def step(self, frames, parameters=None):
        out = super().step(frames, parameters)
        return frames.copy_(out)


@broken("`step` of two frames is not that of the last one")
class FirstFrame(Spin):
    def step(self, frames, parameters=None):
        return super().step(frames[:, :1], parameters)


@broken("`step` gives frames in torch.float64, not torch.float32")
class AlwaysDouble(Spin):
    def step(self, frames, parameters=None):
        return super().step(frames.double(), parameters)


@broken("parameter `decay` does not change `step`")
class Ignored(Spin):
    def advance(self, state):
        fixed = State(state.values, {**state.parameters, "decay": 0.3 + 0 * state.parameters["decay"]})
        return State(super().advance(fixed).values, state.parameters)


@broken("parameter `spin` of one trajectory changes `step` of another")
class FirstForAll(Spin):
    def advance(self, state):
        first = State(
            state.values,
            {**state.parameters, "spin": state.parameters["spin"][:1].expand(len(state.values["amount"]), 1)},
        )
        return State(super().advance(first).values, state.parameters)


@broken("every other value of parameter `decay` is refused .*: give one in `changes`")
class Picky(Spin):
    def advance(self, state):
        if bool((state.parameters["decay"] != 0.3).any()):
            raise ValueError("0.3 it is")
        return super().advance(state)


@broken("`step` with parameters turned along is not equivariant: relative error .* under SignedPermutation")
class WrongGrade(Spin):  # a rate of rotation is a pseudoscalar: reflections change its sign
    spin_grade = 0


@broken("`step` with parameters turned along is not equivariant")
class Slanted(Spin):
    def advance(self, state):
        later = super().advance(state)
        return State({**later.values, "amount": later.values["amount"].roll(1, 1)}, later.parameters)


@broken("`step` does not refuse frames with NaN with a ValueError")
class Tolerant(Spin):
    @staticmethod
    def require_finite(frames):
        pass


@broken("`step` meets frames of another grid with .*, no ValueError")
class Unchecked(Spin):
    def step(self, frames, parameters=None):
        if frames.shape[-1] != 5:
            raise RuntimeError("shapes")
        return super().step(frames, parameters)


@broken("`step` does not refuse an unknown parameter with a ValueError")
class Careless(Spin):
    def read_parameters(self, parameters, batch, device=None):
        known = {name: value for name, value in (parameters or {}).items() if name in ("decay", "spin")}
        return super().read_parameters(known, batch, device)


@broken("the gradient of `step` in `decay` gives a slope of 0, finite differences ")
class Constant(Spin):
    def advance(self, state):
        decay = state.parameters["decay"].detach()
        return super().advance(State(state.values, {**state.parameters, "decay": decay}))


@broken("`step` has no gradient ")
class Severed(Spin):
    def advance(self, state):
        turned = super().advance(state)
        return State({name: value.detach() for name, value in turned.values.items()}, turned.parameters)
