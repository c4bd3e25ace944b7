"""Adversarial attacks: images, labels and a model in, adversarial images out, and who stands under them."""
