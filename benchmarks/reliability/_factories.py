"""Names and arguments of factories that a hostile manifest could give, each in a watched process.

Every attack is a bank of one model and one command or call; it holds where the attack ends in a
named error and nothing ran: no marker, no process, no connection, no file outside the bank.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

__all__ = ["ATTACKS", "SOUND", "run", "try_name"]

# What nobody may name, by kind. `{file}` in an argument is a pickle that would make a folder.
ATTACKS: dict[str, Sequence[str]] = {
    "functions of Python's library": (
        "os:system", "os:popen", "os:execv", "os:remove", "os:mkdir", "os:_exit", "os:kill",
        "os:startfile", "posix:system", "nt:system", "subprocess:run", "subprocess:Popen",
        "subprocess:check_output", "subprocess:getoutput", "builtins:exec", "builtins:eval",
        "builtins:open", "builtins:compile", "builtins:__import__", "builtins:getattr",
        "shutil:rmtree", "shutil:move", "shutil:copyfile", "pickle:load", "pickle:loads",
        "marshal:loads", "shelve:open", "runpy:run_path", "runpy:run_module", "code:interact",
        "importlib:import_module", "ctypes:CDLL", "socket:create_connection",
        "urllib.request:urlretrieve", "urllib.request:urlopen", "webbrowser:open", "pty:spawn",
        "multiprocessing:Process", "threading:Thread", "functools:partial", "functools:reduce",
        "operator:methodcaller", "pathlib:Path.unlink", "pathlib:Path.write_text",
        "tempfile:mkdtemp", "zipfile:main", "timeit:timeit", "pdb:run", "cProfile:run",
    ),
    "modules that do something when imported": (
        "this:s", "antigravity:geohash", "idlelib.idle:main", "lib2to3.__main__:main",
        "__main__:main", "__hello__:main", "turtledemo.clock:main", "test.autotest:main",
        "evil_on_import:build", "evil_on_import.inner:Net", "pip.__main__:main", "pip:main",
        "setuptools:setup", "pytest:main", "IPython:embed", "site:main", "venv:create",
        "ensurepip:bootstrap",
    ),
    "functions of libraries that read or run files": (
        "numpy:load", "numpy:fromfile", "numpy:memmap", "numpy.ctypeslib:load_library",
        "joblib:load", "joblib:dump", "pandas:read_pickle", "pandas:eval", "sklearn:set_config",
        "scipy.io:loadmat", "torch:load", "torch:save", "torch:compile", "torch.hub:load",
        "torch.hub:download_url_to_file", "torch.serialization:load", "torch.jit:load",
        "torch.package:PackageImporter", "torch.utils.cpp_extension:load", "torch.ops:load_library",
        "torch.utils.model_zoo:load_url", "torch.export:load", "torch.distributed.run:main",
        "monai.bundle:ConfigParser", "monai.bundle:run", "monai.bundle:load",
        "monai.bundle:download",
        "monai.apps:download_url", "monai.utils:run_debug", "monai.utils.module:load_submodules",
        "monai._extensions:load_module", "timm:create_model", "timm.models:create_model",
        "timm.models:load_checkpoint", "transformers:AutoModel.from_pretrained",
        "transformers:pipeline", "huggingface_hub:snapshot_download", "yaml:unsafe_load",
        "nibabel:load", "torchio:ScalarImage", "dask:compute", "cloudpickle:loads",
        "matplotlib:rc_file", "PIL.Image:open", "sympy:sympify", "skimage.io:imread",
        "requests:get", "fsspec:open", "distributed:Client", "safetensors.torch:load_file",
        "torchvision.models:get_model", "torchvision.models.resnet:resnet18",
        "segmentation_models_pytorch:from_pretrained", "segmentation_models_pytorch:create_model",
        "nnunetv2.run.run_training:run_training_entry", "torch.nn:factory_kwargs",
        "torch.nn.parallel:data_parallel", "torch.nn.init:normal_", "torch.nn.functional:conv2d",
    ),
    "skte's own functions": (
        "skte._files:write_text_atomically", "skte._files:write_atomically",
        "skte._files:os.remove",
        "skte._files:scratch_folder", "skte.bank._exported:exported_network",
        "skte.bank._monai_bundle:parsed_network", "skte.bank._weights:read_checkpoint",
        "skte.bank._manifest:keep_trust", "skte.bank._factory:_import", "skte.cli:main",
        "skte.cli._main:main", "skte.demo:write_msd", "skte.demo:run_demo", "skte.demo:load_body",
        "skte.demo:train_network", "skte.demo._train:torch.load", "skte.demo._bank:Path.unlink",
        "skte.datasets:load_dataset", "skte.extraction:FeatureCache", "skte:ModelBank.from_folder",
        "skte:BankEntry.from_exported", "skte.bank:BankEntry.from_nnunet", "skte:main",
    ),
    "chains, re-exports and machinery": (
        "torch.nn:modules.module.torch.load", "torch.nn.modules.module:torch.load",
        "torch.nn.modules.module:warnings.sys.exit", "torch.nn:Module.__init__",
        "torch.nn:Module.__class__", "torch.nn:Linear.forward.__globals__.get",
        "torch.nn:Module.__subclasses__", "torch.nn:Linear.mro", "torch.nn:Module.load_state_dict",
        "torch.nn.modules.module:OrderedDict", "torch.nn.modules.module:namedtuple",
        "torch.nn.modules.module:_global_forward_hooks.clear", "torch.nn.parameter:Parameter",
        "torch.nn.modules.utils:_quadruple", "torch.nn._reduction:legacy_get_string",
        "monai.networks.nets:load_state_dict_from_url", "monai.networks.nets.hovernet:download_url",
        "monai.networks.nets.hovernet:torch.load", "monai.networks.nets.hovernet:os.remove",
        "monai.networks.nets.densenet:load_state_dict_from_url",
        "monai.networks.nets:resnet50", "monai.networks.nets:get_pretrained_resnet_medicalnet",
        "monai.networks.nets:BertAttention.from_pretrained", "monai.networks:convert_to_onnx",
        "monai.networks:trt_compile", "monai.networks.trt_compiler:TrtCompiler",
        "monai.networks.layers:GaussianMixtureModel", "monai.networks.utils:save_state",
        "monai.networks.nets.transchex:BertPreTrainedModel.from_pretrained",
        "dynamic_network_architectures.architectures.unet:get_matching_convtransp",
        "dynamic_network_architectures.building_blocks.helper:get_matching_batchnorm",
    ),
    "names that are not names": (
        "", ":", "os", "os:", ":system", "os.system", "a:b:c", "os:system()", "../os:system",
        "os:system\n", "os\x00:system", "torch.nn:Linear ", " torch.nn:Linear", "torch .nn:Linear",
        "torch.nn:Linear;import os", "__import__('os'):system", "torch.nn:\u2170", "o\u017f:system",
        "\uff4f\uff53:system", "torch..nn:Linear", ".torch.nn:Linear", "torch.nn.:Linear",
        "torch.nn:a." + "b" * 10_000, "os/path:join", "file:///etc/passwd:x", "C:\\x:y",
    ),
}  # fmt: skip
# Allowed classes, with arguments that would have them read, write, download or fill the memory.
ARGUMENTS: Sequence[tuple[str, dict[str, Any]]] = (
    ("torch.nn:Linear", {"in_features": 10**7, "out_features": 10**7}),
    ("torch.nn:Conv3d", {"in_channels": 10**6, "out_channels": 10**6, "kernel_size": 9}),
    ("torch.nn:Embedding", {"num_embeddings": 10**12, "embedding_dim": 10}),
    ("monai.networks.nets:EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": True,
                                            "spatial_dims": 2}),
    ("monai.networks.nets:DenseNet121", {"spatial_dims": 2, "in_channels": 1, "out_channels": 2,
                                         "pretrained": True}),
    ("monai.networks.nets:MILModel", {"num_classes": 2, "pretrained": True}),
    ("monai.networks.nets:HoVerNet", {"pretrained_url": "http://127.0.0.1:9/a",
                                      "adapt_standard_resnet": True}),
    ("monai.networks.nets:HoVerNet", {"pretrained_url": "file:///etc/passwd"}),
    ("monai.networks.nets:TorchVisionFCModel", {"model_name": "resnet18", "pretrained": True}),
    ("monai.networks.nets:FlexibleUNet", {"in_channels": 3, "out_channels": 2, "spatial_dims": 2,
                                          "backbone": "efficientnet-b0", "pretrained": True}),
    ("monai.networks.nets:CellSamWrapper", {"checkpoint": "{file}"}),
    ("monai.networks.nets.cell_sam_wrapper:CellSamWrapper", {"checkpoint": "{file}"}),
    ("monai.networks.nets:Transchex", {"in_channels": 3, "img_size": [8, 8], "patch_size": [4, 4],
                                       "num_classes": 2, "num_language_layers": 1,
                                       "num_vision_layers": 1, "num_mixed_layers": 1}),
    ("monai.networks.blocks:TextEncoder", {"out_channels": 2, "encoding": "clip_embedding"}),
    ("monai.networks.nets:UNet", {"spatial_dims": 3, "in_channels": 1, "out_channels": 2,
                                  "channels": [4, 10**8], "strides": [2]}),
    ("monai.networks.nets:UNet", {"spatial_dims": 3, "in_channels": 1, "out_channels": 2,
                                  "channels": [4, 8], "strides": [2], "act": "os.system"}),
    ("skte.demo:small_unet", {"widths": [10**6, 10**6]}),
)  # fmt: skip
#: What goes on working: name, arguments, packages trusted.
SOUND: Sequence[tuple[str, dict[str, Any], Sequence[str]]] = (
    ("skte.demo:small_unet", {"widths": [2, 4]}, ()),
    ("skte.demo:SmallUNet", {"in_channels": 1, "n_classes": 2, "widths": [2, 4]}, ()),
    ("torch.nn:Conv3d", {"in_channels": 1, "out_channels": 2, "kernel_size": 1}, ()),
    ("monai.networks.nets:UNet", {"spatial_dims": 3, "in_channels": 1, "out_channels": 2,
                                  "channels": [2, 4], "strides": [2]}, ()),
    ("monai.networks.nets.basic_unet:BasicUNet", {"features": [2, 2, 4, 4, 8, 2]}, ()),
    ("monai.networks.nets:resnet10", {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2},
     ("monai.networks.nets",)),
    ("own_of_attack:build", {}, ("own_of_attack",)),
    ("own_of_attack:Net.small", {}, ("own_of_attack",)),
    ("own_of_attack:wide", {"kernel_size": 1}, ("own_of_attack",)),
    ("own_of_attack:nn.Identity", {}, ("own_of_attack",)),
)  # fmt: skip
# Through a trusted package: what it merely imports is not trusted with it.
THROUGH_TRUSTED = tuple(
    f"own_of_attack:{name}"
    for name in ("os.system", "system", "run", "load", "PATH.unlink", "CACHE.append", "LOG.info",
                 "torch.load", "torch.hub.load", "hidden", "build.__globals__.get", "caller",
                 "build.__class__", "Net.load_state_dict", "read_checkpoint")
)  # fmt: skip

_EVIL = "import os\nos.mkdir({marker!r})\ndef build():\n    pass\n"
_OWN = """
import functools, logging, operator, os, pathlib, torch
from os import system
from subprocess import run
from torch import load, nn
from skte.bank._weights import read_checkpoint
PATH, CACHE, LOG = pathlib.Path("evil.bin"), [], logging.getLogger()
hidden = functools.partial(functools.partial(os.system), "mkdir skte-ran")
caller = operator.methodcaller("unlink")
wide = functools.partial(nn.Conv2d, 1, 9)
class Net(nn.Conv2d):
    @classmethod
    def small(cls):
        return cls(1, 2, 1)
