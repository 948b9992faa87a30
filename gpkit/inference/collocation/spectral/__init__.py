"""Weight-space solutions in broadband tensor bases, and the choice between them and picked waves."""
