"""Configurations of bundles, read as MONAI's own parser reads them; and what is not evaluated."""

import json

import numpy as np
import pytest
import torch
import torchio as tio

from skte import BankEntry
from skte.exceptions import BankError, SkteWarning
from tests.model_folders import bundle_config, bundle_network, require_monai, write_bundle


@pytest.fixture(autouse=True)
def _monai():
    require_monai()


VALUES = {
    "size": [96, 96, 64],
    "highres": True,
    "off": "$not @highres",
    "n": 2,
    "names": {"spleen": 1, "background": 0},
    "display#able": 1,
    "nested": {"list": [1, {"deep": 5.5}], "beside": "@nested::list::0"},
    "fine": "$[1.5, 1.5, 1.5] if @highres else [3.0, 3.0, 3.0]",
    "root": ".",
}
EXPRESSIONS = [
    "$len(@size)",
    "$len(@names) + @n",
    "@fine",
    "$[1.5, 1.5, 1.5] if @highres else [3, 3, 3]",
    "$@n * 2 - 1 + 7 // 2",
    "$-@n / 4",
    "$[@n, @size[0]] + [1] * 2",
    "$@size[-1]",
    "$@names['spleen']",
    "$@nested::list::1::deep > 5",
    "$not @off",
    "$1 <= @n",
    "$None",
    "$None if @n == 3 else @nested#beside",
    "$@root + '/models'",
    "%size",
    "%nested::list",
    "$@size",
    "mail@example.org",
]


def shifts(values, **more):
    """A bundle that shifts by each value; MONAI takes any."""
    steps = [{"_target_": "ShiftIntensityd", "keys": "image", "offset": v} for v in values]
    return bundle_config(preprocessing={"_target_": "Compose", "transforms": steps}, **more)


def test_expressions_have_the_values_that_monai_s_parser_gives(tmp_path):
    from monai.bundle import ConfigParser

    config = shifts(EXPRESSIONS, **VALUES)
    folder, _ = write_bundle(tmp_path, config)
    found = [s.options["offset"] for s in BankEntry.from_monai_bundle(folder).preprocessing]
    parsed = ConfigParser(json.loads(json.dumps(config))).get_parsed_content("preprocessing")
    assert found == [step.shifter.offset for step in parsed.transforms]


REFUSED = [
    ("$__import__('os').mkdir('was_run')", "it calls __import__('os').mkdir()"),
    ("$'@a' + '_x'", "it is or holds a Constant"),  # a reference within a text
    ("$open('was_run', 'w')", "it calls open()"),
    ("$(lambda: 1)()", "it calls"),
    ("$lambda x: x", "a Lambda"),
    ("$[i for i in @size]", "a ListComp"),
    ("$f'{@n}'", "a JoinedStr"),
    ("$len.__self__", "it uses len.__self__"),
    ("$len(@size, 1)", "it calls len()"),
    ("$torch.float32", "it uses torch.float32"),
    ("$'a' * 10", "it applies Mult"),
    ("$'%99999999d' % 1", "a BinOp"),
    ("$9 ** 9 ** 9 ** 9", "a BinOp"),
    ("$7 % 4", "a BinOp"),
    ("$[0] * 1000000000", "more than 10000 items"),
    ("$[[[0] * 99] * 99] * 99", "more than 10000 items"),
    ("$[" + ", ".join(["@long"] * 9) + "]", "more than 10000 items"),
    ("$" + "9" * 20, "too large"),
    ("$1" + "+1" * 600, "too long or nested"),
    ("$[[[[[[1]]]]]]", "too long or nested"),
    ("$" + "-" * 900 + "1", "only expressions of values are"),
    ("$1 +", "only expressions of values are"),
    ("$x := 1", "only expressions of values are"),
    ("$1 / 0", "it fails: ZeroDivisionError"),
    ("$@size[9]", "it fails: IndexError"),
    ("$@size['a']", "it fails: TypeError"),
    ("$len(@network_def)", "the object that 'UNet' would make"),
    ("$[@network_def] == []", "objects that would have to be made"),
    ("$__reference_0", "too long or nested"),
    ("$@n is 2", "a Compare"),
    ("$@n in @size", "a Compare"),
    ("$@n == 2 and @off", "a BoolOp"),
    ("$@size[1:]", "a Slice"),
    ("$monai.utils.CommonKeys.IMAGE", "it uses monai.utils.CommonKeys.IMAGE"),
    ("$1 <= @n < 3", "Compare"),
]


