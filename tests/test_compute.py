"""The switch of params.yaml: what it chooses, what it refuses, and that it changes speed and not the science."""

import copy
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from lib import activations, attacks, compute, config, evaluate, methods, models, train
from lib.attacks import auto, gradient, losses, threat
from lib.layers import Classifier
from lib.methods import Moment, trades
from lib.params import ConfigError
from lib.weights import moved

CPU = torch.device("cpu")
LOW = torch.bfloat16
bf16 = pytest.mark.skipif(not compute._bfloat16(CPU)[1], reason="this CPU has no instructions for bfloat16")


def hardware(monkeypatch, amx=False, avx=False, capability=None):
    """Pretend a machine: a CPU with AMX or AVX-512 in bfloat16, or neither, and a GPU of some capability, or none."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": amx, "avx512_bf16": avx})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)


@pytest.fixture
def switch(monkeypatch):
    """`compute` with everything auto; what `compute.device` sets is put back."""
    for name in ("benchmark", "deterministic", "allow_tf32"):
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    found = config.load("smoke", "digits").compute
    return replace(found, precision="auto", memory_format="auto", compile="auto")


@pytest.fixture
def low(cfg):
    """The configuration of `cfg`, computed in bfloat16."""
    return replace(cfg, compute=replace(cfg.compute, precision="bfloat16"))


@contextmanager
def dtypes(model):
    """In what each pass computes: the type of what the first convolution gives."""
    found, first = [], next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    hook = first.register_forward_hook(lambda module, inputs, output: found.append(output.dtype))
    try:
        yield found
    finally:
        hook.remove()


class TestSwitch:
    @pytest.mark.parametrize(("amx", "avx", "auto"), [(True, True, LOW), (False, True, torch.float32),
                                                      (False, False, torch.float32)])
    def test_precision_of_a_cpu(self, switch, monkeypatch, amx, avx, auto):
        hardware(monkeypatch, amx, avx)
        assert compute.precision(switch, CPU) == auto
        assert compute.precision(replace(switch, precision="float32"), CPU) == torch.float32
        asked = replace(switch, precision="bfloat16")
        if amx or avx:
            assert compute.precision(asked, CPU) == LOW
        else:
            with pytest.raises(ConfigError, match="is bfloat16, which this cpu has no .* use auto or float32$"):
                compute.device(asked)

    @pytest.mark.parametrize(("capability", "auto"), [((7, 5), torch.float32), ((8, 0), LOW), ((9, 0), LOW)])
    def test_precision_of_a_gpu(self, switch, monkeypatch, capability, auto):
        hardware(monkeypatch, amx=True, capability=capability)
        assert compute.precision(switch, torch.device("cuda")) == auto
        if auto == torch.float32:
            with pytest.raises(ConfigError, match="this cuda has no instructions"):
                compute.precision(replace(switch, precision="bfloat16"), torch.device("cuda"))

    @pytest.mark.parametrize(("device", "capability", "memory_format", "last"), [
        ("cpu", None, "auto", True), ("cpu", None, "contiguous", False), ("cuda", (9, 0), "auto", True),
        ("cuda", (7, 5), "auto", False), ("cuda", (7, 5), "channels_last", True)])
    def test_memory_format(self, switch, monkeypatch, device, capability, memory_format, last):
        hardware(monkeypatch, capability=capability)
        moves = {}
        monkeypatch.setattr(nn.Module, "to", lambda self, *device, **more: moves.update(more) or self)
        compute.place(nn.Conv2d(3, 4, 3), replace(switch, memory_format=memory_format), torch.device(device))
        assert moves == ({"memory_format": torch.channels_last} if last else {})

    @pytest.mark.parametrize("number", ["device", "precision", "memory_format", "compile", "deterministic", "threads",
                                        "workers", "processes"])
    def test_a_value_that_means_nothing_is_one_line(self, switch, number):
        bad = {"threads": 0, "workers": -1, "processes": 0}.get(number, "float23")
        with pytest.raises(ConfigError, match=rf"compute\.{number} (of|in) params.yaml") as error:
            compute.device(replace(switch, **{number: bad}))
        assert "\n" not in str(error.value)

    def test_a_gpu_that_is_not_there(self, switch, monkeypatch):
        hardware(monkeypatch)
        with pytest.raises(ConfigError, match="compute.device is cuda, but torch sees no GPU here: use auto or cpu"):
            compute.device(replace(switch, device="cuda"))

    @pytest.mark.parametrize(("deterministic", "found"), [("auto", True), (True, True), (False, False)])
    def test_a_cpu_is_deterministic_by_itself(self, switch, monkeypatch, deterministic, found):
        hardware(monkeypatch)
        assert compute.device(replace(switch, deterministic=deterministic)) == CPU
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (found, not found)

    @pytest.mark.parametrize("deterministic", ["auto", True])
    def test_a_process_has_the_gpu_of_its_number(self, switch, monkeypatch, deterministic):
        hardware(monkeypatch, capability=(9, 0))
        monkeypatch.setenv(compute.RANK, "3")
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
        chosen, strict = [], []
        monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
        monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *how, **more: strict.append(how))
        assert compute.device(replace(switch, deterministic=deterministic)) == torch.device("cuda:3") == chosen[0]
        assert bool(strict) == (deterministic is True) == torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.allow_tf32

    def test_digits_have_the_same_bits_everywhere(self, monkeypatch):
        hardware(monkeypatch, amx=True, avx=True)
        for profile in ("smoke", "default"):
            run = config.load(profile, "digits", "pgd", 0)
            assert compute.precision(run.compute, CPU) == torch.float32 and run.compute.compile is False
            assert isinstance(compute.fast(run.compute, CPU), nullcontext)
            model = compute.place(nn.Conv2d(4, 5, 3), run.compute, CPU)
            assert model.weight.is_contiguous()

    def test_other_sets_take_what_is_quick(self, monkeypatch):
        hardware(monkeypatch, amx=True)
        run = config.load("paper", "cifar10", "pgd", 0)
        assert compute.precision(run.compute, CPU) == LOW and run.compute.compile == "auto"


@bf16
class TestLowPrecision:
    def test_convolutions_are_bfloat16_and_logits_float32(self, low, model, digits):
        x, _ = digits.test.first(20).floats()
        found = {}
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.register_forward_hook(lambda module, inputs, output: found.update({module: output.dtype}))
        with compute.fast(low.compute, CPU):
            logits = model(x)
        assert len(found) == 6 and set(found.values()) == {LOW}
        assert logits.dtype == torch.float32 and torch.isfinite(logits).all()
        assert not torch.equal(logits, model(x)) and set(found.values()) == {torch.float32}
        assert torch.allclose(logits, model(x), atol=0.1)

    @pytest.mark.parametrize("method", ["pgd", "trades", "pgd+awp", "pgd+he", "pgd+sparta", "pgd+denoising"])
    def test_a_training_has_finite_float32_weights_and_learns(self, low, few, method):
        """As the training in float32 does, nearly."""
        losses = []
        for precision in ("float32", "bfloat16"):
            run = replace(low, method=method, compute=replace(low.compute, precision=precision))
            model, _, optimizer, *rest = train.begin(run, methods.build(run), few, CPU)
            with dtypes(model) as found:
                losses.append(train.train_epoch(run, methods.build(run), model, few.train, optimizer, *rest, 0.5))
        assert LOW in found and losses[1] == pytest.approx(losses[0], rel=0.02) and losses[1] != losses[0]
        momentum = [state["momentum_buffer"] for state in optimizer.state.values()]
        for tensor in (*model.parameters(), *momentum, *(p.grad for p in model.parameters())):
            assert tensor.dtype == torch.float32 and torch.isfinite(tensor).all()

    @pytest.mark.parametrize("loss", [*losses.LOSSES.values(), losses.tempered(5.0)])
    def test_gradients_of_attacks_are_float32_and_nearly_the_same(self, low, model, digits, loss):
        x, y = digits.test.first(50).floats()
        with attacks.under_attack(model):
            exact = threat.loss_and_gradient(model, x, y, loss)[1]
            with compute.fast(low.compute, CPU):
                found = threat.loss_and_gradient(model, x, y, loss)[1]
        assert found.dtype == torch.float32 and torch.isfinite(found).all()
        alike = torch.cosine_similarity(found.flatten(1), exact.flatten(1))
        assert not torch.equal(found, exact) and alike.median() > 0.99

    def test_weights_that_move_within_the_context_are_seen(self, low, model, digits):
        """torch's autocast keeps the cast weights until its context ends, unless it is told not to."""
        x, _ = digits.test.first(20).floats()
        v = {name: 0.1 * p.detach() for name, p in model.named_parameters() if p.dim() > 1}
        with compute.fast(low.compute, CPU):
            before = model(x)
            with moved(model, (1.0, v)):
                away = model(x)
            assert not torch.equal(before, away) and torch.equal(before, model(x))

    @pytest.mark.parametrize("outside", ["float32", "bfloat16"])
    def test_an_attack_is_bfloat16_and_its_score_float32(self, low, model, digits, outside):
        images = digits.test.first(40)
        expected = evaluate.score(model.eval(), *images.floats())

        def attack(model, x, y, *, generator):
            """Changes nothing, but looks."""
            model(x)
            return x

        fast = partial(compute.fast, low.compute, CPU)
        with dtypes(model) as found, compute.fast(replace(low.compute, precision=outside), CPU):
            rows = evaluate.per_sample(model, images, attack, compute.generator(0), 20, fast)
        assert found == [getattr(torch, outside), LOW, torch.float32] * 2  # the first one of a batch checks the model
        assert rows.drop(columns="index").equals(expected)

    def test_the_attacks_of_a_table_and_their_batches(self, low, few, model, monkeypatch):
        seen, per_sample = [], evaluate.per_sample

        def watched(model, images, attack, generator, batch_size, arithmetic):
            """Notes how it is called."""
            with arithmetic():
                seen.append((batch_size, torch.is_autocast_enabled("cpu")))
            return per_sample(model, images, attack, generator, batch_size, arithmetic)

        monkeypatch.setattr(evaluate, "per_sample", watched)
        trained = train.Trained(None, dict.fromkeys(train.CHECKPOINTS, train.snapshot(model)), {})
        rows = {}
        for precision in ("float32", "bfloat16"):
            run = replace(low, evaluate=replace(low.evaluate, batch_size=25, training_images=30),
                          compute=replace(low.compute, precision=precision))
            found = {name: attack for name, attack in evaluate.all_attacks(run).items() if name != "square"}
            rows[precision] = [evaluate.table(run, few, trained, CPU, lambda line: None, found),
                               evaluate.attacked(run, model, {"test": few.test}, CPU)]
            assert set(seen) == {(25, precision == "bfloat16")}
            seen.clear()
        for exact, found in zip(*rows.values(), strict=True):
            clean = exact.attack == evaluate.CLEAN
            assert found[clean].equals(exact[clean]) and not found.equals(exact)
            assert (found.predicted == exact.predicted).mean() > 0.95

    @pytest.mark.parametrize(("norm", "name"), [
        (norm, name) for norm in ("Linf", "L2") for name in ("fgsm", "pgd", "apgd", "apgd_targeted", "square")
        if (norm, name) != ("L2", "square")])
    def test_attacks_stay_in_the_ball(self, low, model, digits, norm, name):
        eps = {"Linf": 0.2, "L2": 1.0}[norm]
        x, y = digits.test.first(40).floats()
        numbers = {"pgd": {"steps": 5, "step_size": 0.25}, "apgd": {"steps": 5}, "square": {"queries": 10},
                   "apgd_targeted": {"steps": 5, "targets": 2}}.get(name, {})
        ball, found = config.Threat(norm, eps), {}
        for arithmetic in ("float32", "bfloat16"):
            with compute.fast(replace(low.compute, precision=arithmetic), CPU):
                x_adv = attacks.ATTACKS[name](model, x, y, threat=ball, generator=compute.generator(0), **numbers)
            away = (x_adv - x).flatten(1)
            length = away.abs().amax(1) if norm == "Linf" else away.norm(dim=1)
            assert x_adv.dtype == torch.float32 and length.max() <= eps * (1 + 1e-5)
            assert x_adv.min() >= 0 and x_adv.max() <= 1
            found[arithmetic] = evaluate.score(model.eval(), x_adv, y).margin.mean()
        clean = evaluate.score(model, x, y).margin.mean()
        assert found["bfloat16"] - clean > 0.9 * (found["float32"] - clean) > 0


