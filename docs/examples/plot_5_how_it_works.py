"""
How the scores work
===================

What ``skte`` looks at, and what two of its scores make of it: CC-FV, drawn from its definitions,
and the cross-case probe, which ranks by default.
"""

# %%
# What is compared
# ----------------
#
# A network turns a window of an image into feature maps, one for each stage. ``skte`` reads these
# maps at voxels, so that a case becomes a table: one row per voxel, one column per channel. Two
# sets of voxels are drawn from each case: the *class sample* has voxels of every class, and the
# *whole-case sample* has voxels from anywhere that is not air. They depend on the case and its
# labels only, so every network is asked about the same voxels, and a difference between two
# networks is not due to the draw.

from skte import BankEntry, SegmentationFeatureExtractor
from skte.datasets import make_phantoms
from skte.demo import small_unet
from skte.report import SampledVoxelsDisplay

cases = make_phantoms(2, size=(64, 64, 1), random_state=0)
entry = BankEntry.from_module("network", small_unet(spatial_dims=2))
extractor = SegmentationFeatureExtractor(entry, n_class_samples=60, n_case_samples=60)
features = extractor.fit_transform(cases)
sampled = SampledVoxelsDisplay.from_case(extractor, cases[0])

# %%
# No layer is turned into a map of the whole image. A window is run if it owns a sampled voxel, and
# features are interpolated at that voxel.
#
# CC-FV
# -----
#
# CC-FV asks for two properties. **Class consistency**: the features of a class should be alike in
# every case. For class :math:`k` in cases :math:`i` and :math:`j`, a Gaussian is fitted to the
# features of each, with means :math:`\mu` and covariances :math:`S`, and their distance is
#
# .. math::
#
#    W_2^2 = \lVert \mu_i - \mu_j \rVert^2 + \operatorname{tr} S_i + \operatorname{tr} S_j
#    - 2 \operatorname{tr} (S_i S_j)^{1/2}
#
# The first term is how far the centres lie apart; the others vanish where the two clouds have the
# same shape. :math:`C_\mathrm{cons}` is the mean of :math:`W_2` over pairs of cases, summed over
# classes: lower is better. **Feature variety**: the features of a whole case should be diverse. If
# points on a sphere repel each other, their energy
#
# .. math::
#
#    E = \operatorname*{mean}_{a \ne b} \frac{1}{\lVert v_a - v_b \rVert}
#
# is low where they are spread out, and :math:`F_v` is the mean of :math:`1 / E` over cases. The
# score of a layer is :math:`\log (F_v / C_\mathrm{cons})`, and that of a network the mean over
# layers.
#
# Here are four made-up networks with two channels, so that the sphere is a circle. Each has two
# classes (blue, orange) in three cases, which are drawn side by side. A warning says where
# neighbours are so close that their distance is raised to ``min_distance``.

import numpy as np
from matplotlib.figure import Figure

from skte import CCFV, CrossCaseProbe


def made_up(shift, spread, gap, n=40):
    """Angles on the circle: classes ``gap`` apart, cases ``shift`` apart."""
    rng = np.random.default_rng(0)
    case, y = np.repeat([0, 1, 2], 2 * n), np.tile(np.repeat([1, 2], n), 3)
    angle = shift * (case - 1) + gap * (y - 1.5) + spread * rng.normal(size=len(y))
    return np.column_stack([np.cos(angle), np.sin(angle)]), y, case


networks = {
    "consistent, diverse": made_up(shift=0.15, spread=0.4, gap=2.5),
    "not consistent": made_up(shift=0.7, spread=0.4, gap=2.5),
    "not diverse": made_up(shift=0.15, spread=0.1, gap=0.4),
    "noise": made_up(shift=0.0, spread=3.0, gap=0.0),
}

# %%
# Both terms can be switched off, which shows each of them alone.

consistency, variety = CCFV(feature_variety=False), CCFV(class_consistency=False)
figure = Figure(figsize=(10, 3.4), layout="constrained")
for axes, (name, (X, y, case)) in zip(figure.subplots(1, 4), networks.items(), strict=True):
    for k in (1, 2):
        for i in range(3):
            rows = (y == k) & (case == i)
            axes.scatter(*(1 + 0.12 * (i - 1)) * X[rows].T, s=8, color=f"C{k - 1}")
    terms = [np.exp(s.fit(X, y, groups=case).score_) for s in (consistency, variety)]
    score = CCFV().fit(X, y, groups=case).score_
    axes.set_title(
        f"{name}\n$C_\\mathrm{{cons}}$ = {1 / terms[0]:.2f}, $F_v$ = {terms[1]:.2f}\n"
        f"CC-FV {score:.2f}",
        fontsize=10,
    )
    axes.set(aspect="equal", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2))
    axes.axis("off")

# %%
# The first network scores higher than the second, whose cases disagree more, and than the third,
# whose features are much the same everywhere. But the last one has no information about the classes
# at all, and wins: noise is diverse, and alike in every case. The features of a network with random
# weights can be so too, which is why
# ``skte`` scores an untrained twin of every architecture beside your networks, and why CC-FV does
# not rank by default.
#
# The cross-case probe
# --------------------
#
# The probe asks the question of the user instead: how well does a linear head on these features,
# fitted to some cases, segment the others? Channels of all layers are joined and standardised, and
# ridge regression maps them to the classes. One case (or a fifth of the cases) is left out at a
# time, and the Dice of the prediction on it is the score.

for name, (X, y, case) in networks.items():
    probe = CrossCaseProbe(background=None).fit(X, y, groups=case)
    print(f"{name:20} {probe.score_:.2f}")

# %%
# It tells noise from information, and sees that the second network would err on a new case. It does
# not know what fine-tuning will change. Whether a score predicts *that* is a question for
# experiments: see :doc:`../evidence`.
#
# How sure is it?
# ---------------
#
# With other labelled cases the scores would differ. ``skte`` leaves out each case in turn, which
# costs little because distances and moments are kept by case, and says which differences between
# networks would survive: see :doc:`../how-to/confidence`.

# sphinx_gallery_thumbnail_number = 2
