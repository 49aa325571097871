"""The paper's experiment on real images: rankings against fine-tuned networks."""
