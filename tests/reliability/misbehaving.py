"""Networks that change the process they run in: each must cost itself and no other model.

``IN_PROCESS`` can be survived by the process itself, ``APART`` by another one only.
"""

import atexit
import builtins
import ctypes
import decimal
import faulthandler
import gc
import locale
import logging
import os
import random
import resource
import signal
import socket
import sys
import threading
import time
import warnings

import numpy as np
import sklearn
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules import module as hooks

import skte.datasets
import skte.estimators
from tests.reliability.models import Faulty

_kept = []  # what attacks must keep alive


def _raiser(kind, *arguments):
    def attack(x):
        raise kind(*arguments)

    return attack


def _twice(*arguments, **named):
    raise RuntimeError("a function that was put in the place of another")


def _setter(owner, name, value=_twice):
    return lambda x: setattr(owner, name, value)


def _enter(make):
    def attack(x):
        context = make()
        context.__enter__()
        _kept.append(context)

    return attack


def _leave_warnings(x):
    warnings.simplefilter("error")
    warnings.showwarning = _twice


def _silence_logging(x):
    logging.disable(logging.CRITICAL)
    logging.getLogger("skte").disabled = True
    logging.root.handlers[:] = []


def _alarm(x):
    signal.signal(signal.SIGALRM, lambda *_: _twice())
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])


def _handlers(x):
    for one in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1):
        signal.signal(one, signal.SIG_IGN)


def _environment(x):
    os.environ.clear()
    os.environ["TZ"] = "Pacific/Auckland"
    time.tzset()


def _paths(x):
    sys.path[:] = ["/nowhere"]
    sys.meta_path = []
    sys.argv[:] = ["other"]
    del sys.modules["skte.datasets"]
    sys.modules["json"] = None


def _in_place(x):
    x.fill_(7.0)
    x.resize_(0)


def _streams(x):
    sys.stdout.close()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    os.close(1)


def _recursion(x):
    sys.setrecursionlimit(10_000)
    _recursion(x)


def _seed(x):
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(5)


def _profile(x):
    sys.setprofile(lambda *_: None)
    sys.settrace(lambda *_: None)
    threading.excepthook = sys.excepthook = _twice


def _hook(register):
    def attack(x):
        _kept.append(register(lambda *_: _twice()))

    return attack


def _limits(x):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (8, hard))
    os.umask(0o777)


def _backends(x):
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.enabled = False
    torch.backends.mkldnn.enabled = False
    torch.set_num_threads(3)


def _fork(x):
    if os.fork() == 0:
        raise RuntimeError("the child goes on")


def _stop_threads(x):
    threading.Thread(target=time.sleep, args=(0.01,), daemon=True).start()


def _spoil_cases(x):
    for one in gc.get_objects():
        if isinstance(one, torch.Tensor) and one.shape[-3:] == x.shape[-3:] and one is not x:
            _kept.append(one.shape)


IN_PROCESS = {
    "float64 by default": lambda x: torch.set_default_dtype(torch.float64),
    "tensors of float64 by default": lambda x: torch.set_default_tensor_type("torch.DoubleTensor"),
    "meta device by default": lambda x: torch.set_default_device("meta"),
    "device entered": _enter(lambda: torch.device("meta")),
    "other folder": lambda x: os.chdir("/"),
    "environment cleared": _environment,
    "gradients on": lambda x: torch.set_grad_enabled(True),
    "inference mode entered": _enter(lambda: torch.inference_mode(False)),
    "autocast entered": _enter(lambda: torch.autocast("cpu", torch.bfloat16)),
    "anomalies detected": lambda x: torch.autograd.set_detect_anomaly(True),
    "deterministic, other threads": _backends,
    "denormals flushed": lambda x: torch.set_flush_denormal(True),
    "generators seeded": _seed,
    "warnings are errors": _leave_warnings,
    "logging disabled": _silence_logging,
    "numpy raises": lambda x: np.seterr(all="raise"),
    "scikit-learn configured": lambda x: sklearn.set_config(assume_finite=True),
    "locale": lambda x: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    "alarm": _alarm,
    "signals ignored": _handlers,
    "paths and modules": _paths,
    "streams closed": _streams,
    "recursion": _recursion,
    "hooks of Python": _profile,
    "collector off": lambda x: (gc.disable(), gc.set_threshold(1, 1, 1)),
    "limits lowered": _limits,
    "socket timeout": lambda x: socket.setdefaulttimeout(1e-9),
    "decimal context": lambda x: decimal.getcontext().__setattr__("prec", 1),
    "input changed in place": _in_place,
    "exit handler": lambda x: atexit.register(lambda: None),
    "short thread": _stop_threads,
    "tensors of others looked at": _spoil_cases,
    "forward hook of all modules": _hook(hooks.register_module_forward_hook),
    "forward pre-hook of all modules": _hook(hooks.register_module_forward_pre_hook),
    "convolution replaced": _setter(functional, "conv3d"),
    "method of convolutions replaced": _setter(nn.Conv3d, "forward"),
    "method of convolutions added": _setter(nn.Conv3d, "__call__"),
    "torch.stack replaced": _setter(torch, "stack"),
    "numpy.mean replaced": _setter(np, "mean"),
    "open replaced": _setter(builtins, "open"),
    "reading of cases replaced": _setter(skte.datasets, "read_case"),
    "estimator replaced": _setter(skte.estimators.CCFV, "fit"),
    "safe types added": lambda x: torch.serialization.add_safe_globals([os.system]),
    "KeyboardInterrupt": _raiser(KeyboardInterrupt),
    "SystemExit": _raiser(SystemExit, 0),
    "GeneratorExit": _raiser(GeneratorExit),
    "BaseException": _raiser(BaseException, "odd"),
    "StopIteration": _raiser(StopIteration),
    "fork": _fork,
}


def _meddling_thread(x):
    def meddle():
        while True:
            torch.set_default_dtype(torch.float64)
            time.sleep(0)

    threading.Thread(target=meddle, daemon=True).start()


def _die_later(x):
    threading.Timer(0.2, os._exit, (3,)).start()


APART = {
    "os._exit": lambda x: os._exit(7),
    "abort": lambda x: os.abort(),
    "segmentation fault": lambda x: ctypes.string_at(0),
    "SIGKILL": lambda x: os.kill(os.getpid(), signal.SIGKILL),
    "SIGINT to itself": lambda x: os.kill(os.getpid(), signal.SIGINT),
    "thread that meddles": _meddling_thread,
    "thread that ends the process": _die_later,
    "traceback later": lambda x: faulthandler.dump_traceback_later(0.5, exit=True),
}


class Misbehaving(Faulty):
    """Does one of these things, in its first forward pass or when it is built."""

    def __init__(self, attack, when="forward", seed=0):
        super().__init__(seed=seed)
        self.attack = {**IN_PROCESS, **APART}[attack]
        self.is_done = False
        if when == "init":
            self.fail(torch.zeros(1, 1, 8, 8, 8))

    def fail(self, x):
        if not self.is_done:
            self.is_done = True
            self.attack(x)