def test_nothing_else_is_evaluated(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [text for text, _ in REFUSED]
    folder, _ = write_bundle(tmp_path, shifts(texts, **VALUES, long="$[0] * 2000"))
    with pytest.warns(SkteWarning):
        entry = BankEntry.from_monai_bundle(folder)
    told = entry.provenance["preprocessing_left_out"]
    assert entry.preprocessing == ()
    assert [(text, why) for (text, why), line in zip(REFUSED, told, strict=True)
            if why not in line] == []  # fmt: skip
    assert not (tmp_path / "was_run").exists()


def test_expressions_that_multiply_are_refused(tmp_path):
    doubled = {f"a{i}": f"$@a{i + 1} + @a{i + 1}" for i in range(30)}
    folder, _ = write_bundle(tmp_path, shifts(["@a0"], a30=[1], **doubled))
    with pytest.raises(BankError, match="stand for more than"):
        BankEntry.from_monai_bundle(folder)


def compose(*steps):
    return {"_target_": "Compose", "transforms": list(steps)}


def step(kind, keys="image", **options):
    return {"_target_": f"{kind}d", "keys": keys, **options}


SPACING = step("Spacing", pixdim=[1.5, 1.5, 2.0], mode="bilinear")
RANGE = step("ScaleIntensityRange", a_min=-100, a_max=240, b_min=0.0, b_max=1.0, clip=True)
ORIENT = step("Orientation", axcodes="RAS", labels=[["L", "R"], ["P", "A"], ["I", "S"]])
TWO = ["t1", "t2"]
#: Files (each a dict of keys) and the kinds of the steps that MONAI takes.
BUNDLES = {
    "plain": [{"inference.json": {"preprocessing": compose(ORIENT, SPACING, RANGE)}}, 3],
    "list without Compose is nested": [
        {"inference.json": {"preprocessing": compose(ORIENT, compose(SPACING, compose(RANGE)))}}, 3
    ],
    "steps in common.json": [
        {"common.json": {"steps": [ORIENT, SPACING]},
         "inference.json": {"preprocessing": compose("@steps::0", "@steps::1", RANGE)}}, 3
    ],
    "lists are added": [
        {"inference.json": {"a": [ORIENT], "b": [SPACING, RANGE],
                            "preprocessing": compose() | {"transforms": "$@a + @b"}}}, 3
    ],
    "chosen by a flag": [
        {"inference.json": {"fast": False, "a": [ORIENT], "b": [SPACING],
                            "preprocessing": compose() | {"transforms": "$@a if @fast else @b"}}}, 1
    ],
    "disabled by a flag": [
        {"inference.json": {"fast": True, "preprocessing": compose(
            {**ORIENT, "_disabled_": "@fast"}, {**SPACING, "_disabled_": "$not @fast"},
            {**RANGE, "_disabled_": "true"})}}, 1
    ],
    "disabled in part": [
        {"inference.json": {"preprocessing": compose(
            {**compose(ORIENT, RANGE), "_disabled_": True}, SPACING)}}, 1
    ],
    "macros copy": [
        {"inference.json": {"mine": SPACING, "preprocessing": compose("%mine", RANGE)}}, 2
    ],
}  # fmt: skip


def monai_s_steps(folder, files):
    """The steps that MONAI's own parser yields for the files, nested ones flattened."""
    from monai.bundle import ConfigParser

    parser = ConfigParser()
    parser.read_config([str(folder / "configs" / name) for name in files])
    chain = parser.get_parsed_content("preprocessing").flatten()
    return [t for t in chain.transforms if t is not None]


@pytest.mark.parametrize("name", BUNDLES)
def test_the_steps_are_those_that_monai_s_parser_yields(name, tmp_path):
    from monai.data import MetaTensor

    files, n_steps = BUNDLES[name]
    base = bundle_config()
    base.pop("preprocessing")
    folder, _ = write_bundle(tmp_path, base)
    for file, content in files.items():
        content = {**(base if file == "inference.json" else {}), **content}
        (folder / "configs" / file).write_text(json.dumps(content))
    entry = BankEntry.from_monai_bundle(folder)
    steps = monai_s_steps(folder, files)
    kinds = [type(step).__name__.removesuffix("d") for step in steps]
    assert [s.kind for s in entry.preprocessing] == kinds
    assert len(entry.preprocessing) == n_steps
    values = np.random.default_rng(0).normal(100, 60, size=(1, 9, 11, 8)).astype(np.float32)
    affine = np.diag([-0.8, -1.1, 1.5, 1.0])
    found = entry.transform()(tio.ScalarImage(tensor=torch.tensor(values), affine=affine))
    case = {"image": MetaTensor(torch.tensor(values), affine=torch.tensor(affine))}
    for one in steps:
        case = one(case)
    expected = case["image"]
    np.testing.assert_allclose(found.data.numpy(), expected.numpy(), atol=1e-4)
    np.testing.assert_allclose(found.affine, expected.affine.numpy(), atol=1e-6)


def test_channels_that_are_joined_are_refused_by_name(tmp_path):
    steps = compose({**SPACING, "keys": TWO}, step("ConcatItems", TWO, name="image"))
    folder, _ = write_bundle(tmp_path, bundle_config(preprocessing=steps))
    with pytest.raises(BankError, match=r"ConcatItems joins channels .* store the channels"):
        BankEntry.from_monai_bundle(folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"preprocessing": compose("%configs/steps.json::mine::0", RANGE)}, "from another file"),
        ({"preprocessing": compose("%/etc/passwd.json", RANGE)}, "from another file"),
        ({"preprocessing": compose({**RANGE, "b_max": "@::b_min"})}, "relative to where it"),
        ({"+preprocessing": {"transforms": [SPACING]}}, "'[+]preprocessing'.* add to what other"),
    ],
)
def test_what_no_published_bundle_uses_is_refused_by_name(tmp_path, change, match):
    folder, _ = write_bundle(tmp_path, bundle_config(**change))
    with pytest.raises(BankError, match=match):
        BankEntry.from_monai_bundle(folder)


