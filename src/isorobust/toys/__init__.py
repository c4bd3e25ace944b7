"""Generated point sets on which the isometric term can be seen: what it keeps, and where it cannot."""
