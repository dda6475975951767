"""Names of anomaly detection, in rows, tables and commands: the two protocols, the digits of Table 4, the scores."""

OFFICIAL, EIGHTY_TWENTY = "anomaly/1", "anomaly-80-20/1"
TYPED = {OFFICIAL: "official", EIGHTY_TWENTY: "80-20"}
"""What `--protocol` calls them."""
REPORTED = (1, 4, 5, 7, 9)
"""The held-out digits of Table 4."""
LITERAL, ENERGIES, RECONSTRUCTION, STANDARDISED = "L>0", "E", "R", "zR+zE"
"""Scores of a whole model; the others are of the layers above one, "L>1"."""
