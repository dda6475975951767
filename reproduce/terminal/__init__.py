"""What the commands of the suite share: how their arguments are read, and how a table is printed."""
