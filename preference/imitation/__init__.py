"""Rewards that label an offline data set from a few expert episodes: SEABO, OTR and UDS, the baselines of PROF."""
