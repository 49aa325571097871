"""Every sampled feature belongs to its voxel and its label, whatever the windows."""

import itertools
import pickle

import numpy as np
import pytest
import torch
import torchio as tio
from sklearn.base import clone
from torch import nn
from torch.nn import functional

from skte import LEEP, BankEntry, FeatureSet, LogME, SegmentationFeatureExtractor
from skte.exceptions import BankError, DatasetError, ExtractionError, SkteWarning


class Coordinates(nn.Module):
    """A network whose layers are the voxel coordinates of its input."""

    def __init__(self, n_axes=3, n_classes=3):
        super().__init__()
        self.n_axes = n_axes
        self.pooled = (nn.AvgPool2d if n_axes == 2 else nn.AvgPool3d)(2, ceil_mode=True)
        self.full = nn.Identity()
        conv = nn.Conv2d if n_axes == 2 else nn.Conv3d
        self.head = conv(3, n_classes, 1)

    def forward(self, x):
        self.pooled(x)
        return self.head(self.full(x))


def coordinate_cases(shapes, labels=(0, 2, 7), affine=None, seed=0):
    """Cases whose three channels are 1 + the index of each voxel along x, y, z."""
    rng = np.random.default_rng(seed)
    affine = np.eye(4) if affine is None else affine
    cases = []
    for i, shape in enumerate(shapes):
        grid = 1.0 + np.indices(shape, dtype=np.float32)
        label = rng.choice(labels, size=(1, *shape)).astype(np.int32)
        label.flat[: len(labels)] = labels
        cases.append(
            tio.Subject(
                image=tio.ScalarImage(tensor=torch.from_numpy(grid), affine=affine),
                label=tio.LabelMap(tensor=torch.from_numpy(label), affine=affine),
                case_id=f"case{i}",
            )
        )
    return cases


def make_entry(n_axes=3, **kwargs):
    torch.manual_seed(0)
    return BankEntry.from_module("coordinates", Coordinates(n_axes), **kwargs)


def assert_features_belong_to_labels(cases, features, layer="full"):
    for case, one in zip(cases, features, strict=True):
        sample = one.layers[layer]
        at = np.rint(sample.X).astype(int) - 1
        np.testing.assert_allclose(sample.X, at + 1, atol=1e-4)
        label = case["label"].data[0].numpy()
        np.testing.assert_array_equal(label[tuple(at.T)], sample.y)
        assert len(np.unique(at, axis=0)) == len(at)
        whole = np.rint(sample.X_case).astype(int) - 1
        np.testing.assert_allclose(sample.X_case, whole + 1, atol=1e-4)
        assert (whole >= 0).all()
        assert (whole < label.shape).all()
        assert len(np.unique(whole, axis=0)) == len(whole)


ODD = [(13, 9, 17), (7, 21, 8), (16, 16, 16)]


@pytest.mark.slow
@pytest.mark.parametrize("window", [(8, 8, 8), (5, 7, 3), (16, 4, 9), (32, 32, 32), 6])
@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.8])
def test_positions_3d(window, overlap):
    cases = coordinate_cases(ODD)
    extractor = SegmentationFeatureExtractor(
        make_entry(), layers=("full",), window_size=window, overlap=overlap, batch_size=3
    )
    assert_features_belong_to_labels(cases, extractor.fit_transform(cases))


@pytest.mark.parametrize("shape", [(13, 22, 1), (13, 22, 5), (6, 5, 3)])
@pytest.mark.parametrize("window", [(8, 8), (5, 11), (8, 8, 1), (40, 30)])
def test_positions_2d_networks_go_slice_by_slice(shape, window):
    cases = coordinate_cases([shape])
    extractor = SegmentationFeatureExtractor(
        make_entry(2), layers=("full",), window_size=window, batch_size=4
    )
    features = extractor.fit_transform(cases)
    assert extractor.n_axes_ == 2
    assert_features_belong_to_labels(cases, features)


def test_positions_with_the_default_window():
    cases = coordinate_cases([(40, 20, 10), (9, 100, 12)])
    features = SegmentationFeatureExtractor(make_entry(), layers=("full",)).fit_transform(cases)
    assert_features_belong_to_labels(cases, features)


def test_positions_survive_anisotropy_and_orientation():
    affine = np.diag([-0.7, 1.3, 5.0, 1.0])
    affine[:3, 3] = [10, -20, 3]
    cases = coordinate_cases(ODD, affine=affine)
    extractor = SegmentationFeatureExtractor(make_entry(), layers=("full",), window_size=8)
    assert_features_belong_to_labels(cases, extractor.fit_transform(cases))


