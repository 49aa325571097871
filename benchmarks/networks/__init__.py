"""Which layers are read of networks as people have them, and how sure that is."""
