"""The objective of GP-HM and its iterations, on Kronecker grids."""
