"""Small networks pre-trained on real images, ranked for tasks they have not seen."""