ZOO = {  # written after the published configurations of MONAI's model zoo, shortened
    "spatial_size": [96, 96, 96],
    "spatial_dims": "$len(@spatial_size)",
    "label_names": {"spleen": 1, "background": 0},
    "displayable_configs": {"highres": True},
    "pixdim": "$[1.5, 1.5, 1.5] if @displayable_configs#highres else [3.0, 3.0, 3.0]",
}


def test_expressions_of_the_model_zoo(tmp_path):
    config = bundle_config(
        preprocessing=compose(step("Spacing", "@image_key", pixdim="@pixdim", mode="bilinear")),
        inferer={"_target_": "SlidingWindowInferer", "roi_size": "@spatial_size"},
        **ZOO,
    )
    trained = bundle_network(config)
    described = config["network_def"]
    described |= {"spatial_dims": "@spatial_dims", "out_channels": "$len(@label_names) + 1"}
    folder, _ = write_bundle(tmp_path, config, network=trained)
    entry = BankEntry.from_monai_bundle(folder)
    assert (entry.spatial_dims, entry.window_size) == (3, (96, 96, 96))
    assert entry.preprocessing[0].options["pixdim"] == [1.5, 1.5, 1.5]
    assert entry.load().state_dict().keys() == trained.state_dict().keys()
    config["out"] = "$torch.load('weights.pt')"
    described["out_channels"] = "$@out['classes']"
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    with pytest.raises(BankError, match=r"it needs .*: it calls torch.load\(\)\)"):
        BankEntry.from_monai_bundle(folder)
