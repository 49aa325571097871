"""Which models exist, how each is built, and where its features are read."""

from skte.bank._bank import BankLike, ModelBank, load_bank
from skte.bank._digest import digest_problem, entry_digest
from skte.bank._entry import BankEntry
from skte.bank._hub import Collection, catalogue, download_snapshot
from skte.bank._layers import describe_layers as describe_layers
from skte.bank._layers import examine_layers as examine_layers
from skte.bank._layers import find_layers
from skte.bank._layers import model_in_channels as model_in_channels
from skte.bank._layers import model_spatial_dims as model_spatial_dims
from skte.bank._manifest import keep_trust as keep_trust
from skte.bank._probe import LayerInfo
from skte.bank._probe import as_map as as_map
from skte.bank._readers import Reader, ReadOptions, all_readers
from skte.bank._trace import main_output as main_output
from skte.bank._weights import weight_file as weight_file

__all__ = [
    "BankEntry",
    "BankLike",
    "Collection",
    "LayerInfo",
    "ModelBank",
    "ReadOptions",
    "Reader",
    "all_readers",
    "catalogue",
    "digest_problem",
    "download_snapshot",
    "entry_digest",
    "find_layers",
    "load_bank",
]