@pytest.mark.slow
@pytest.mark.parametrize(
    "preprocessing",
    [
        [tio.ToCanonical()],
        [tio.Pad((1, 2, 3, 4, 5, 6))],
        [tio.ToCanonical(), tio.CropOrPad((32, 32, 32))],
        [tio.Resample(0.5, image_interpolation="linear")],
    ],
)
def test_positions_survive_preprocessing_that_moves_voxels(preprocessing):
    """Points travel through affines; labels are never resampled."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    cases = coordinate_cases(ODD, affine=affine)
    extractor = SegmentationFeatureExtractor(
        make_entry(preprocessing=tuple(preprocessing)), layers=("full",), window_size=(8, 10, 12)
    )
    features = extractor.fit_transform(cases)
    if not any(isinstance(t, tio.Resample) for t in preprocessing):
        assert_features_belong_to_labels(cases, features)
        return
    for case, one in zip(cases, features, strict=True):
        sample = one.layers["full"]
        at = np.rint(sample.X).astype(int) - 1
        # at volume borders a resampled ramp flattens by up to half a voxel
        inner = ((at > 0) & (at < np.array(case["label"].spatial_shape) - 1)).all(axis=1)
        np.testing.assert_allclose(sample.X[inner], at[inner] + 1, atol=1e-3)
        label = case["label"].data[0].numpy()
        np.testing.assert_array_equal(label[tuple(at[inner].T)], sample.y[inner])
        assert inner.sum() > 20


def brute_force(network, layer, image, voxels, window, overlap):
    """Every window in full, upsampled in full; a voxel takes its deepest window."""
    shape = image.shape[1:]
    pad = [
        (max(0, w - n) // 2, max(0, w - n) - max(0, w - n) // 2)
        for n, w in zip(shape, window, strict=True)
    ]
    padded = functional.pad(image, [e for pair in reversed(pad) for e in pair])
    axes = []
    for n, w in zip(padded.shape[1:], window, strict=True):
        count = int(np.ceil((n - w) / max(1, w * (1 - overlap)))) + 1
        axes.append(np.round(np.linspace(0, n - w, count)).astype(int))
    best = np.full(len(voxels), -1)
    result = None
    at = voxels + np.array([p[0] for p in pad])
    for start in itertools.product(*axes):
        crop = padded[(slice(None), *(slice(a, a + w) for a, w in zip(start, window, strict=True)))]
        caught = []
        handle = layer.register_forward_hook(lambda m, a, out, caught=caught: caught.append(out))
        with torch.no_grad():
            network(crop[None])
        handle.remove()
        full = functional.interpolate(
            caught[0], size=tuple(window), mode="trilinear", align_corners=False
        )[0]
        if result is None:
            result = np.empty((len(voxels), full.shape[0]))
        local = at - np.array(start)
        edge = np.array(window) - 1
        inside = ((local >= 0) & (local <= edge)).all(axis=1)
        depth = np.where(inside, np.minimum(local, edge - local).sum(axis=1), -1)
        better = depth > best
        best[better] = depth[better]
        result[better] = full[:, *local[better].T].T.numpy()
    return result


@pytest.mark.parametrize(("window", "overlap"), [((8, 8, 8), 0.5), ((6, 10, 9), 0.25)])
def test_strided_layers_equal_full_upsampling(window, overlap):
    torch.manual_seed(3)
    network = nn.Sequential(
        nn.Conv3d(3, 6, 3, stride=2, padding=1), nn.ReLU(), nn.Conv3d(6, 5, 3, stride=2, padding=1)
    ).eval()
    cases = coordinate_cases([(13, 9, 17), (6, 20, 8)])
    entry = BankEntry.from_module("strided", network)
    features = SegmentationFeatureExtractor(
        entry, layers=("0", "2"), window_size=window, overlap=overlap
    ).fit_transform(cases)
    reader = SegmentationFeatureExtractor(
        make_entry(), layers=("full",), window_size=window, overlap=overlap
    ).fit_transform(cases)
    for case, one, where in zip(cases, features, reader, strict=True):
        for name, module in (("0", network[0]), ("2", network[2])):
            for field in ("X", "X_case"):
                values = getattr(one.layers[name], field)
                voxels = np.rint(getattr(where.layers["full"], field)).astype(int) - 1
                expected = brute_force(network, module, case["image"].data, voxels, window, overlap)
                if field == "X" and len(values) < len(expected):
                    continue  # a prefix of each class; covered by the sampler's tests
                np.testing.assert_allclose(
                    values, expected[: len(values)], atol=1e-5 * np.abs(expected).max()
                )


class Changing(Coordinates):
    """What its layers return is changed in place afterwards, as many networks do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.act = nn.ReLU()
        self.alias = self.conv
        self.head = nn.Conv3d(4, 3, 1)
        self.in_place = False

    def forward(self, x):
        y = self.alias(self.full(x))
        if self.in_place:
            x.mul_(0)
            return self.head(self.act(y).add_(1))
        return self.head(self.act(y) + 1)