def build():
    return Net(1, 3, 1)
"""
# Audit events that nothing named by a manifest may cause.
_NEVER = frozenset(
    {
        "os.exec", "os.fork", "os.forkpty", "os.posix_spawn", "os.startfile", "os.system",
        "pty.spawn", "socket.bind", "socket.connect", "socket.getaddrinfo", "subprocess.Popen",
        "webbrowser.open",
    }
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def run(smoke: bool, seed: int = 0) -> dict[str, Any]:
    """Try all names and arguments, or one in six; nothing here is random."""
    chosen = {attack: tries[:: 6 if smoke else 1] for attack, tries in _tries().items()}
    found = iter(_apart([one for tries in chosen.values() for one in tries]))  # imports are slow
    rows = []
    for attack, tries in chosen.items():
        problems = [problem for problem in itertools.islice(found, len(tries)) if problem]
        held = len(tries) - len(problems)
        rows.append(
            {"attack": attack, "tried": len(tries), "held": held, "problems": problems[:20]}
        )
    return {"door": "factories", "rows": rows}


Try = tuple[str, dict[str, Any], Sequence[str], bool]


def _tries() -> dict[str, list[Try]]:
    evil = {"f": "{file}", "path": "{file}", "command": "mkdir skte-ran"}
    tries: dict[str, list[Try]] = {}
    for attack, names in ATTACKS.items():
        tries[attack] = [(name, given, (), False) for name in names for given in ({}, evil)]
    tries["hostile arguments of allowed classes"] = [(*one, (), False) for one in ARGUMENTS]
    tries["what a trusted package merely imports"] = [
        (name, given, ("own_of_attack",), False) for name in THROUGH_TRUSTED for given in ({}, evil)
    ]
    tries["sound names, which must build"] = [(*one, True) for one in SOUND]
    return tries


def _apart(tries: Sequence[Try]) -> list[str]:
    """Problems of tries, empty ones for those that held, in a process of their own."""
    found: list[str] = []
    while len(found) < len(tries):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.get_context("spawn").Process(
            target=_work, args=(theirs, tries[len(found) :])
        )
        process.start()
        theirs.close()
        try:
            while len(found) < len(tries):
                if not ours.poll(600):
                    raise EOFError
                found.append(ours.recv())
        except EOFError:  # it ended the process, or never ended
            process.kill()
            found.append(f"{tries[len(found)][0]!r:.100} ended or held up the process")
        process.join()
    return found


def _work(connection: Any, tries: Sequence[Try]) -> None:
    with tempfile.TemporaryDirectory(prefix="skte-factories-") as folder:
        place = Path(folder).resolve()
        os.chdir(place)
        os.environ["XDG_CONFIG_HOME"] = str(place / "config")
        os.environ["MPLCONFIGDIR"] = str(place / "config")
        prepare(place)
        for name in ("torch.nn:Conv3d", "monai.networks.nets:UNet"):  # imports of libraries
            try_name(place, name, {}, (), True)
        for one in tries:
            connection.send(try_name(place, *one))


def prepare(place: Path) -> None:
    """Lay out what attacks lead to: modules that act when imported, a crafted pickle."""
    import pickle

    marker = str(place / "skte-ran")
    modules = place / "modules"
    (modules / "evil_on_import").mkdir(parents=True)
    (modules / "evil_on_import" / "__init__.py").write_text(_EVIL.format(marker=marker))
    (modules / "evil_on_import" / "inner.py").write_text("")
    (modules / "own_of_attack.py").write_text(_OWN)
    sys.path.insert(0, str(modules))
    (place / "evil.bin").write_bytes(pickle.dumps(_Payload(marker)))


class _Payload:
    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self.marker,)


_seen: list[str] = []
_watching = False


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if not _watching:
        return
    if event == "open" and isinstance(args[2], int) and args[2] & _WRITING:
        path = os.path.realpath(os.fsdecode(args[0])) if isinstance(args[0], (str, bytes)) else ""
        if path and path != os.devnull and "__pycache__" not in path:
            _seen.append(f"writing {path:.200}")
    elif event in _NEVER:
        _seen.append(f"{event} {args!r:.200}")
    elif event == "import" and str(args[0]).partition(".")[0] in ("evil_on_import", "antigravity"):
        _seen.append(f"import {args[0]}")


def try_name(
    place: Path, name: str, arguments: dict[str, Any], trusted: Sequence[str], sound: bool
) -> str:
    """Try a factory through a manifest; returns what is wrong, empty if nothing is."""
    global _watching
    from skte import ModelBank
    from skte.exceptions import BankError

    if not getattr(try_name, "hooked", False):
        sys.addaudithook(_hook)
        try_name.hooked = True  # type: ignore[attr-defined]
    values = {
        key: value.format(file=place / "evil.bin") if isinstance(value, str) else value
        for key, value in arguments.items()
    }
    path = place / "bank.json"
    path.write_text(
        json.dumps(
            {
                "defaults": {"weights": "none"},
                "models": [{"name": "a", "factory": name, "arguments": values}],
            }
        )
    )
    before = sorted(place.rglob("*"))
    _seen.clear()
    _watching, outcome = True, "it was built"
    try:
        ModelBank.from_manifest(path, trusted_packages=trusted)["a"].load()
    except BankError:
        outcome = "refused"
    except BaseException as error:  # SystemExit and KeyboardInterrupt are failures, too
        outcome = f"{type(error).__name__}: {error!s:.200}"
    finally:
        _watching = False
    left = [p.name for p in sorted(place.rglob("*")) if p not in before and "pycache" not in str(p)]
    if left or _seen:
        return f"{name!r:.100} left {left}, caused {_seen[:3]}"
    wanted = "it was built" if sound else "refused"
    return "" if outcome == wanted else f"{name!r:.100}: {outcome}"
