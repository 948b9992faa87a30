"""Engines that solve differential equations by conditioning a Gaussian process on collocation points."""