@pytest.mark.parametrize("layer", ["full", "conv", "act", "alias"])
def test_features_are_the_layers_output_whatever_happens_to_it_later(layer):
    cases = coordinate_cases(ODD)
    torch.manual_seed(0)
    network = Changing()
    extractor = SegmentationFeatureExtractor(
        BankEntry.from_module("changing", network), layers=(layer,), window_size=8, batch_size=2
    )
    reference = extractor.fit_transform(cases)
    network.in_place, network.act = True, nn.ReLU(inplace=True)
    assert_same(reference, extractor.fit_transform(cases))


def test_the_last_call_of_a_layer_counts():
    class Twice(Coordinates):
        def forward(self, x):
            self.full(x.mean(dim=(2, 3, 4)))  # of a shape that could not be read
            return super().forward(x)

    cases = coordinate_cases(ODD)
    entry = BankEntry.from_module("twice", Twice())
    extractor = SegmentationFeatureExtractor(entry, layers=("full",), window_size=8)
    assert_features_belong_to_labels(cases, extractor.fit_transform(cases))


def test_posterior_is_the_heads_softmax_at_the_class_sample():
    cases = coordinate_cases(ODD)
    entry = make_entry()
    features = SegmentationFeatureExtractor(entry, layers=("full",), window_size=8).fit_transform(
        cases
    )
    head = entry.load().head
    for one in features:
        X = torch.from_numpy(one.layers["full"].X)
        with torch.no_grad():
            expected = torch.softmax(head(X.T[None, :, :, None, None])[0, :, :, 0, 0].T, dim=1)
        np.testing.assert_allclose(one.posterior.X, expected.numpy(), atol=1e-4)
        np.testing.assert_array_equal(one.posterior.y, one.layers["full"].y)


def test_no_posterior_without_a_source_head():
    cases = coordinate_cases(ODD)
    entry = make_entry(source_head=False)
    features = SegmentationFeatureExtractor(entry, layers=("full",), window_size=8).fit_transform(
        cases
    )
    assert not features.has_posterior


def assert_same(a, b, atol=0.0):
    assert a.case_ids == b.case_ids
    for block, other in zip(a.blocks(), b.blocks(), strict=True):
        for field in ("X", "y", "groups", "X_case", "groups_case"):
            np.testing.assert_allclose(getattr(block, field), getattr(other, field), atol=atol)


@pytest.fixture
def strided_entry():
    torch.manual_seed(1)
    network = nn.Sequential(
        nn.Conv3d(3, 8, 3, stride=2, padding=1), nn.InstanceNorm3d(8), nn.Conv3d(8, 4, 1)
    )
    return BankEntry.from_module("strided", network)


@pytest.mark.slow
def test_result_does_not_depend_on_batch_size_or_case_order(strided_entry):
    cases = coordinate_cases(ODD)
    base = SegmentationFeatureExtractor(strided_entry, layers=("1",), window_size=8)
    reference = base.fit_transform(cases)
    for size in (2, 5, 64):
        other = clone(base).set_params(batch_size=size).fit_transform(cases)
        assert_same(reference, other, atol=1e-5)
    order = [2, 0, 1]
    shuffled = base.transform([cases[i] for i in order])
    assert_same(reference[order], shuffled)


def test_transform_of_a_part_is_a_part_of_the_transform(strided_entry):
    cases = coordinate_cases(ODD)
    extractor = SegmentationFeatureExtractor(strided_entry, layers=("1",), window_size=8)
    features = extractor.fit(cases).transform(cases)
    assert isinstance(features, FeatureSet)
    assert len(features) == len(cases)
    assert_same(features[[2, 1]], extractor.transform([cases[2], cases[1]]))


