"""Tests of the compiled recursions against dense, Kalman and high-precision oracles."""
