"""Models: recipes, the files on this machine, and the memory they need."""
