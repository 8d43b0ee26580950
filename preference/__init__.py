"""What is good: preference orders, backbones, the VLP model, annotation and learned rewards."""
