"""Unknown numbers and coefficient fields of differential equations."""
