"""Pages that this machine serves to one browser: who may see them, and how they run."""
