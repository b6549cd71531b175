"""Contenders against cases: the engine, scorers, statistics, gate and the comparison they make."""
