"""Self-supervised pretraining: views, objectives, engine, checkpoints, export."""