def test_model_is_left_untouched(strided_entry):
    network = strided_entry.load()
    network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    SegmentationFeatureExtractor(strided_entry, layers=("1",), window_size=8).fit_transform(
        coordinate_cases(ODD)
    )
    assert network.training
    assert all(not m._forward_hooks for m in network.modules())
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, before[key])


def test_coarse_layers_keep_fewer_voxels_of_the_same_sample():
    cases = coordinate_cases([(24, 24, 24)])
    features = SegmentationFeatureExtractor(
        make_entry(), layers=("pooled", "full"), window_size=24, n_case_samples=400
    ).fit_transform(cases)
    half, full = features[0].layers["pooled"], features[0].layers["full"]
    assert (len(half.X), len(half.X_case)) == (750, 200)
    assert (len(full.X), len(full.X_case)) == (1500, 400)
    # trilinear interpolation of a ramp is exact inside, half a voxel off at borders
    np.testing.assert_allclose(half.X_case, full.X_case[:200], atol=0.51)


def test_info_counts_windows():
    cases = coordinate_cases([(16, 16, 16)])
    extractor = SegmentationFeatureExtractor(
        make_entry(),
        layers=("full",),
        window_size=8,
        overlap=0.5,
        n_class_samples=1,
        n_case_samples=1,
    )
    info = extractor.fit_transform(cases)[0].info
    assert 1 <= info["n_windows"] <= 4
    assert info["n_windows"] <= info["n_windows_planned"] <= 27
    assert info["seconds_forward"] > 0


def test_fitted_extractor_pickles_and_clones(strided_entry):
    cases = coordinate_cases(ODD)
    extractor = SegmentationFeatureExtractor(strided_entry, layers=("1",), window_size=8)
    reference = extractor.fit_transform(cases)
    again = pickle.loads(pickle.dumps(extractor))
    assert_same(reference, again.transform(cases))
    assert clone(extractor).entry is strided_entry


def test_caller_subjects_stay_lazy(tmp_path, strided_entry):
    paths = []
    for case in coordinate_cases(ODD):
        case["image"].save(tmp_path / f"{case['case_id']}_image.nii.gz")
        case["label"].save(tmp_path / f"{case['case_id']}_label.nii.gz")
        paths.append(
            tio.Subject(
                image=tio.ScalarImage(tmp_path / f"{case['case_id']}_image.nii.gz"),
                label=tio.LabelMap(tmp_path / f"{case['case_id']}_label.nii.gz"),
                case_id=case["case_id"],
            )
        )
    SegmentationFeatureExtractor(strided_entry, layers=("1",), window_size=8).fit_transform(paths)
    assert not any(p["image"]._loaded or p["label"]._loaded for p in paths)