class Near(nn.Module):
    """Two logits that differ by a thousandth: in bfloat16 they are equal, and the first class is said."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Conv2d(1, 2, 8, bias=False)
        with torch.no_grad():
            self.scale.weight[0], self.scale.weight[1] = 1.0, 1.001

    def forward(self, x):
        """Images (N, 1, 8, 8) -> (N, 2)."""
        return self.scale(x).flatten(1)


@bf16
class TestTheLastWord:
    """float32 says whether an image is fooled."""

    @pytest.fixture
    def near(self):
        return Classifier(Near())

    @pytest.fixture
    def ones(self, digits):
        """Images, all of class 1: float32 is right about each, and bfloat16 wrong."""
        x = digits.test.first(12).floats()[0].clamp(0.2, 0.8)
        return x, torch.ones(len(x), dtype=torch.long)

    def test_the_model_is_as_it_is_told(self, near, ones, low):
        assert near(ones[0]).argmax(1).eq(1).all()
        with compute.fast(low.compute, CPU):
            assert near(ones[0]).argmax(1).eq(0).all()

    def test_confirm(self, near, ones, low):
        x, y = ones
        best = auto._Best.of(x)
        best.update(x, torch.ones(len(x)), torch.ones(len(x), dtype=torch.bool))
        best.confirm(near, y)
        assert best.fooled.all()  # in float32 it is what the attack has seen itself
        with compute.fast(low.compute, CPU):
            best.confirm(near, y)
            assert not best.fooled.any()
            best.update(x, torch.ones(len(x)), torch.ones(len(x), dtype=torch.bool))
            best.confirm(near, torch.zeros_like(y))
        assert best.fooled.all()

    def test_restarts_go_on_with_what_only_bfloat16_took_for_fooled(self, near, ones, low, monkeypatch):
        attacked, ascend = [], auto._ascend
        monkeypatch.setattr(auto, "_ascend", lambda model, x, *more: attacked.append(len(x)) or ascend(model, x, *more))
        with compute.fast(low.compute, CPU):
            attacks.apgd(near, *ones, threat=config.Threat("Linf", 0.01), generator=compute.generator(0), steps=2,
                         restarts=3)
        assert attacked == [12, 12, 12]

    def test_cascade(self, near, ones, low):
        seen = []

        def look(model, x, y, *, generator):
            """Counts its images."""
            seen.append(len(x))
            return x

        with compute.fast(low.compute, CPU):
            evaluate.cascade(look, look)(near, *ones, generator=None)
        assert seen == [12, 12]

    def test_validation(self, near, ones, low, digits):
        x, y = ones
        images = replace(digits.test.first(12), x=(x * 255).byte(), y=y)
        run = replace(low, threat=config.Threat("Linf", 0.01))
        with dtypes(near) as found:
            clean, robust = train.predicted(run, near, images)
        assert clean.tolist() == robust.tolist() == [1] * 12
        assert set(found[:-2]) == {LOW} and found[-2:] == [torch.float32] * 2


@bf16
class TestFirstStep:
    def attack(self, run, model, digits, kept):
        """The training attack of a method; keeps its gradients, and returns in what each pass computes."""
        x, y = digits.train.first(60).floats()
        grasp = gradient.loss_and_gradient

        def note(*arguments):
            """The gradient, kept."""
            found = grasp(*arguments)
            kept.append(found[1])
            return found

        with pytest.MonkeyPatch.context() as patch, dtypes(model) as found, compute.fast(run.compute, CPU):
            patch.setattr(gradient, "loss_and_gradient", note)
            methods.build(run).attack(model, x, y, Moment(0.9, compute.generator(0)))
        return found

    @pytest.mark.parametrize(("method", "exact"), [("trades", 2), ("pgd", 0), ("mart", 0), ("consistency", 0)])
    def test_only_that_of_trades_is_float32_and_its_target(self, low, model, digits, method, exact):
        run = replace(low, method=method)
        found = self.attack(run, model, digits, [])
        assert found[:exact] == [torch.float32] * exact and set(found[exact:]) == {LOW}
        assert len(found) == run.train.steps + exact // 2

    def test_in_bfloat16_it_would_be_noise(self, low, model, digits, monkeypatch):
        low, exact, without = replace(low, method="trades"), [], []
        kept = []
        self.attack(low, model, digits, kept)
        self.attack(replace(low, compute=replace(low.compute, precision="float32")), model, digits, exact)
        for module in (gradient, trades):
            monkeypatch.setattr(module, "exact", lambda device: nullcontext())
        self.attack(low, model, digits, without)
        agreement = [(found[0].sign() == exact[0].sign())[exact[0] != 0].float().mean() for found in (kept, without)]
        assert agreement[0] == 1 and agreement[1] < 0.8
        # The steps after it are far enough away.
        second = (without[1].sign() == exact[1].sign()).float().mean()
        assert second > agreement[1]


SPECS = [*("standard", "pgd", "trades", "mart", "consistency"),
         *(f"pgd+{name}" for name in (*methods.available(), *activations.available())
           if name not in ("standard", "pgd", "trades", "mart", "consistency"))]


class TestChannelsLast:
    def step(self, run, images, memory_format):
        """The network after one step, its convolutions, and the gradient of an attack on it."""
        run = replace(run, compute=replace(run.compute, memory_format=memory_format))
        method = methods.build(run)
        model = train.initial(run, method, images, CPU)
        optimizer, scheduler = train.optimizer_and_schedule(run, model, 10)
        train.train_epoch(run, method, model, images.train, optimizer, scheduler, compute.generator(0), 0.9)
        return model

    @pytest.mark.parametrize("method", SPECS)
    def test_every_method_and_activation_takes_it(self, cfg, digits, method):
        images = replace(digits, train=digits.train.first(32))
        run = replace(cfg, method=method, train=replace(cfg.train, batch_size=32, steps=2, lr=0.01,
                                                        augment=["crop", "flip", "rotate"]),
                      threat=config.Threat("L2", 0.5), model=replace(cfg.model, width=4))
        plain, last = (self.step(run, images, name) for name in ("contiguous", "channels_last"))
        for name, module in last.named_modules():
            if isinstance(module, nn.Conv2d):
                assert module.weight.is_contiguous(memory_format=torch.channels_last), name
        before = plain.state_dict()
        assert all(torch.allclose(v, before[k], atol=2e-4) for k, v in last.state_dict().items())
        x, _ = digits.test.first(30).floats()
        assert torch.allclose(plain.eval()(x), last.eval()(x), atol=5e-3)

    @pytest.mark.parametrize("name", models.NETWORKS)
    def test_every_network_keeps_it_inside(self, cfg, digits, name):
        run = replace(cfg, model=replace(cfg.model, name=name, width=2))
        x, outputs = torch.rand(2, 3, 16, 16), {}
        images = replace(digits, train=replace(digits.train, x=torch.zeros(2, 3, 16, 16, dtype=torch.uint8)),
                         statistics=([0.5] * 3, [0.2] * 3))
        for memory_format in ("contiguous", "channels_last"):
            here = replace(run, compute=replace(run.compute, memory_format=memory_format))
            model = train.initial(here, methods.build(here), images, CPU)
            strides = []
            for module in model.modules():
                if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
                    module.register_forward_hook(lambda m, i, output, seen=strides: seen.append(
                        output.is_contiguous() or not output.is_contiguous(memory_format=torch.channels_last)))
            outputs[memory_format] = model.eval()(x)
            wide = [plain for plain in strides if plain]
            assert len(wide) == (len(strides) if memory_format == "contiguous" else len(wide))
            if memory_format == "channels_last":
                assert len(wide) < len(strides) / 2  # those of one pixel or one channel are both
        assert torch.allclose(outputs["contiguous"], outputs["channels_last"], atol=1e-4)


class TestCompiled:
    @pytest.fixture
    def compiler(self, monkeypatch):
        """A compiler that only traces, and notes the size of each batch that it makes a graph for."""
        sizes, real = [], torch.compile

        def backend(graph, inputs):
            """The graph as it is."""
            sizes.extend(one.shape[0] for one in inputs if isinstance(one, torch.Tensor) and one.dim() == 4
                         and one.shape[1:] == (1, 8, 8))
            return graph.forward

        monkeypatch.setattr(torch, "compile", lambda f, mode, dynamic: real(f, backend=backend, dynamic=dynamic))
        yield sizes
        torch.compiler.reset()

    @pytest.fixture
    def asked(self, cfg):
        """Three epochs of three steps, to be compiled."""
        return replace(cfg, compute=replace(cfg.compute, compile=True),
                       train=replace(cfg.train, epochs=2, batch_size=64, steps=2))

    def test_compiling_leaves_the_network_as_it_was(self, asked, few, compiler):
        model = train.initial(asked, methods.build(asked), few, CPU)
        before, lines = copy.deepcopy(model.state_dict()), []
        modes = [(p.requires_grad, p.grad) for p in model.parameters()]
        compute.compiled(model, asked.compute, torch.zeros(64, *few.shape), lines.append)
        assert compiler == [64, 64] and not lines  # for a step, and for an attack
        assert list(model.state_dict()) == list(before)
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert modes == [(p.requires_grad, p.grad) for p in model.parameters()] and model.training
        assert all(m.training for m in model.modules())

    @pytest.mark.parametrize("method", ["pgd", "pgd+ema", "pgd+ducat"])
    def test_the_same_training_and_graphs_of_training_batches_alone(self, asked, few, compiler, method):
        run, lines = replace(asked, method=method), []
        found = train.fit(run, few, CPU, lines.append)
        plain = train.fit(replace(run, compute=replace(run.compute, compile=False)), few, CPU, lambda line: None)
        assert len(lines) == 2 and set(compiler) <= {64, 128} and len(compiler) <= 4
        assert found.history.loss.tolist() == pytest.approx(plain.history.loss.tolist(), rel=1e-4)
        assert list(found.states["last"]) == list(plain.states["last"])
        drift = max((v - plain.states["last"][k]).abs().max() for k, v in found.states["last"].items())
        assert drift < 1e-3

    @pytest.mark.parametrize("when", ["at once", "at the first pass"])
    def test_what_cannot_be_compiled_runs_as_it_is(self, asked, few, monkeypatch, when):
        def broken(*arguments, **more):
            """No compiler here."""
            raise RuntimeError("no compiler\nand no more to say")

        monkeypatch.setattr(torch, "compile", broken if when == "at once" else lambda *arguments, **more: broken)
        lines = []
        found = train.fit(asked, few, CPU, lines.append)
        plain = train.fit(replace(asked, compute=replace(asked.compute, compile=False)), few, CPU, lambda line: None)
        assert lines[0] == "not compiled: RuntimeError: no compiler and no more to say" and len(lines) == 3
        assert all(torch.equal(v, plain.states["last"][k]) for k, v in found.states["last"].items())

    def test_auto_is_for_gpus(self, switch):
        assert not compute._wanted(switch, CPU) and compute._wanted(switch, torch.device("cuda"))
        assert isinstance(compute.eager(switch, CPU), nullcontext)


ERRORS = {"gpu": torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2 GiB"),
          "cpu": RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")}


class Full(nn.Module):
    """A model on a machine whose memory holds only so many images."""

    def __init__(self, model, most, error=ERRORS["gpu"]):
        super().__init__()
        self.model, self.most, self.error, self.tried = model, most, error, []

    def forward(self, x):
        """The logits."""
        self.tried.append(len(x))
        if len(x) > self.most:
            raise self.error
        return self.model(x)


class TestMemory:
    @pytest.fixture(autouse=True)
    def plenty(self, monkeypatch):
        """Nothing is known of memory yet."""
        monkeypatch.setattr(threat, "most", threat.most)

    @pytest.fixture
    def images(self, digits):
        """An odd number of them."""
        return digits.test.first(21).floats()

    @pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
    @pytest.mark.parametrize("name", [*losses.LOSSES, "kl", "targeted_dlr", "tempered"])
    def test_halves_give_the_same(self, model, images, capsys, name, error):
        x, y = images
        noisy = (x + 0.05).clamp(0, 1)
        with attacks.under_attack(model):
            loss = losses.LOSSES.get(name) or {"kl": losses.kl(model(x).detach()), "tempered": losses.tempered(3.0),
                                               "targeted_dlr": losses.targeted_dlr((y + 1) % 10)}[name]
            expected = threat.loss_and_gradient(model, noisy, y, loss)
            small = Full(model, 11, error)
            for found in (threat.loss_and_gradient(small, noisy, y, loss) for _ in range(2)):
                assert torch.allclose(found[0], expected[0], atol=1e-6)
                assert torch.allclose(found[1], expected[1], atol=1e-6) and expected[1].abs().max() > 1e-4
        assert small.tried == [21, 11, 10, 11, 10, 11, 10, 11, 10]  # in halves from the second time on
        said = capsys.readouterr().err
        assert said == "out of memory with an attack on 21 images at once: from now on in two halves\n"

    def test_attacks_are_the_same(self, model, images, capsys):
        x, y = images
        for attack, numbers in ((attacks.pgd, {"steps": 3, "step_size": 0.25}), (attacks.apgd, {"steps": 5})):
            found = [attack(net, x, y, generator=compute.generator(0), threat=config.Threat("L2", 0.5), **numbers)
                     for net in (model, Full(model, 11))]
            assert torch.allclose(*found, atol=1e-4)
        assert capsys.readouterr().err.count("halves") == 1

    def test_a_smaller_batch_is_tried_at_once(self, model, images):
        x, y = images
        small = Full(model, 11)
        with attacks.under_attack(model):
            threat.loss_and_gradient(small, x, y, losses.margin)
            small.tried.clear()
            threat.loss_and_gradient(small, x[:9], y[:9], losses.margin)
        assert small.tried == [9]

    @pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
    def test_half_is_too_much(self, model, images, error):
        with attacks.under_attack(model), pytest.raises(ConfigError) as raised:
            threat.loss_and_gradient(Full(model, 5, error), *images, losses.margin)
        assert str(raised.value) == ("out of memory with an attack on half of 21 images: lower train.batch_size or "
                                     "evaluate.batch_size")

    def test_batchnorm_needs_the_whole_batch(self, model, images):
        with attacks.under_attack(model, "train"), pytest.raises(ConfigError) as raised:
            threat.loss_and_gradient(Full(model, 11), *images, losses.margin)
        assert str(raised.value) == ("out of memory with an attack on 21 images, whose BatchNorm needs all of them: "
                                     "lower train.batch_size, or attack with batchnorm: eval")

    @pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
    def test_a_training_step(self, cfg, few, error, monkeypatch):
        def full(*arguments):
            """No room for its gradients."""
            raise error

        build = methods.build
        monkeypatch.setattr(methods, "build", lambda run: replace(build(run), loss=full))
        with pytest.raises(ConfigError) as raised:
            train.fit(cfg, few, CPU, lambda line: None)
        assert str(raised.value) == "out of memory in a training step of 64 images: lower train.batch_size"

    def test_other_errors_stay_what_they_are(self, model, images, capsys):
        broken = Full(model, 5, RuntimeError("sizes do not match"))
        with attacks.under_attack(model), pytest.raises(RuntimeError, match="^sizes do not match$"):
            threat.loss_and_gradient(broken, *images, losses.margin)
        assert broken.tried == [21] and not capsys.readouterr().err
        with pytest.raises(RuntimeError, match="^sizes do not match$"), compute.memory_for(3):
            raise RuntimeError("sizes do not match")

    def test_the_error_of_a_cpu_is_known(self):
        with pytest.raises(RuntimeError) as raised:
            torch.empty(10**15)
        assert compute.out_of_memory(raised.value)
