"""Which segmentation bundles of MONAI's model zoo are read, and by which steps."""
