"""The other systems of the paper's Table 2, one file each, behind the protocol of `jlebm.baselines.base`."""