class TestBadInput:
    cases = coordinate_cases([(8, 8, 8)])

    def extractor(self, network, layers="auto", **kwargs):
        entry = network if isinstance(network, BankEntry) else BankEntry.from_module("m", network)
        return SegmentationFeatureExtractor(entry, layers=layers, window_size=8, **kwargs)

    def test_entry_must_be_a_recipe(self):
        with pytest.raises(TypeError, match="from_module"):
            SegmentationFeatureExtractor(nn.Conv3d(1, 1, 1)).fit(self.cases)
        with pytest.raises(ValueError, match="'entry' parameter"):
            SegmentationFeatureExtractor().fit(self.cases)

    @pytest.mark.parametrize(
        "params",
        [
            {"overlap": 1.0},
            {"overlap": -0.1},
            {"n_class_samples": 0},
            {"batch_size": 0},
            {"window_size": -3},
            {"random_state": "a"},
            {"layers": "every"},
        ],
    )
    def test_parameters_are_named(self, params):
        extractor = SegmentationFeatureExtractor(make_entry()).set_params(**params)
        with pytest.raises(ValueError, match=f"'{next(iter(params))}' parameter"):
            extractor.fit(self.cases)

    def test_window_of_the_wrong_dimension(self):
        with pytest.raises(ValueError, match=r"window_size=\(8, 8\).*3-D"):
            SegmentationFeatureExtractor(make_entry(), window_size=(8, 8)).fit(self.cases)

    @pytest.mark.parametrize(
        "size", [(8.7, 8, 8), ("a", 8, 8), [[8, 8, 8]], [], np.array([8.0, 8, 8]), (8, 8, -1)]
    )
    def test_window_of_odd_edges(self, size):
        extractor = SegmentationFeatureExtractor(make_entry(), window_size=size)
        match = "Entry 'coordinates': window_size=.* must be a positive integer or 3 of them"
        with pytest.raises(ExtractionError, match=match):
            extractor.fit(self.cases)

    def test_window_that_no_memory_holds(self):
        extractor = SegmentationFeatureExtractor(make_entry(), window_size=10**9)
        match = r"Entry 'coordinates': window_size=1000000000 .*1e\+27 voxels"
        with pytest.raises(ExtractionError, match=match):
            extractor.fit(self.cases)

    @pytest.mark.parametrize("device", ["foo", "meta", "cpu:x", torch.device("meta")])
    def test_device_that_is_none(self, device):
        extractor = SegmentationFeatureExtractor(make_entry(), device=device)
        with pytest.raises(
            ExtractionError, match=f"device='{device}' cannot be used here: .*'cpu'"
        ):
            extractor.fit(self.cases)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_no_gpu(self):
        extractor = SegmentationFeatureExtractor(make_entry(), device="cuda")
        with pytest.raises(ExtractionError, match="device='cuda' cannot be used here"):
            extractor.fit(self.cases)

    @pytest.mark.parametrize("layers", ["auto", ("full",)])
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
    def test_network_of_another_precision(self, layers, dtype):
        extractor = self.extractor(Coordinates().to(dtype), layers=layers)
        with pytest.raises(BankError, match=rf"'m': .*{dtype}, but .* give network\.float\(\)"):
            extractor.fit(self.cases)

    def test_model_that_exits(self):
        network = Coordinates()

        def leave(module, args):
            if args[0].any():
                raise SystemExit(0)

        network.register_forward_pre_hook(leave)
        with pytest.raises(ExtractionError, match=r"'m', case 'case0'.*SystemExit"):
            self.extractor(network, layers=("full",)).fit_transform(self.cases)

    def test_wrong_number_of_channels(self):
        with pytest.raises(ExtractionError, match=r"'m' takes 4 channels.*'case0' has 3"):
            self.extractor(nn.Conv3d(4, 2, 1), layers=("",)).fit(self.cases)

    def test_unknown_layer_names_near_matches(self):
        with pytest.raises(BankError, match=r"'coordinates'.*ful.*full"):
            self.extractor(make_entry(), layers=("ful",)).fit(self.cases)

    def test_layer_that_returns_a_tuple(self):
        class Pair(nn.Module):
            def forward(self, x):
                return x, x

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.pair = Pair()

            def forward(self, x):
                return self.pair(x)[0]

        with pytest.raises(BankError, match=r"pair.*tuple"):
            self.extractor(Net(), layers=("pair",)).fit(self.cases)

    def test_layer_that_never_runs(self):
        network = Coordinates()
        network.unused = nn.Conv3d(3, 3, 1)
        with pytest.raises(BankError, match="unused"):
            self.extractor(network, layers=("unused",)).fit(self.cases)

    def test_layer_that_stops_running(self):
        class Moody(Coordinates):
            def forward(self, x):
                return self.full(x) if x.abs().sum() == 0 else x

        with pytest.raises(ExtractionError, match=r"'m', case 'case0': layer 'full' did not run"):
            self.extractor(Moody(), layers=("full",)).fit_transform(self.cases)

    @pytest.mark.parametrize(
        ("forward", "match"),
        [
            (lambda x: x.mean(0, keepdim=True), r"layer 'full'.*for a batch of 3 windows"),
            (lambda x: x[:, :, 0], r"layer 'full'.*not a feature map of 3 spatial axes"),
            (lambda x: (x, x), r"layer 'full' returns a tuple"),
            (
                lambda x: x if x[0, 0, 0, 0, 0] == 1 else x[:, :2],
                r"layer 'full' has 2 channels in one window and 3 in another",
            ),
        ],
    )
    def test_layer_whose_output_changes_its_form(self, forward, match):
        network = Coordinates()
        network.full.forward = lambda x: forward(x) if x.any() else x
        network.head.forward = lambda x: torch.zeros(3)
        extractor = self.extractor(network, layers=("full",), batch_size=3)
        extractor.set_params(overlap=0.0)
        with pytest.raises(ExtractionError, match=f"'m', case 'case0': {match}"):
            extractor.fit_transform(coordinate_cases([(40, 8, 8)]))  # two batches

    def test_a_head_that_merges_the_batch_is_no_head(self):
        network = Coordinates()
        head = network.head.forward
        network.head.forward = lambda x: head(x).mean(0, keepdim=True)
        extractor = self.extractor(network, layers=("full",), batch_size=2, overlap=0.0)
        features = extractor.fit_transform(coordinate_cases([(24, 8, 8)]))
        assert not features.has_posterior

    def test_model_that_raises_on_a_case(self):
        class Angry(Coordinates):
            def forward(self, x):
                if x.abs().sum() > 0:
                    raise RuntimeError("no thanks")
                return self.full(x)

        network = Angry()
        with pytest.raises(ExtractionError, match=r"'m', case 'case0'.*RuntimeError: no thanks"):
            self.extractor(network, layers=("full",)).fit_transform(self.cases)
        assert all(not m._forward_hooks for m in network.modules())

    def test_model_that_gives_nan(self):
        class Broken(Coordinates):
            def forward(self, x):
                return self.full(x / 0 - x / 0)

        with pytest.raises(ExtractionError, match=r"'m'.*'case0', layer 'full'.*NaN"):
            self.extractor(Broken(), layers=("full",)).fit_transform(self.cases)

    def test_nan_in_an_image_names_the_case(self):
        cases = coordinate_cases([(8, 8, 8)])
        cases[0]["image"].data[0, 0, 0, 0] = float("nan")
        with pytest.raises(DatasetError, match="case0"):
            self.extractor(make_entry(), layers=("full",)).fit_transform(cases)

    def test_empty_dataset(self):
        with pytest.raises(DatasetError):
            self.extractor(make_entry()).fit([])

    def test_preprocessing_that_fails_names_entry_and_case(self):
        entry = make_entry(preprocessing=(tio.Crop(100),))
        with pytest.raises(ExtractionError, match=r"entry 'coordinates', case 'case0'"):
            self.extractor(entry, layers=("full",)).fit(self.cases)

    def test_preprocessing_that_cuts_a_few_voxels_away_warns(self):
        cases = coordinate_cases([(24, 8, 8)])
        entry = make_entry(preprocessing=(tio.Crop((0, 1, 0, 0, 0, 0)),))
        with pytest.warns(SkteWarning, match=r"cuts away \d% .*'coordinates', case 'case0'"):
            self.extractor(entry, layers=("full",)).fit_transform(cases)

    @pytest.mark.parametrize("kept", [4, 1])
    def test_preprocessing_that_cuts_many_voxels_away_is_refused(self, kept):
        entry = make_entry(preprocessing=(tio.Crop((0, 8 - kept, 0, 0, 0, 0)),))
        extractor = self.extractor(entry, layers=("full",)).fit(self.cases)
        message = r"cuts away \d\d% .*\(entry 'coordinates', case 'case0'\).*Crop less"
        with pytest.raises(ExtractionError, match=message):
            extractor.transform(self.cases)


