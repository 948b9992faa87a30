"""Posteriors that begin at those of another rank."""

from __future__ import annotations

import numpy as np

from gpkit.inference.structured_vb import begin_resized
from tests.inference.structured_vb.problems import posterior_of


def test_states_that_are_added_beside_a_dead_one_have_usual_sizes():
    """What is left of a bond that precisions have switched off is mixed by huge numbers; new states are not."""
    old, layout, _ = posterior_of("tensor-train", 3, rank=1)
    for k in range(2):
        links = old.form.links[k]
        own = links.weight[(links.right < 1) & (links.weight >= 0)]
        old.form.weights[k].mean[own] = 1e-20
    new, _, _ = posterior_of("tensor-train", 3, rank=2)
    begin_resized(new, old, layout, np.random.default_rng(0))
    sizes = [np.abs(own.mean).max() for own in new.form.weights] + [np.abs(m.factor.mean).max() for m in new.modes]
    assert max(sizes) < 30.0
    bounds = new.fit(layout, sweeps=3, tolerance=0.0).elbo
    assert np.isfinite(bounds).all()
