"""Files of a cache with something random in them."""

import warnings

import numpy as np

from skte.exceptions import SkteError
from skte.extraction import FeatureCache, make_key
from skte.features import CaseFeatures, LayerSample, pack_case
from tests.reliability.mutate import bytes_mutated, pick
from tests.reliability.outcome import require


def prepare_cache(folder):
    rng = np.random.default_rng(0)
    sample = LayerSample(rng.normal(size=(9, 3)), rng.integers(0, 2, 9), rng.normal(size=(4, 3)))
    cache, key = FeatureCache(folder / "cache"), make_key(a=1)
    cache.store(key, CaseFeatures("case", {"up": sample}, None, {"n": [1, 2.5, "x"]}))
    cache.store_record(key, {"layers": [["up", [1.0, 2.0], 4]], "n_axes": 3})
    kept = {path: path.read_bytes() for path in cache.root.rglob("*") if path.is_file()}
    return cache, key, kept, pack_case(cache.load(key)), cache.load_record(key)


def attempt_cache(rng, folder, sound):
    cache, key, kept, case, record = sound
    for path, data in kept.items():
        path.write_bytes(data)
    path = pick(rng, list(kept))
    path.write_bytes(bytes_mutated(rng, kept[path]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            cache = FeatureCache(cache.root)
        except SkteError:
            return "named error"
        found, facts = cache.load(key), cache.load_record(key)
    require(found is None or pack_case(found) == case, "other features than were stored")
    require(facts is None or facts == record, "another record than was stored")
    if found is None or facts is None:
        require(len(caught) == 1, "a miss without a warning")
        return "named error"
    return "result"