class TestUnusableHead:
    """It costs the scores that look at the head, with the reason, and no others."""

    cases = coordinate_cases([(8, 8, 8), (8, 9, 8)])

    @pytest.mark.parametrize(
        ("change", "activation", "reason"),
        [
            (lambda x: x * torch.nan, "softmax", "contains NaN or Inf; check the weights"),
            (lambda x: x, None, r"activation=None.*set activation='softmax'"),
            (torch.sigmoid, None, r"activation=None.*sums from .*activation='softmax'"),
        ],
    )
    def test_reason_is_told(self, change, activation, reason):
        network = Coordinates()
        network.head = nn.Sequential(network.head, nn.Tanh())
        network.head.register_forward_hook(lambda module, args, output: change(output))
        entry = BankEntry.from_module("m", network, layers=("full",), activation=activation)
        extractor = SegmentationFeatureExtractor(entry, window_size=8)
        features = extractor.fit_transform(self.cases)
        assert np.isfinite(LogME().fit(features).score_)
        with pytest.raises(ValueError, match=f"(?s)model 'm' .*case 'case0', .*{reason}"):
            LEEP().fit(features)

    def test_probabilities_need_no_activation(self):
        network = Coordinates()
        network.head = nn.Sequential(network.head, nn.Softmax(dim=1))
        entry = BankEntry.from_module("m", network, layers=("full",), activation=None)
        features = SegmentationFeatureExtractor(entry, window_size=8).fit_transform(self.cases)
        assert features.has_posterior
