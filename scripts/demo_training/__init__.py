"""Training of the small demonstration model: photos, autoencoder, noise predictor, export."""
